// Reads the container that nvcc embeds in an object: which PTX texts it holds.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn::emulation {

// One PTX module as nvcc wrote it.
struct PtxImage {
  int arch = 0;  // 75: written for compute_75
  std::string text;
};

// Bytes of the container whose header starts `header`, header included; 0 if it is none.
// `header` has at least 16 bytes.
size_t FatbinSize(std::span<const std::byte> header);

// The PTX entries of the container `fatbin`, in its order; machine code is passed over.
// Errors: InvalidArgument where the bytes are no container, or end early; FailedPrecondition for
// PTX that is compressed (compile with -no-compress, as cuda_library's emulated variants are).
absl::StatusOr<std::vector<PtxImage>> ReadFatbin(std::span<const std::byte> fatbin);

}  // namespace tiny_knn::emulation
