#include "gpu/emulation/modules.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "gpu/emulation/fatbin.h"
#include "gpu/emulation/ptx_parser.h"

namespace tiny_knn::emulation {
namespace {

constexpr size_t kFatbinHeaderBytes = 16;
// Before all others.
constexpr Actor kInitialActor{.first = 1, .id = 1};

bool IsGlobal(const PtxVariable& variable) {
  return (variable.space == StateSpace::kGlobal || variable.space == StateSpace::kConst) &&
         variable.bytes > 0;
}

void WriteInitial(const PtxVariable& variable, uint64_t address, DeviceMemory& memory) {
  memory.Forget(address, variable.bytes);
  std::byte* bytes = memory.Write(kInitialActor, address, variable.bytes, 1, Strength::kWeak);
  std::memset(bytes, 0, variable.bytes);
  const size_t given = std::min<size_t>(variable.initial.size(), variable.bytes);
  std::transform(variable.initial.begin(), variable.initial.begin() + static_cast<ptrdiff_t>(given),
                 bytes, [](uint8_t byte) { return std::byte{byte}; });
}

}  // namespace

Module* Modules::Register(const void* fatbin) {
  modules_.push_back(std::make_unique<Module>());
  modules_.back()->fatbin = fatbin;
  return modules_.back().get();
}

void Modules::Unregister(Module* module) {
  std::erase_if(kernels_, [&](const auto& entry) { return entry.second.module == module; });
  std::erase_if(modules_, [&](const auto& each) { return each.get() == module; });
}

void Modules::RegisterKernel(Module* module, const void* stub, std::string name) {
  kernels_[stub] = {.module = module, .name = std::move(name)};
}

KernelHandle* Modules::Find(const void* stub) {
  const auto found = kernels_.find(stub);
  return found == kernels_.end() ? nullptr : &found->second;
}

void Modules::LoadModule(Module* module) {
  if (module->is_loaded) return;
  module->is_loaded = true;
  const auto* bytes = static_cast<const std::byte*>(module->fatbin);
  const size_t size = FatbinSize({bytes, kFatbinHeaderBytes});
  absl::StatusOr<std::vector<PtxImage>> images = ReadFatbin({bytes, size});
  if (!images.ok()) {
    module->load_status = images.status();
    return;
  }
  if (images->empty()) {
    module->load_status = absl::FailedPreconditionError(
        "the object holds no PTX; link the _emulated_ target of its cuda_library");
    return;
  }
  const auto newest = std::max_element(
      images->begin(), images->end(), [](const auto& a, const auto& b) { return a.arch < b.arch; });
  absl::StatusOr<PtxModule> ptx = ParsePtx(newest->text);
  if (!ptx.ok()) {
    module->load_status = ptx.status();
    return;
  }
  module->arch = newest->arch;
  module->ptx = *std::move(ptx);
}

void Modules::AllocateVariables(Module* module, DeviceMemory& memory) {
  for (const PtxVariable& variable : module->ptx.variables) {
    if (!IsGlobal(variable) || module->variables.contains(variable.name)) continue;
    const uint64_t address = memory.Allocate(variable.bytes);
    module->variables[variable.name] = address;
    WriteInitial(variable, address, memory);
  }
}

absl::StatusOr<const Program*> Modules::Load(KernelHandle* kernel, DeviceMemory& memory) {
  Module* module = kernel->module;
  LoadModule(module);
  if (!module->load_status.ok()) return module->load_status;
  std::unique_ptr<Program>& program = module->programs[kernel->name];
  if (program == nullptr) {
    AllocateVariables(module, memory);
    const auto& kernels = module->ptx.kernels;
    const auto found = std::find_if(kernels.begin(), kernels.end(), [&](const PtxKernel& each) {
      return each.name == kernel->name;
    });
    if (found == kernels.end()) {
      return absl::NotFoundError(fmt::format("the module's PTX has no kernel {}", kernel->name));
    }
    program = DecodeKernel(module->ptx, *found, module->variables, memory.space());
  }
  return program.get();
}

int Modules::NewestArch() {
  int arch = 0;
  for (const std::unique_ptr<Module>& module : modules_) {
    LoadModule(module.get());
    arch = std::max(arch, module->arch);
  }
  return arch == 0 ? 75 : arch;
}

void Modules::ResetVariables(DeviceMemory& memory) {
  for (const std::unique_ptr<Module>& module : modules_) {
    for (const PtxVariable& variable : module->ptx.variables) {
      const auto found = module->variables.find(variable.name);
      if (found != module->variables.end()) WriteInitial(variable, found->second, memory);
    }
  }
}

bool Modules::IsVariable(uint64_t address) const {
  return std::any_of(modules_.begin(), modules_.end(), [&](const auto& module) {
    return std::any_of(module->variables.begin(), module->variables.end(),
                       [&](const auto& variable) { return variable.second == address; });
  });
}

size_t Modules::variables() const {
  size_t count = 0;
  for (const std::unique_ptr<Module>& module : modules_) count += module->variables.size();
  return count;
}

}  // namespace tiny_knn::emulation
