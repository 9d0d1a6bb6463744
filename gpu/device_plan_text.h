// How a search on a device is described to a person, for --dry-run.
#pragma once

#include <cstdint>
#include <string>

#include "core/search/planner.h"
#include "gpu/device_plan.h"

namespace tiny_knn {

// What the engine would do with the first batch of a search, and the others like it.
struct DeviceSearch {
  DeviceShape shape;
  DevicePlan plan;
  int64_t budget_bytes = 0;  // device memory that the search may use
  // The docs are copied to the device once, and stay there for all passes.
  bool docs_stay = false;
};

// Several lines. `host_plan`: of the same search, whose batches the device takes one after another.
std::string DescribeDeviceSearch(const ProblemShape& shape, const SearchPlan& host_plan,
                                 const DeviceSearch& search);

}  // namespace tiny_knn
