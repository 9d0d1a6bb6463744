// A library for LD_PRELOAD that makes reads of docs.npy fail like a disk does, with EIO, where they
// reach byte READ_FAULT_FROM. Reads with RWF_NOWAIT find nothing at hand, so that reading ahead
// starts at once.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace {

bool Fails(int fd, off_t offset) {
  const char* const from = std::getenv("READ_FAULT_FROM");
  if (from == nullptr || offset < std::atoll(from)) return false;
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t size = readlink(link, path, sizeof(path));
  return size > 0 && std::string_view(path, static_cast<size_t>(size)).ends_with("docs.npy");
}

template <typename Function>
Function* Next(const char* name, Function* /*type*/) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

ssize_t pread64(int fd, void* buf, size_t nbytes, off64_t offset) {
  static const auto next = Next("pread64", &pread64);
  if (Fails(fd, offset + static_cast<off_t>(nbytes))) {
    errno = EIO;
    return -1;
  }
  return next(fd, buf, nbytes, offset);
}

ssize_t pread(int fd, void* buf, size_t nbytes, off_t offset) {
  return pread64(fd, buf, nbytes, offset);
}

ssize_t preadv64v2(int /*fd*/, const iovec* /*pieces*/, int /*count*/, off64_t /*offset*/,
                   int /*flags*/) {
  errno = EAGAIN;
  return -1;
}

ssize_t preadv2(int /*fp*/, const iovec* /*iovec*/, int /*count*/, off_t /*offset*/,
                int /*flags*/) {
  errno = EAGAIN;
  return -1;
}

}  // extern "C"
