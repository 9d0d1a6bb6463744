// What a job had to say: one text file each, beside the journal, of at most 1 MiB.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

inline constexpr int64_t kMostLogBytes = int64_t{1} << 20;

// Files `{folder}/{job}.log`, mode 0600. Not durable on purpose: a log is worth no sync. Errors of
// the disk while appending are swallowed; a job never fails for its log. Thread-compatible.
class JobLogs {
 public:
  // Makes `folder` if it is not there. PermissionDenied, ResourceExhausted, ...
  static absl::StatusOr<JobLogs> Open(std::string folder);

  // Adds `line` and a line end; control characters become '?'. At the limit a last line says that
  // the rest was left out.
  void Append(int64_t job, std::string_view line);

  struct Piece {
    std::string text;  // whole lines
    int64_t next_offset = 0;
  };
  // At most `most_bytes` from `offset`; empty at the end and for a job that said nothing.
  absl::StatusOr<Piece> Read(int64_t job, int64_t offset, int64_t most_bytes) const;

  void Remove(int64_t job);
  // Removes the logs of jobs for which `known` says no: left by a crash between journal and log.
  template <typename Known>
  void RemoveUnknown(const Known& known) {
    for (int64_t job : Jobs()) {
      if (!known(job)) Remove(job);
    }
  }

 private:
  explicit JobLogs(std::string folder) : folder_(std::move(folder)) {}
  std::vector<int64_t> Jobs() const;
  std::string PathOf(int64_t job) const;
  std::string folder_;
};

}  // namespace tiny_knn
