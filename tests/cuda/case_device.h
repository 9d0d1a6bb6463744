// The device on which a case runs: an emulated GPU that is fresh for each, or, for tools/gpu_check,
// the machine's own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace tiny_knn::conformance {

// One at a time, alive while a case runs.
class CaseDevice {
 public:
  virtual ~CaseDevice() = default;
  // What the case has left on the device, in words; empty: nothing.
  virtual std::string Leftovers() const = 0;
};

// `seed`: of the emulation's order of work and rounding; 0 is the latest and the worst.
std::unique_ptr<CaseDevice> MakeCaseDevice(uint64_t seed);

}  // namespace tiny_knn::conformance
