// A result as numpy's .npz: a zip of .npy files, which np.load reads without unpickling anything,
// and which will be readable for as long as numpy is.
//
// Entries, in this order: `indices` (Q, k) int64, `scores` (Q, k) float32 or float64, and of the
// same names and values as in the pickle the fields of VisitResultFields (core/io/result.h): arrays
// without dimensions, of text, int64 or bool.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/io/result.h"

namespace tiny_knn {

// Thread-compatible.
class ResultNpzWriter final : public ResultWriter {
 public:
  static absl::StatusOr<std::unique_ptr<ResultNpzWriter>> Create(
      const std::string& path, const ResultMetadata& metadata,
      const AtomicFileOptions& options = {});
  ~ResultNpzWriter() override;

  // Rows in order, each once (FailedPrecondition otherwise): their checksum is of them as they
  // come.
  absl::Status WriteRows(int64_t first_query, int64_t num_queries, const int64_t* indices,
                         const void* scores) override;
  absl::Status Commit() override;

 private:
  struct State;
  explicit ResultNpzWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Reads what ResultNpzWriter or numpy.savez wrote: `indices` and `scores`, two-dimensional, C
// order, native byte order; other entries that are missing are left at their defaults, and ones
// that are not known are ignored. Compares checksums. Errors are InvalidArgument, in one line
// without a file's name. Safe on any bytes; work is linear in their number.
// The view is valid as long as the bytes.
absl::StatusOr<ResultView> ParseResultNpz(std::span<const uint8_t> bytes);

}  // namespace tiny_knn
