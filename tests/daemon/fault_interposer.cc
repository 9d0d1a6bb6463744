// A library for LD_PRELOAD that lets a test make system calls of tiny-knnd and its workers fail,
// fall short, wait, or be the last thing the process does, by the rules in the file that
// TINY_KNN_TEST_FAULTS names (fault_rules.h). Other programs that happen to load it are left alone.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "tests/daemon/fault_engine.h"

namespace tiny_knn {
namespace {

// The function of this name in the next library.
template <typename Function>
Function* Next(const char* name, Function* /*type*/) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}
#define NEXT(name)                                 \
  ([] {                                            \
    static const auto next = Next(#name, &(name)); \
    return next;                                   \
  }())

size_t AtMost(size_t size, size_t most_bytes) { return std::min(size, most_bytes); }

// The first bytes of a list of pieces, for a call that is to fall short.
struct FirstPieces {
  FirstPieces(const iovec* pieces, size_t count, size_t most_bytes) {
    for (; used < count && used < kMost && most_bytes > 0; ++used) {
      list[used] = pieces[used];
      list[used].iov_len = AtMost(list[used].iov_len, most_bytes);
      most_bytes -= list[used].iov_len;
    }
  }
  static constexpr size_t kMost = 64;
  iovec list[kMost];
  size_t used = 0;
};

ssize_t TotalBytes(const iovec* pieces, size_t count) {
  size_t total = 0;
  for (size_t i = 0; i < count; ++i) total += pieces[i].iov_len;
  return static_cast<ssize_t>(total);
}

ssize_t GuardBytes(FaultCall call, int descriptor, const void* data, size_t size, auto&& real) {
  const iovec piece = {.iov_base = const_cast<void*>(data), .iov_len = size};
  const Seen seen = {.call = call,
                     .descriptor = descriptor,
                     .pieces = &piece,
                     .num_pieces = 1,
                     .num_bytes = call == kReceive ? 0 : size};
  return Guard(seen, static_cast<ssize_t>(size),
               [&](size_t most_bytes) { return real(AtMost(size, most_bytes)); });
}

int GuardDescriptor(FaultCall call, int descriptor, auto&& real) {
  return Guard(Seen{.call = call, .descriptor = descriptor}, 0, [&](size_t) { return real(); });
}

int GuardPath(FaultCall call, int folder, const char* path, auto&& real) {
  return Guard(Seen{.call = call, .descriptor = folder, .path = path}, 0,
               [&](size_t) { return real(); });
}

int GuardRename(int from_folder, const char* from, int to_folder, const char* to, auto&& real) {
  const Seen seen = {.call = kRename,
                     .descriptor = from_folder,
                     .path = from,
                     .other_path = to,
                     .other_folder = to_folder};
  return Guard(seen, 0, [&](size_t) { return real(); });
}

bool HasMode(int flags) { return (flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE; }

}  // namespace
}  // namespace tiny_knn

using namespace tiny_knn;  // NOLINT(google-build-using-namespace): the C library's names stand
                           // below

// NOLINTBEGIN
extern "C" {

#define MODE_ARGUMENT(flags)                                 \
  mode_t mode = 0;                                           \
  if (HasMode(flags)) {                                      \
    va_list arguments;                                       \
    va_start(arguments, flags);                              \
    mode = static_cast<mode_t>(va_arg(arguments, unsigned)); \
    va_end(arguments);                                       \
  }

int open(const char* path, int flags, ...) {
  MODE_ARGUMENT(flags)
  return GuardPath(kOpen, AT_FDCWD, path, [&] { return NEXT(open)(path, flags, mode); });
}
int open64(const char* path, int flags, ...) {
  MODE_ARGUMENT(flags)
  return GuardPath(kOpen, AT_FDCWD, path, [&] { return NEXT(open64)(path, flags, mode); });
}
int openat(int folder, const char* path, int flags, ...) {
  MODE_ARGUMENT(flags)
  return GuardPath(kOpen, folder, path, [&] { return NEXT(openat)(folder, path, flags, mode); });
}
int openat64(int folder, const char* path, int flags, ...) {
  MODE_ARGUMENT(flags)
  return GuardPath(kOpen, folder, path, [&] { return NEXT(openat64)(folder, path, flags, mode); });
}

ssize_t write(int fd, const void* data, size_t size) {
  return GuardBytes(kWrite, fd, data, size, [&](size_t n) { return NEXT(write)(fd, data, n); });
}
ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return GuardBytes(kWrite, fd, data, size,
                    [&](size_t n) { return NEXT(pwrite)(fd, data, n, at); });
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) {
  return GuardBytes(kWrite, fd, data, size,
                    [&](size_t n) { return NEXT(pwrite64)(fd, data, n, at); });
}
ssize_t writev(int fd, const iovec* pieces, int count) {
  const Seen seen = {
      .call = kWrite, .descriptor = fd, .pieces = pieces, .num_pieces = static_cast<size_t>(count)};
  return Guard(seen, TotalBytes(pieces, seen.num_pieces), [&](size_t most_bytes) {
    const FirstPieces first(pieces, seen.num_pieces, most_bytes);
    return most_bytes == SIZE_MAX ? NEXT(writev)(fd, pieces, count)
                                  : NEXT(writev)(fd, first.list, static_cast<int>(first.used));
  });
}

ssize_t send(int fd, const void* data, size_t size, int flags) {
  return GuardBytes(kSend, fd, data, size,
                    [&](size_t n) { return NEXT(send)(fd, data, n, flags); });
}
ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const Seen seen = {.call = kSend,
                     .descriptor = fd,
                     .pieces = message->msg_iov,
                     .num_pieces = message->msg_iovlen};
  return Guard(seen, TotalBytes(message->msg_iov, message->msg_iovlen), [&](size_t most_bytes) {
    if (most_bytes == SIZE_MAX) return NEXT(sendmsg)(fd, message, flags);
    FirstPieces first(message->msg_iov, message->msg_iovlen, most_bytes);
    msghdr shorter = *message;
    shorter.msg_iov = first.list;
    shorter.msg_iovlen = first.used;
    return NEXT(sendmsg)(fd, &shorter, flags);
  });
}

ssize_t read(int fd, void* data, size_t size) {
  return GuardBytes(kReceive, fd, data, size, [&](size_t n) { return NEXT(read)(fd, data, n); });
}
ssize_t recv(int fd, void* data, size_t size, int flags) {
  return GuardBytes(kReceive, fd, data, size,
                    [&](size_t n) { return NEXT(recv)(fd, data, n, flags); });
}
ssize_t readv(int fd, const iovec* pieces, int count) {
  const Seen seen = {.call = kReceive,
                     .descriptor = fd,
                     .pieces = pieces,
                     .num_pieces = static_cast<size_t>(count),
                     .num_bytes = 0};
  return Guard(seen, ssize_t{0}, [&](size_t) { return NEXT(readv)(fd, pieces, count); });
}
ssize_t recvmsg(int fd, msghdr* message, int flags) {
  const Seen seen = {.call = kReceive,
                     .descriptor = fd,
                     .pieces = message->msg_iov,
                     .num_pieces = message->msg_iovlen,
                     .num_bytes = 0};
  return Guard(seen, ssize_t{0}, [&](size_t) { return NEXT(recvmsg)(fd, message, flags); });
}

int fsync(int fd) {
  return GuardDescriptor(kSync, fd, [&] { return NEXT(fsync)(fd); });
}
int fdatasync(int fd) {
  return GuardDescriptor(kSync, fd, [&] { return NEXT(fdatasync)(fd); });
}
int ftruncate(int fd, off_t size) noexcept {
  return GuardDescriptor(kTruncate, fd, [&] { return NEXT(ftruncate)(fd, size); });
}
int ftruncate64(int fd, off64_t size) noexcept {
  return GuardDescriptor(kTruncate, fd, [&] { return NEXT(ftruncate64)(fd, size); });
}
int fallocate(int fd, int mode, off_t at, off_t size) {
  return GuardDescriptor(kAllocate, fd, [&] { return NEXT(fallocate)(fd, mode, at, size); });
}
int fallocate64(int fd, int mode, off64_t at, off64_t size) {
  return GuardDescriptor(kAllocate, fd, [&] { return NEXT(fallocate64)(fd, mode, at, size); });
}
// These two return the error instead of setting errno.
int posix_fallocate(int fd, off_t at, off_t size) {
  const int result =
      GuardDescriptor(kAllocate, fd, [&] { return NEXT(posix_fallocate)(fd, at, size); });
  return result < 0 ? errno : result;
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
  const int result =
      GuardDescriptor(kAllocate, fd, [&] { return NEXT(posix_fallocate64)(fd, at, size); });
  return result < 0 ? errno : result;
}

int rename(const char* from, const char* to) noexcept {
  return GuardRename(AT_FDCWD, from, AT_FDCWD, to, [&] { return NEXT(rename)(from, to); });
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) noexcept {
  return GuardRename(from_folder, from, to_folder, to,
                     [&] { return NEXT(renameat)(from_folder, from, to_folder, to); });
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  return GuardRename(from_folder, from, to_folder, to,
                     [&] { return NEXT(renameat2)(from_folder, from, to_folder, to, flags); });
}
int unlink(const char* path) noexcept {
  return GuardPath(kUnlink, AT_FDCWD, path, [&] { return NEXT(unlink)(path); });
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  return GuardPath(kUnlink, folder, path, [&] { return NEXT(unlinkat)(folder, path, flags); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  return GuardPath(kMakeFolder, AT_FDCWD, path, [&] { return NEXT(mkdir)(path, mode); });
}

int accept(int fd, sockaddr* address, socklen_t* size) {
  return GuardDescriptor(kAccept, fd, [&] { return NEXT(accept)(fd, address, size); });
}
int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  return GuardDescriptor(kAccept, fd, [&] { return NEXT(accept4)(fd, address, size, flags); });
}
int socketpair(int domain, int type, int protocol, int fds[2]) noexcept {
  return GuardDescriptor(kSocketPair, -1,
                         [&] { return NEXT(socketpair)(domain, type, protocol, fds); });
}
pid_t fork() noexcept {
  return GuardDescriptor(kFork, -1, [&] { return NEXT(fork)(); });
}
int execve(const char* path, char* const arguments[], char* const environment[]) noexcept {
  return GuardPath(kExec, AT_FDCWD, path,
                   [&] { return NEXT(execve)(path, arguments, environment); });
}
int fexecve(int fd, char* const arguments[], char* const environment[]) noexcept {
  return GuardDescriptor(kExec, fd, [&] { return NEXT(fexecve)(fd, arguments, environment); });
}

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const int result = NEXT(clock_gettime)(clock, now);
  if (result != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
  const int64_t ns = now->tv_sec * 1000000000 + now->tv_nsec + ClockOffset();
  *now = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  return result;
}
int gettimeofday(timeval* now, void* /*zone*/) noexcept {
  timespec time;
  if (clock_gettime(CLOCK_REALTIME, &time) != 0) return -1;
  *now = {.tv_sec = time.tv_sec, .tv_usec = time.tv_nsec / 1000};
  return 0;
}
time_t time(time_t* now) noexcept {
  timespec precise;
  if (clock_gettime(CLOCK_REALTIME, &precise) != 0) return -1;
  if (now != nullptr) *now = precise.tv_sec;
  return precise.tv_sec;
}

}  // extern "C"
// NOLINTEND
