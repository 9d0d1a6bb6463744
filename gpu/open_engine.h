// The only place that chooses between the CPU engine and the CUDA engine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/search/engine.h"

namespace tiny_knn {

struct EngineOptions {
  // "auto" (CUDA if there is a device, else the CPU), "cpu", "cuda" (the first device), "cuda:N".
  std::string device = "auto";
  int64_t gpu_memory_bytes = 0;  // most device memory to use; 0: what is free
};

struct OpenedEngine {
  std::unique_ptr<Engine> engine;
  // Why "auto" did not choose CUDA, one line for the user; empty when there is nothing to say.
  std::string note;
};

// Errors: InvalidArgument (device text), Unavailable (CUDA asked for and not there, or of no use,
// saying why).
absl::StatusOr<OpenedEngine> OpenEngine(const EngineOptions& options);

}  // namespace tiny_knn
