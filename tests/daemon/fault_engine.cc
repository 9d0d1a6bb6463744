#include "tests/daemon/fault_engine.h"

#include <fnmatch.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace tiny_knn {
namespace {

// Set once, by Load, before main.
FaultFile* faults = nullptr;
FaultProcess loaded_as = kSupervisor;
pid_t loaded_pid = 0;

// The full path of an open file, or of `path` from the folder `descriptor` (AT_FDCWD: the current).
void PathOf(int descriptor, const char* path, char (&full)[2 * PATH_MAX]) {
  size_t length = 0;
  if (path == nullptr || path[0] != '/') {
    char link[64] = "/proc/self/cwd";
    if (descriptor >= 0) snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
    const ssize_t got = readlink(link, full, PATH_MAX - 1);
    length = got < 0 ? 0 : static_cast<size_t>(got);
    if (path != nullptr) full[length++] = '/';
  }
  const size_t rest = path == nullptr ? 0 : strnlen(path, PATH_MAX - 1);
  if (rest > 0) memcpy(full + length, path, rest);
  full[length + rest] = '\0';
}

bool PathMatches(const FaultRule& rule, const Seen& seen) {
  if (rule.path[0] == '\0') return true;
  char full[2 * PATH_MAX];
  PathOf(seen.descriptor, seen.path, full);
  if (fnmatch(rule.path, full, 0) == 0) return true;
  if (seen.other_path == nullptr) return false;
  PathOf(seen.other_folder, seen.other_path, full);
  return fnmatch(rule.path, full, 0) == 0;
}

bool TextMatches(const FaultRule& rule, const Seen& seen) {
  const std::string_view text(rule.text, strnlen(rule.text, sizeof(rule.text)));
  if (text.empty()) return true;
  size_t left = seen.num_bytes;
  for (size_t i = 0; i < seen.num_pieces; ++i) {
    const size_t length = std::min(left, seen.pieces[i].iov_len);
    const std::string_view bytes(static_cast<const char*>(seen.pieces[i].iov_base), length);
    if (bytes.find(text) != std::string_view::npos) return true;
    left -= length;
  }
  return false;
}

void SleepMilliseconds(int64_t count) {
  const timespec time = {.tv_sec = count / 1000, .tv_nsec = count % 1000 * 1000000};
  nanosleep(&time, nullptr);
}

void Act(FaultRule& rule, Verdict& verdict) {
  std::atomic_ref(rule.pid).store(getpid());
  std::atomic_ref(rule.fired).fetch_add(1);
  switch (rule.action) {
    case kFail:
      verdict = {.skip = true, .error = rule.error};
      break;
    case kSkip:
      verdict = {.skip = true};
      break;
    case kShort:
      verdict.most_bytes = std::min(verdict.most_bytes, static_cast<size_t>(rule.amount));
      break;
    case kHold:
      // A test that died would leave this process waiting: give up after two minutes.
      for (int i = 0; i < 120000 && std::atomic_ref(rule.active).load() != 0; ++i) {
        SleepMilliseconds(1);
      }
      break;
    case kKill:
      kill(getpid(), SIGKILL);
      break;
    case kStop:
      kill(getpid(), SIGSTOP);
      break;
    case kAbort:
      signal(SIGABRT, SIG_DFL);
      kill(getpid(), SIGABRT);
      break;
    case kDelay:
      SleepMilliseconds(rule.amount);
      break;
    default:
      break;
  }
}

__attribute__((constructor)) void Load() {
  const char* file_name = getenv("TINY_KNN_TEST_FAULTS");
  char program[PATH_MAX] = {};
  if (file_name == nullptr || readlink("/proc/self/exe", program, PATH_MAX - 1) <= 0) return;
  const char* base = strrchr(program, '/');
  const std::string_view name(base == nullptr ? program : base + 1);
  if (name == "tiny-knn") {
    loaded_as = kWorker;
  } else if (name != "tiny-knnd") {
    return;
  }
  const int file = static_cast<int>(syscall(SYS_openat, AT_FDCWD, file_name, O_RDWR | O_CLOEXEC));
  if (file < 0) return;
  void* mapped = mmap(nullptr, sizeof(FaultFile), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  syscall(SYS_close, file);
  if (mapped == MAP_FAILED) return;
  FaultFile* loaded = static_cast<FaultFile*>(mapped);
  if (memcmp(loaded->magic, kFaultMagic, sizeof(kFaultMagic)) != 0) return;
  loaded_pid = getpid();
  if (loaded_as == kWorker) {
    loaded->worker_pid = loaded_pid;
    std::atomic_ref(loaded->workers_started).fetch_add(1);
  } else {
    loaded->supervisor_pid = loaded_pid;
  }
  faults = loaded;
  ApplyRules({.call = kStart}, false);
}

}  // namespace

Verdict ApplyRules(const Seen& seen, bool after) {
  Verdict verdict;
  if (faults == nullptr) return verdict;
  const int old_errno = errno;
  const FaultProcess process = getpid() == loaded_pid ? loaded_as : kForked;
  for (FaultRule& rule : faults->rules) {
    if (std::atomic_ref(rule.active).load() == 0) continue;
    if ((rule.processes & process) == 0 || (rule.calls & seen.call) == 0) continue;
    if ((rule.after != 0) != after) continue;
    if (!PathMatches(rule, seen) || !TextMatches(rule, seen)) continue;
    const int64_t number = std::atomic_ref(rule.seen).fetch_add(1) + 1;
    if (number >= rule.first && number <= rule.last) Act(rule, verdict);
  }
  errno = old_errno;
  return verdict;
}

int64_t ClockOffset() {
  return faults == nullptr ? 0 : std::atomic_ref(faults->clock_offset_ns).load();
}

}  // namespace tiny_knn
