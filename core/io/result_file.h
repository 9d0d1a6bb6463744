// Result files of every format: which one is written, and how one of any is read.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/io/result.h"

namespace tiny_knn {

// .npz where the file's name ends so, else the original's pickle (core/io/result_pickle.h). Rows
// have to be written in order. Errors as AtomicFile::Create, and InvalidArgument for arrays larger
// than any file.
absl::StatusOr<std::unique_ptr<ResultWriter>> CreateResultWriter(
    const std::string& path, const ResultMetadata& metadata, const AtomicFileOptions& options = {});

// Whether bytes that begin so may be a result: a pickle of protocol 2 to 5, or a zip.
bool LooksLikeResult(std::span<const uint8_t> start);

// Reads a result of either format by its content: one that tiny-knn wrote, that Python pickled, or
// that numpy.savez saved with `indices` and `scores` (core/io/result_pickle.h, core/io/result_npz.h
// say what exactly). Never runs code. Errors name the file: NotFound, PermissionDenied,
// InvalidArgument (no such result), DataLoss (truncated while it was read), ResourceExhausted.
absl::StatusOr<ResultFile> ReadResult(const std::string& path);

}  // namespace tiny_knn
