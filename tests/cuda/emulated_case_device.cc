#include "gpu/emulation/emulation.h"
#include "tests/cuda/case_device.h"

namespace tiny_knn::conformance {
namespace {

class EmulatedCaseDevice : public CaseDevice {
 public:
  explicit EmulatedCaseDevice(uint64_t seed) : gpu_({.seed = seed}) {}
  std::string Leftovers() const override {
    const bool leaves = gpu_.live_allocations() + gpu_.live_host_allocations() +
                            gpu_.live_streams() + gpu_.live_events() >
                        0;
    return leaves ? "memory, streams or events of the device are left\n" : "";
  }

 private:
  emulation::EmulatedGpu gpu_;
};

}  // namespace

std::unique_ptr<CaseDevice> MakeCaseDevice(uint64_t seed) {
  return std::make_unique<EmulatedCaseDevice>(seed);
}

}  // namespace tiny_knn::conformance
