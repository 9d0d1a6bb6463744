#include "gpu/cublas_api.h"

#include <dlfcn.h>

#include <string>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

template <typename Function>
absl::Status Find(void* opened, const std::string& library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(opened, name));
  if (function != nullptr) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("{} lacks the function {}", library, name));
}

}  // namespace

absl::StatusOr<CublasApi> OpenCublas(const std::string& library) {
  void* const opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    const char* const reason = dlerror();
    return absl::UnavailableError(fmt::format("{} cannot be loaded: {}", library,
                                              reason == nullptr ? "no reason given" : reason));
  }
  CublasApi api;
  absl::Status status = Find(opened, library, "cublasCreate_v2", api.create);
  status.Update(Find(opened, library, "cublasDestroy_v2", api.destroy));
  status.Update(Find(opened, library, "cublasSetStream_v2", api.set_stream));
  status.Update(Find(opened, library, "cublasGemmEx", api.gemm_ex));
  if (!status.ok()) return status;
  return api;
}

absl::StatusOr<const CublasApi*> LoadCublas() {
  static const auto* const api = new absl::StatusOr<CublasApi>(
      // Types and constants of the toolkit's major version are compiled in.
      OpenCublas(fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR)));
  if (!api->ok()) return api->status();
  return &**api;
}

}  // namespace tiny_knn
