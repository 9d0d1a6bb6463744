// The kernels that are linked into the process: registered by nvcc's host code before main, parsed
// and decoded when they are first used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/emulation/device_memory.h"
#include "gpu/emulation/kernel_decoder.h"
#include "gpu/emulation/program.h"

namespace tiny_knn::emulation {

// One embedded container: what __cudaRegisterFatBinary was given.
struct Module {
  const void* fatbin = nullptr;  // as it lies in the object; lives as long as the module
  bool is_loaded = false;
  absl::Status load_status;
  int arch = 0;
  PtxModule ptx;
  VariableAddresses variables;
  std::map<std::string, std::unique_ptr<Program>> programs;  // by the kernel's mangled name
};

// A registered kernel, by the address of its host stub.
struct KernelHandle {
  Module* module = nullptr;
  std::string name;  // mangled
  int max_dynamic_shared = 48 * 1024;
};

// Not thread-safe.
class Modules {
 public:
  Module* Register(const void* fatbin);
  void Unregister(Module* module);
  void RegisterKernel(Module* module, const void* stub, std::string name);
  // Null if the address is no registered kernel's.
  KernelHandle* Find(const void* stub);

  // The kernel's program, its module's variables being allocated in `memory`. Errors: the module's
  // bytes cannot be read, or lack the kernel.
  absl::StatusOr<const Program*> Load(KernelHandle* kernel, DeviceMemory& memory);
  // The newest architecture that a registered module was compiled for, 75 if there is none.
  int NewestArch();
  // Writes the initial values of all variables again.
  void ResetVariables(DeviceMemory& memory);
  size_t variables() const;
  bool IsVariable(uint64_t address) const;

 private:
  void LoadModule(Module* module);
  void AllocateVariables(Module* module, DeviceMemory& memory);

  std::vector<std::unique_ptr<Module>> modules_;
  std::unordered_map<const void*, KernelHandle> kernels_;
};

}  // namespace tiny_knn::emulation
