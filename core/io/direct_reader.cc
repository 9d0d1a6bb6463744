#include "core/io/direct_reader.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/io/file_util.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// What devices want offsets, lengths and addresses to be multiples of: 512 bytes or 4 KiB.
constexpr int64_t kPage = 4096;
// Read by one call: so long that what lies between two calls does not count.
constexpr int64_t kPieceBytes = int64_t{4} << 20;
// Two, so that the disk has the next piece to read when it is done with one.
constexpr int kThreads = 2;
constexpr int64_t kHugePage = int64_t{2} << 20;

int64_t RoundDown(int64_t bytes, int64_t unit) { return bytes / unit * unit; }
int64_t RoundUp(int64_t bytes, int64_t unit) { return RoundDown(bytes + unit - 1, unit); }

}  // namespace

std::unique_ptr<DirectReader> DirectReader::Open(int fd, int64_t size, std::string name) {
  // The same file, whatever has its name by now.
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  UniqueFd direct(open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT));
  if (direct.get() < 0) return nullptr;
  // Some file systems refuse no earlier than this.
  alignas(kPage) std::byte page[kPage];
  if (pread(direct.get(), page, sizeof(page), 0) < 0) return nullptr;
  return std::unique_ptr<DirectReader>(new DirectReader(std::move(direct), size, std::move(name)));
}

DirectReader::DirectReader(UniqueFd fd, int64_t size, std::string name)
    : fd_(std::move(fd)), size_(size), name_(std::move(name)) {}

DirectReader::~DirectReader() {
  Stop();
  if (memory_ != nullptr) munmap(memory_, static_cast<size_t>(reserved_));
}

absl::Status DirectReader::Start(int64_t begin, int64_t end) {
  Stop();
  first_ = RoundDown(begin, kPage);
  last_ = RoundUp(end, kPage);
  absl::Status status = Reserve(last_ - first_);
  if (!status.ok()) return status;
  next_piece_ = 0;
  done_.assign(static_cast<size_t>((last_ - first_ + kPieceBytes - 1) / kPieceBytes), false);
  stopping_ = false;
  failed_ = absl::OkStatus();
  for (int i = 0; i < kThreads; ++i) {
    try {
      threads_.emplace_back([this] { Loop(); });
    } catch (const std::system_error&) {
      if (i > 0) break;  // one reads as well
      return absl::ResourceExhaustedError(
          fmt::format("{}: the system gives no thread to read it", name_));
    }
  }
  return absl::OkStatus();
}

absl::Status DirectReader::Reserve(int64_t bytes) {
  if (bytes <= reserved_) return absl::OkStatus();
  if (memory_ != nullptr) munmap(memory_, static_cast<size_t>(reserved_));
  memory_ = nullptr;
  reserved_ = 0;
  const int64_t wanted = RoundUp(bytes, kHugePage);
  void* const memory = mmap(nullptr, static_cast<size_t>(wanted), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        fmt::format("{}: no memory for {} bytes of it", name_, wanted));
  }
  memory_ = static_cast<std::byte*>(memory);
  reserved_ = wanted;
  // Advice: small pages work as well.
  static_cast<void>(madvise(memory_, static_cast<size_t>(reserved_), MADV_HUGEPAGE));
  return absl::OkStatus();
}

absl::Status DirectReader::Wait(int64_t begin, int64_t end) {
  if (begin == end) return absl::OkStatus();
  int64_t piece = (begin - first_) / kPieceBytes;
  const int64_t last = (end - 1 - first_) / kPieceBytes;
  std::unique_lock lock(mutex_);
  while (piece <= last) {
    if (done_[static_cast<size_t>(piece)]) {
      ++piece;
    } else if (!failed_.ok()) {
      return failed_;
    } else if (stopping_) {
      return absl::InternalError(fmt::format("{}: waited for while nobody reads it", name_));
    } else {
      arrived_.wait(lock);
    }
  }
  return absl::OkStatus();
}

void DirectReader::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  arrived_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void DirectReader::Loop() {
  std::unique_lock lock(mutex_);
  while (!stopping_ && failed_.ok() && next_piece_ < static_cast<int64_t>(done_.size())) {
    const int64_t piece = next_piece_++;
    lock.unlock();
    absl::Status status = ReadPiece(piece);
    lock.lock();
    if (status.ok()) {
      done_[static_cast<size_t>(piece)] = true;
    } else if (failed_.ok()) {
      failed_ = std::move(status);
    }
    arrived_.notify_all();
  }
}

absl::Status DirectReader::ReadPiece(int64_t piece) {
  const int64_t begin = first_ + piece * kPieceBytes;
  const int64_t end = std::min(begin + kPieceBytes, last_);
  // The last page of a file is not whole.
  const int64_t wanted = std::min(end, size_);
  int64_t at = begin;
  while (at < wanted) {
    const ssize_t got = pread(fd_.get(), At(at), static_cast<size_t>(end - at), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, name_, "cannot read");
    // What is not whole pages is the end.
    at += got;
    if (got == 0 || (at < wanted && at % kPage != 0)) {
      return TruncatedWhileRead(name_, at, size_);
    }
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
