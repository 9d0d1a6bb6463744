#include "core/io/mapped_file.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>

#include "absl/status/status.h"
#include "core/io/file_util.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// One mapping as the signal handler sees it. `begin` is 0 while the slot is free or changing: a
// writer sets `end` before `begin`, and a handler that reads a `begin` reads the `end` that belongs
// to it. A mapping that somebody reads does not go away, so the slot of the fault is always stable.
struct Slot {
  std::atomic<bool> taken{false};
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> damaged{false};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free,
              "a signal handler must not wait for a lock");

// Never destroyed: a thread may fault while the process exits.
constinit std::array<Slot, kMaxMappedFiles> g_slots;
// Written once before the handler is installed, read by the handler only.
struct sigaction g_previous;
constinit std::atomic<uintptr_t> g_page_size{4096};

// Replaces the faulting page, and all of the mapping behind it, by zero pages: the data is lost
// anyway, and one fault instead of one per page is what a reader of a large chunk then pays.
bool RepairFault(uintptr_t address) {
  for (Slot& slot : g_slots) {
    const uintptr_t begin = slot.begin.load();
    if (begin == 0 || address < begin) continue;
    const uintptr_t end = slot.end.load();
    if (address >= end || slot.begin.load() != begin) continue;
    slot.damaged.store(true);
    const uintptr_t page = address & ~(g_page_size.load() - 1);
    return mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
  }
  return false;
}

// Async-signal-safe: atomics and system calls only.
void OnSigbus(int signal_number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  // si_code <= 0: sent by a process, not a fault.
  if (info->si_code > 0 && RepairFault(reinterpret_cast<uintptr_t>(info->si_addr))) {
    errno = saved_errno;
    return;
  }
  errno = saved_errno;
  if ((g_previous.sa_flags & SA_SIGINFO) != 0) {
    g_previous.sa_sigaction(signal_number, info, context);
    return;
  }
  if (g_previous.sa_handler == SIG_IGN && info->si_code <= 0) return;
  if (g_previous.sa_handler != SIG_DFL && g_previous.sa_handler != SIG_IGN) {
    g_previous.sa_handler(signal_number);
    return;
  }
  // The default action, with the right signal and core dump: a fault happens again when the handler
  // returns, a signal that was sent must be sent again.
  struct sigaction default_action = {};
  default_action.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &default_action, nullptr);
  if (info->si_code <= 0) raise(SIGBUS);
}

absl::Status InstallHandler() {
  static std::once_flag once;
  static int error_number = 0;
  std::call_once(once, [] {
    g_page_size.store(static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)));
    struct sigaction action = {};
    action.sa_sigaction = OnSigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, nullptr, &g_previous) != 0 || sigaction(SIGBUS, &action, nullptr) != 0) {
      error_number = errno;
    }
  });
  if (error_number == 0) return absl::OkStatus();
  return ErrnoStatus(error_number, "SIGBUS", "cannot install a signal handler");
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Map(int fd, int64_t bytes,
                                                            std::string_view path) {
  if (bytes < 1) return absl::InternalError(fmt::format("{}: nothing to map", path));
  absl::Status status = InstallHandler();
  if (!status.ok()) return status;
  int index = 0;
  while (index < kMaxMappedFiles && g_slots[index].taken.exchange(true)) ++index;
  if (index == kMaxMappedFiles) {
    return absl::ResourceExhaustedError(
        fmt::format("{}: cannot map: {} files are mapped already", path, kMaxMappedFiles));
  }
  Slot& slot = g_slots[index];
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) {
    const int error_number = errno;
    slot.taken.store(false);
    return ErrnoStatus(error_number, path, "cannot map");
  }
  // Whole pages: the last one may fault too.
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const uintptr_t page = g_page_size.load();
  slot.damaged.store(false);
  slot.end.store((begin + static_cast<uintptr_t>(bytes) + page - 1) & ~(page - 1));
  slot.begin.store(begin);
  return std::unique_ptr<MappedFile>(
      new MappedFile(static_cast<const std::byte*>(data), bytes, index));
}

MappedFile::~MappedFile() {
  Slot& slot = g_slots[slot_];
  slot.begin.store(0);
  munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  slot.taken.store(false);
}

bool MappedFile::damaged() const { return g_slots[slot_].damaged.load(); }

void MappedFile::WillNeed(int64_t begin, int64_t end) const {
  const auto page = static_cast<int64_t>(g_page_size.load());
  const int64_t from = begin / page * page;
  if (from >= end) return;
  auto* address = const_cast<std::byte*>(data_ + from);
  madvise(address, static_cast<size_t>(end - from), MADV_WILLNEED);
}

void MappedFile::DontNeed(int64_t begin, int64_t end) const {
  const auto page = static_cast<int64_t>(g_page_size.load());
  const int64_t from = begin / page * page;
  if (from >= end) return;
  madvise(const_cast<std::byte*>(data_ + from), static_cast<size_t>(end - from), MADV_DONTNEED);
}

}  // namespace tiny_knn
