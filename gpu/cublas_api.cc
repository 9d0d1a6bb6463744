#include "gpu/cublas_api.h"

#include <dlfcn.h>

#include <string>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

template <typename Function>
bool Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

absl::StatusOr<CublasApi> Open() {
  // Of the toolkit's own major version: types and constants are compiled in.
  const std::string name = fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR);
  void* const library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* const reason = dlerror();
    return absl::UnavailableError(fmt::format("{} cannot be loaded: {}", name,
                                              reason == nullptr ? "no reason given" : reason));
  }
  CublasApi api;
  if (!Find(library, "cublasCreate_v2", api.create) ||
      !Find(library, "cublasDestroy_v2", api.destroy) ||
      !Find(library, "cublasSetStream_v2", api.set_stream) ||
      !Find(library, "cublasGemmEx", api.gemm_ex)) {
    return absl::UnavailableError(fmt::format("{} lacks a function that is needed", name));
  }
  return api;
}

}  // namespace

absl::StatusOr<const CublasApi*> LoadCublas() {
  static const auto* const api = new absl::StatusOr<CublasApi>(Open());
  if (!api->ok()) return api->status();
  return &**api;
}

}  // namespace tiny_knn
