// What a job had to say: one text file each, beside the journal, of at most 1 MiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

inline constexpr int64_t kMostLogBytes = int64_t{1} << 20;
// Of one line, its end included; longer ones are cut and end in "...".
inline constexpr int64_t kMostLogLineBytes = int64_t{64} << 10;

// Files `{folder}/{job}.log`, mode 0600. Not durable on purpose: a log is worth no sync. Errors of
// the disk while appending are swallowed; a job never fails for its log. What lies in the folder
// and is no regular file of ours, a symbolic link say, is neither read nor written.
// Lines are kept in memory until Write, because whoever waits for a job need not wait for the files
// of its log: a process that dies before that has lost them. Whoever reads sees them all the same.
// Thread-compatible.
class JobLogs {
 public:
  // Makes `folder` (mode 0700) if it is not there; the folder above it must be. PermissionDenied if
  // it is a link, another user's, or open to others.
  static absl::StatusOr<JobLogs> Open(std::string folder);
  JobLogs(JobLogs&&) = default;
  // Writes what is unwritten.
  ~JobLogs() { Write(); }

  // Adds `line` and a line end; control characters become '?'. At the limit a last line says that
  // the rest was left out. A line that the disk has no room for is left out whole. Writes by itself
  // where more lines wait than should be kept in memory.
  void Append(int64_t job, std::string_view line);
  void Write();

  struct Piece {
    std::string text;  // whole lines; part of one if it alone is longer than most_bytes
    int64_t next_offset = 0;
  };
  // At most `most_bytes` from `offset`; empty at the end and for a job that said nothing.
  // InvalidArgument for a negative offset or most_bytes below 1.
  absl::StatusOr<Piece> Read(int64_t job, int64_t offset, int64_t most_bytes);

  void Remove(int64_t job);
  // Removes the logs of jobs for which `known` says no: left by a crash between journal and log.
  template <typename Known>
  void RemoveUnknown(const Known& known) {
    for (int64_t job : Jobs()) {
      if (!known(job)) Remove(job);
    }
  }

 private:
  JobLogs(std::string folder, UniqueFd folder_fd)
      : folder_(std::move(folder)), folder_fd_(std::move(folder_fd)) {}
  std::vector<int64_t> Jobs() const;
  // Whole lines, each with its end.
  void WriteLines(int64_t job, std::string_view lines);
  std::string folder_;  // for messages
  UniqueFd folder_fd_;
  std::map<int64_t, std::string> unwritten_;  // by job; none of them empty
  size_t unwritten_bytes_ = 0;
};

}  // namespace tiny_knn
