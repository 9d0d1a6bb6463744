#include "core/job/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <new>
#include <optional>
#include <string_view>
#include <system_error>

#include "core/io/atomic_file.h"
#include "core/io/file_util.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Only the process that holds the lock writes the checkpoint, so that one name is enough.
constexpr const char* kTemporaryTag = "checkpoint";
constexpr std::string_view kRowsMagic = "tiny-knn rows 1\n";  // and then the run's id
constexpr int64_t kRowsHeaderBytes = 32;
constexpr int64_t kBlockBytes = int64_t{1} << 20;
// Saving takes at most one part in so many of the time.
constexpr int kLeastTimesSaving = 20;

std::string RowsHeader(const std::string& run_id) { return std::string(kRowsMagic) + run_id; }

absl::StatusOr<std::string> NewRunId() {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    return ErrnoStatus(errno, "checkpoint", "cannot get a random number");
  }
  return fmt::format("{:016x}", random);
}

// The first difference between the search that a checkpoint is of and this one, or nothing.
std::optional<std::string> Difference(
    const std::vector<std::pair<std::string, std::string>>& there,
    const std::vector<std::pair<std::string, std::string>>& here) {
  const auto value = [](const std::string& text) { return text.empty() ? "none" : text; };
  for (size_t i = 0; i < std::max(there.size(), here.size()); ++i) {
    if (i >= there.size()) return fmt::format("it knows no {}", here[i].first);
    if (i >= here.size()) return fmt::format("{} is unknown here", there[i].first);
    if (there[i].first != here[i].first) {
      return fmt::format("{} there stands for {} here", there[i].first, here[i].first);
    }
    if (there[i].second != here[i].second) {
      return fmt::format("{} is {} there, {} here", here[i].first, value(there[i].second),
                         value(here[i].second));
    }
  }
  return std::nullopt;
}

absl::Status Named(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), fmt::format("{}: {}", path, std::string(status.message())));
}

}  // namespace

int64_t Checkpoint::row_bytes() const {
  return options_.params.k *
         (int64_t{sizeof(int64_t)} + ItemSize(WorkingDType(options_.params.compute_dtype)));
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const CheckpointOptions& options) {
  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(options));
  try {
    // Before anything is read: another process may be about to replace it.
    absl::Status status = checkpoint->OpenRows();
    if (!status.ok()) return status;
    absl::StatusOr<OpenedFile> file = OpenRegularFile(options.path, "a checkpoint of tiny-knn");
    if (absl::IsNotFound(file.status())) {
      status = checkpoint->Begin();
    } else if (!file.ok()) {
      status = file.status();
    } else {
      std::vector<std::byte> bytes(static_cast<size_t>(file->stat.st_size));
      const absl::StatusOr<int64_t> got = ReadAt(file->fd.get(), 0, bytes, options.path);
      if (!got.ok()) return got.status();
      status = checkpoint->GoOn(
          {reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<size_t>(*got)});
    }
    if (!status.ok()) {
      checkpoint->RemoveEmptyRows();
      return status;
    }
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: no memory to read it", options.path));
  }
  checkpoint->last_save_ = Clock::now();
  return checkpoint;
}

absl::Status Checkpoint::OpenRows() {
  const std::string path = rows_path();
  rows_ =
      UniqueFd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666));
  if (!rows_.valid()) return ErrnoStatus(errno, path, "cannot open");
  struct stat opened, named;
  if (fstat(rows_.get(), &opened) != 0) return ErrnoStatus(errno, path, "cannot stat");
  if (!S_ISREG(opened.st_mode)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is no regular file; name another checkpoint", path));
  }
  if (flock(rows_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path, "cannot lock");
    return absl::FailedPreconditionError(
        fmt::format("{}: another process is using this checkpoint; wait for it, or name another",
                    options_.path));
  }
  // The other one may have been done, and have removed it, between opening and locking.
  if (stat(path.c_str(), &named) != 0 || named.st_ino != opened.st_ino ||
      named.st_dev != opened.st_dev) {
    return absl::FailedPreconditionError(
        fmt::format("{}: another process has just used this checkpoint; run again", options_.path));
  }
  rows_are_ours_ = true;
  char magic[kRowsMagic.size()];
  const absl::StatusOr<int64_t> got =
      ReadAt(rows_.get(), 0, std::as_writable_bytes(std::span(magic)), path);
  if (!got.ok()) return got.status();
  if (kRowsMagic.starts_with(std::string_view(magic, static_cast<size_t>(*got)))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "{}: is no file of tiny-knn's, and would be overwritten; name another checkpoint", path));
}

void Checkpoint::RemoveEmptyRows() {
  struct stat opened;
  if (rows_are_ours_ && fstat(rows_.get(), &opened) == 0 && opened.st_size == 0)
    unlink(rows_path().c_str());
}

absl::Status Checkpoint::Begin() {
  absl::StatusOr<std::string> run_id = NewRunId();
  if (!run_id.ok()) return run_id.status();
  data_.run_id = *std::move(run_id);
  data_.identity = options_.identity;
  if (ftruncate(rows_.get(), 0) != 0) return ErrnoStatus(errno, rows_path(), "cannot write");
  const std::string header = RowsHeader(data_.run_id);
  absl::Status status = WriteRows(0, std::as_bytes(std::span(header)));
  if (status.ok()) status = AtomicFile::RemoveLeftover(options_.path, kTemporaryTag);
  if (status.ok()) status = WriteState(data_.state);
  // Nothing was there before, so nothing stays.
  if (!status.ok() && ftruncate(rows_.get(), 0) != 0) unlink(rows_path().c_str());
  return status;
}

absl::Status Checkpoint::GoOn(std::span<const uint8_t> bytes) {
  absl::StatusOr<CheckpointData> data = ParseCheckpoint(bytes);
  if (!data.ok()) return Named(options_.path, data.status());
  if (const std::optional<std::string> difference = Difference(data->identity, options_.identity)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is the checkpoint of another search: {}; remove it to begin anew, or name "
                    "another",
                    options_.path, *difference));
  }
  const absl::Status fits =
      CheckState(data->state, options_.num_queries, options_.num_docs, options_.params);
  if (!fits.ok()) return Named(options_.path, fits);
  data_ = *std::move(data);
  // Rows behind those that count may be of a time after the last saving.
  const std::string header = RowsHeader(data_.run_id);
  std::string found(header.size(), '\0');
  const absl::StatusOr<int64_t> got =
      ReadAt(rows_.get(), 0, std::as_writable_bytes(std::span(found)), rows_path());
  if (!got.ok()) return got.status();
  struct stat opened;
  if (fstat(rows_.get(), &opened) != 0) return ErrnoStatus(errno, rows_path(), "cannot stat");
  const int64_t bytes_of_rows = kRowsHeaderBytes + data_.state.finished_queries * row_bytes();
  if (data_.state.finished_queries > 0 && (found != header || opened.st_size < bytes_of_rows)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: does not hold the rows that {} speaks of; remove both to begin anew",
                    rows_path(), options_.path));
  }
  if (ftruncate(rows_.get(), bytes_of_rows) != 0) {
    return ErrnoStatus(errno, rows_path(), "cannot write");
  }
  const absl::Status written = WriteRows(0, std::as_bytes(std::span(header)));
  return written.ok() ? AtomicFile::RemoveLeftover(options_.path, kTemporaryTag) : written;
}

absl::Status Checkpoint::WriteRows(int64_t offset, std::span<const std::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = pwrite(rows_.get(), bytes.data() + done, bytes.size() - done,
                                   offset + static_cast<int64_t>(done));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, rows_path(), "cannot write");
    done += static_cast<size_t>(written);
  }
  rows_are_synced_ = false;
  return absl::OkStatus();
}

absl::Status Checkpoint::Replay(TopKSink& sink) {
  const int64_t k = options_.params.k;
  const DType dtype = WorkingDType(options_.params.compute_dtype);
  const auto item = static_cast<size_t>(ItemSize(dtype));
  const int64_t block = std::max<int64_t>(1, kBlockBytes / row_bytes());
  const auto indices_bytes = static_cast<size_t>(k) * sizeof(int64_t);
  const auto scores_bytes = static_cast<size_t>(k) * item;
  std::vector<std::byte> bytes;
  std::vector<int64_t> indices;
  std::vector<std::byte> scores;
  while (num_rows_ < data_.state.finished_queries) {
    const int64_t count = std::min(block, data_.state.finished_queries - num_rows_);
    bytes.resize(static_cast<size_t>(count * row_bytes()));
    const absl::StatusOr<int64_t> got =
        ReadAt(rows_.get(), kRowsHeaderBytes + num_rows_ * row_bytes(), bytes, rows_path());
    if (!got.ok()) return got.status();
    rows_crc32_ = static_cast<uint32_t>(crc32_z(
        rows_crc32_, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<size_t>(*got)));
    indices.resize(static_cast<size_t>(count * k));
    scores.resize(static_cast<size_t>(count) * scores_bytes);
    for (size_t row = 0; row < static_cast<size_t>(count); ++row) {
      const std::byte* const from = bytes.data() + row * (indices_bytes + scores_bytes);
      std::memcpy(indices.data() + row * static_cast<size_t>(k), from, indices_bytes);
      std::memcpy(scores.data() + row * scores_bytes, from + indices_bytes, scores_bytes);
    }
    const absl::Status taken =
        sink.Take(num_rows_, {count, k, dtype, scores.data(), indices.data()});
    if (!taken.ok()) return taken;
    num_rows_ += count;
  }
  if (rows_crc32_ == data_.rows_crc32) return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{}: is damaged: its rows are not those that were written; remove it and {} to "
                  "begin anew",
                  rows_path(), options_.path));
}

absl::Status Checkpoint::Append(const TopKView& rows) {
  const auto item = static_cast<size_t>(ItemSize(rows.score_dtype));
  const auto indices_bytes = static_cast<size_t>(rows.k) * sizeof(int64_t);
  const auto scores_bytes = static_cast<size_t>(rows.k) * item;
  const int64_t block = std::max<int64_t>(1, kBlockBytes / row_bytes());
  std::vector<std::byte> bytes;
  for (int64_t first = 0; first < rows.num_queries; first += block) {
    const int64_t count = std::min(block, rows.num_queries - first);
    bytes.resize(static_cast<size_t>(count * row_bytes()));
    for (size_t row = 0; row < static_cast<size_t>(count); ++row) {
      const size_t at = static_cast<size_t>(first) + row;
      std::byte* const to = bytes.data() + row * (indices_bytes + scores_bytes);
      std::memcpy(to, rows.indices + at * static_cast<size_t>(rows.k), indices_bytes);
      std::memcpy(to + indices_bytes,
                  static_cast<const std::byte*>(rows.scores) + at * scores_bytes, scores_bytes);
    }
    const absl::Status written = WriteRows(kRowsHeaderBytes + num_rows_ * row_bytes(), bytes);
    if (!written.ok()) return written;
    rows_crc32_ = static_cast<uint32_t>(
        crc32_z(rows_crc32_, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
    num_rows_ += count;
  }
  return absl::OkStatus();
}

bool Checkpoint::Due() {
  if (options_.interval.count() == 0) return true;
  const Clock::duration least =
      std::max<Clock::duration>(options_.interval, save_took_ * kLeastTimesSaving);
  return Clock::now() - last_save_ >= least;
}

absl::Status Checkpoint::Save(const SearchState& state) {
  const Clock::time_point start = Clock::now();
  if (state.finished_queries != num_rows_) {
    return absl::InternalError(fmt::format("{}: {} rows are finished, {} were appended",
                                           options_.path, state.finished_queries, num_rows_));
  }
  const absl::Status written = WriteState(state);
  last_save_ = Clock::now();
  save_took_ = last_save_ - start;
  return written;
}

absl::Status Checkpoint::WriteState(const SearchState& state) {
  // What is counted has to be there before it is counted.
  if (!rows_are_synced_ && fdatasync(rows_.get()) != 0) {
    return ErrnoStatus(errno, rows_path(), "cannot sync");
  }
  rows_are_synced_ = true;
  return WriteCheckpoint(options_.path, kTemporaryTag,
                         {.identity = options_.identity,
                          .run_id = data_.run_id,
                          .rows_crc32 = rows_crc32_,
                          .state = state});
}

absl::Status Checkpoint::Remove() {
  // Of a link, what it names; and the rows last, for as long as there is a checkpoint they are its.
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(options_.path, error);
  if (!error && unlink(file.c_str()) != 0) {
    return ErrnoStatus(errno, options_.path, "cannot remove");
  }
  if (unlink(rows_path().c_str()) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, rows_path(), "cannot remove");
  }
  return absl::OkStatus();
}

double Checkpoint::share_done() const {
  const auto docs = static_cast<double>(std::max<int64_t>(1, options_.num_docs));
  double pairs = static_cast<double>(data_.state.finished_queries) * docs;
  for (const SearchSpan& span : data_.state.spans) {
    pairs += static_cast<double>(span.num_queries) * static_cast<double>(span.docs_done);
  }
  return pairs / docs / static_cast<double>(std::max<int64_t>(1, options_.num_queries));
}

}  // namespace tiny_knn
