// The checkpoint of a job that is under way: where it was when it was saved last, so that the same
// job, run again after this process has ended in whatever way, goes on from there and writes the
// same result. Two files, the second of which is there as long as the job runs:
//
//   FILE       the state of the search (core/job/checkpoint_file.h), replaced as a whole each time
//   FILE.rows  the rows of queries that are finished, appended to; locked while a process uses it
//
// docs/shards.md says what survives what.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/unique_fd.h"
#include "core/job/checkpoint_file.h"
#include "core/search/search.h"
#include "core/search/search_state.h"

namespace tiny_knn {

struct CheckpointOptions {
  std::string path;
  std::chrono::nanoseconds interval{};  // least time between two savings
  // Of the search; see CheckpointData. Anything else is refused, naming the first difference.
  std::vector<std::pair<std::string, std::string>> identity;
  int64_t num_queries = 0;
  int64_t num_docs = 0;
  SearchParams params;
};

// Thread-compatible.
class Checkpoint : public SearchSaver {
 public:
  // Goes on where `path` says, or makes it, as a search that has not begun: a folder that cannot be
  // written and a full disk are found now. Errors name the file: InvalidArgument (it is no
  // checkpoint, damaged, or of another search; it is in use by another process), and those of
  // reading and writing. Neither file is changed then.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const CheckpointOptions& options);

  // Hands the rows of finished queries to `sink`, in order. DataLoss where they are not those that
  // were saved.
  absl::Status Replay(TopKSink& sink);
  // Keeps rows that the search has finished, the next ones in order, after Replay.
  absl::Status Append(const TopKView& rows);

  const SearchState& start() const override { return data_.state; }
  // When `interval` has passed since the last saving, and twenty times what that took: on a slow
  // disk, less often.
  bool Due() override;
  absl::Status Save(const SearchState& state) override;

  // The job is done, nothing is needed any more.
  absl::Status Remove();

  // Unlike that of every other search.
  const std::string& run_id() const { return data_.run_id; }
  // What of the search was done when it went on, 0 to 1; 0 where it began.
  double share_done() const;

 private:
  using Clock = std::chrono::steady_clock;

  explicit Checkpoint(const CheckpointOptions& options) : options_(options) {}
  absl::Status OpenRows();
  // One that this process made, or that is of no use to anybody.
  void RemoveEmptyRows();
  absl::Status Begin();
  // Of the bytes of FILE.
  absl::Status GoOn(std::span<const uint8_t> bytes);
  absl::Status WriteRows(int64_t offset, std::span<const std::byte> bytes);
  absl::Status WriteState(const SearchState& state);
  std::string rows_path() const { return options_.path + ".rows"; }
  int64_t row_bytes() const;

  const CheckpointOptions options_;
  UniqueFd rows_;
  bool rows_are_ours_ = false;  // locked, and still under its name
  CheckpointData data_;         // as it was found
  int64_t num_rows_ = 0;        // in the other file
  uint32_t rows_crc32_ = 0;     // of them
  bool rows_are_synced_ = true;
  Clock::time_point last_save_;
  Clock::duration save_took_{};
};

}  // namespace tiny_knn
