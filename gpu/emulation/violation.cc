#include "gpu/emulation/violation.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace tiny_knn::emulation {
namespace {

struct Collected {
  std::mutex mutex;
  bool collecting = false;
  std::vector<Violation> violations;
};

// Constructed at first use: kernels register themselves before main.
Collected& TheCollected() {
  static Collected& collected = *new Collected;
  return collected;
}

}  // namespace

std::string_view ViolationName(ViolationKind kind) {
  switch (kind) {
    case ViolationKind::kOutOfBounds:
      return "out of bounds";
    case ViolationKind::kMisaligned:
      return "misaligned";
    case ViolationKind::kUninitialised:
      return "uninitialised read";
    case ViolationKind::kSharedRace:
      return "race in shared memory";
    case ViolationKind::kBlockRace:
      return "race between blocks";
    case ViolationKind::kStreamRace:
      return "race between streams";
    case ViolationKind::kNeverReached:
      return "never reached";
    case ViolationKind::kWrongMask:
      return "wrong mask";
    case ViolationKind::kPinnedReuse:
      return "host buffer reused";
    case ViolationKind::kHostBuffer:
      return "wrong memory space";
    case ViolationKind::kEndless:
      return "endless";
    case ViolationKind::kTrap:
      return "trap";
    case ViolationKind::kUnsupported:
      return "not supported";
  }
  return "unknown";
}

void ReportViolation(Violation violation) {
  Collected& collected = TheCollected();
  const std::lock_guard lock(collected.mutex);
  if (collected.collecting) {
    collected.violations.push_back(std::move(violation));
    return;
  }
  const std::string_view name = ViolationName(violation.kind);
  std::fprintf(stderr, "gpu emulation: %.*s: %s\n", static_cast<int>(name.size()), name.data(),
               violation.message.c_str());
  std::abort();
}

ViolationCollector::ViolationCollector() {
  Collected& collected = TheCollected();
  const std::lock_guard lock(collected.mutex);
  if (collected.collecting) {
    std::fputs("gpu emulation: there is a ViolationCollector already\n", stderr);
    std::abort();
  }
  collected.collecting = true;
}

ViolationCollector::~ViolationCollector() {
  Collected& collected = TheCollected();
  const std::lock_guard lock(collected.mutex);
  collected.collecting = false;
  collected.violations.clear();
}

std::vector<Violation> ViolationCollector::Take() {
  Collected& collected = TheCollected();
  const std::lock_guard lock(collected.mutex);
  return std::exchange(collected.violations, {});
}

}  // namespace tiny_knn::emulation
