#include "daemon/supervisor/listen_socket.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <thread>
#include <utility>

#include "core/io/errno_status.h"
#include "daemon/protocol/daemon_paths.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// The pid that the holder wrote into its lock file, for the message only.
std::string HolderOf(int file) {
  char text[32] = {};
  const ssize_t size = pread(file, text, sizeof(text) - 1, 0);
  const int64_t pid = size > 0 ? std::strtol(text, nullptr, 10) : 0;
  return pid > 0 ? fmt::format(" (pid {})", pid) : "";
}

constexpr int kBacklog = 128;
constexpr int kLockTries = 20;
constexpr std::chrono::milliseconds kLockPause(10);

// Whether a socket that is bound to `path` listens. Asked of the kernel, because a connection would
// make a service manager start its service. False where the kernel does not tell.
bool SomebodyListens(const std::string& path) {
  constexpr unsigned kListens = 1u << 16;  // __SO_ACCEPTCON
  std::ifstream table("/proc/net/unix");
  std::string line;
  while (std::getline(table, line)) {
    // "0000000012345678: 00000002 00000000 00010000 0001 01 20133 /run/user/1000/bus"
    if (!line.ends_with(" " + path)) continue;
    std::istringstream fields(line);
    std::string slot, references, protocol;
    unsigned flags = 0;
    fields >> slot >> references >> protocol >> std::hex >> flags;
    if (fields && (flags & kListens) != 0) return true;
  }
  return false;
}

// Whether the group's members can reach what is in the folder; parents are not looked at.
absl::Status CheckGroupMayEnter(const std::string& folder, gid_t group) {
  struct stat found;
  if (stat(folder.c_str(), &found) != 0)
    return ErrnoStatus(errno, folder, "cannot look at the folder");
  const mode_t needed = found.st_gid == group ? S_IXGRP : S_IXOTH;
  if ((found.st_mode & needed) != 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("{}: group {} cannot reach a socket in it (mode {:04o}); run: chmod 755 {}",
                  folder, group, found.st_mode & 07777, folder));
}

// What is at `path` is removed if it is a socket that nobody listens on.
// REQUIRES: the lock is held.
absl::Status RemoveDeadSocket(const std::string& path) {
  struct stat found;
  if (lstat(path.c_str(), &found) != 0) return absl::OkStatus();
  if (!S_ISSOCK(found.st_mode)) {
    return absl::FailedPreconditionError(
        fmt::format("{}: is no socket; move it away, or choose another --socket", path));
  }
  // No tiny-knnd listens there without the lock, but a service manager does, before it starts one.
  // A daemon that has just died may listen for a moment longer than it holds the lock.
  for (int i = 0; SomebodyListens(path); ++i) {
    if (i == kLockTries) {
      return absl::FailedPreconditionError(fmt::format(
          "{}: another process listens there, such as systemd for tiny-knn.socket; stop "
          "that ('systemctl stop tiny-knn.socket'), or choose another --socket",
          path));
    }
    std::this_thread::sleep_for(kLockPause);
  }
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, path, "cannot replace the old socket");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FileLock> FileLock::Take(const std::string& path, const std::string& what) {
  UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return ErrnoStatus(errno, path, "cannot make the lock file");
  int result = flock(file.get(), LOCK_EX | LOCK_NB);
  // A daemon that has just said goodbye to its clients still holds it for a moment.
  for (int i = 0; i < kLockTries && result != 0 && (errno == EWOULDBLOCK || errno == EINTR); ++i) {
    std::this_thread::sleep_for(kLockPause);
    result = flock(file.get(), LOCK_EX | LOCK_NB);
  }
  if (result != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path, "cannot lock");
    return absl::FailedPreconditionError(
        fmt::format("{} is in use by another tiny-knnd{}; 'tiny-knn shutdown' ends it, --socket "
                    "and --state-dir "
                    "run a second one",
                    what, HolderOf(file.get())));
  }
  // Not removed at the end: whoever waits for the lock of a removed file would get one of its own.
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(file.get(), 0) != 0 || pwrite(file.get(), pid.data(), pid.size(), 0) < 0) {
    // The pid is only for a message; a full disk must not keep the daemon from starting.
  }
  return FileLock(std::move(file));
}

absl::Status EnsurePrivateFolder(const std::string& folder, mode_t mode) {
  const std::filesystem::path path(folder);
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  if (error)
    return ErrnoStatus(error.value(), path.parent_path().string(), "cannot make the folder");
  if (mkdir(folder.c_str(), mode) != 0) {
    if (errno != EEXIST) return ErrnoStatus(errno, folder, "cannot make the folder");
  } else if (chmod(folder.c_str(), mode) != 0) {  // the umask is narrower
    return ErrnoStatus(errno, folder, "cannot set the folder's mode");
  }
  struct stat found;
  if (stat(folder.c_str(), &found) != 0)
    return ErrnoStatus(errno, folder, "cannot look at the folder");
  if (!S_ISDIR(found.st_mode)) {
    return absl::FailedPreconditionError(fmt::format("{}: is no directory; move it away", folder));
  }
  if (found.st_uid != geteuid()) {
    return absl::FailedPreconditionError(
        fmt::format("{}: belongs to user {}, not to user {}; choose another folder", folder,
                    found.st_uid, geteuid()));
  }
  if ((found.st_mode & 022) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("{}: others may write to it (mode {:04o}); run: chmod {:o} {}", folder,
                    found.st_mode & 07777, mode, folder));
  }
  return absl::OkStatus();
}

ListenSocket::ListenSocket(std::string path, FileLock lock, UniqueFd socket)
    : path_(std::move(path)), lock_(std::move(lock)), socket_(std::move(socket)) {}

ListenSocket::~ListenSocket() {
  struct stat now;
  if (inode_ != 0 && lstat(path_.c_str(), &now) == 0 && now.st_dev == device_ &&
      now.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

absl::StatusOr<std::unique_ptr<ListenSocket>> ListenSocket::Adopt(UniqueFd socket,
                                                                  const std::string& path) {
  absl::StatusOr<FileLock> lock = FileLock::Take(path + ".lock", path);
  if (!lock.ok()) return lock.status();
  return std::unique_ptr<ListenSocket>(new ListenSocket(path, *std::move(lock), std::move(socket)));
}

absl::StatusOr<std::unique_ptr<ListenSocket>> ListenSocket::Open(const std::string& path,
                                                                 std::optional<gid_t> group) {
  absl::Status status = CheckSocketPath(path);
  if (!status.ok()) return status;
  const std::string folder = std::filesystem::path(path).parent_path().string();
  status = EnsurePrivateFolder(folder, group ? 0755 : 0700);
  if (status.ok() && group) status = CheckGroupMayEnter(folder, *group);
  if (!status.ok()) return status;
  absl::StatusOr<FileLock> lock = FileLock::Take(path + ".lock", path);
  if (!lock.ok()) return lock.status();
  status = RemoveDeadSocket(path);
  if (!status.ok()) return status;

  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return ErrnoStatus(errno, path, "cannot make a socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());  // CheckSocketPath has counted
  // Nobody can connect before listen, so group and mode are in place in time.
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return ErrnoStatus(errno, path, "cannot bind the socket");
  }
  if (group && lchown(path.c_str(), static_cast<uid_t>(-1), *group) != 0) {
    return ErrnoStatus(errno, path, fmt::format("cannot give the socket to group {}", *group));
  }
  if (chmod(path.c_str(), group ? 0660 : 0600) != 0)
    return ErrnoStatus(errno, path, "cannot set the socket's mode");
  if (listen(socket.get(), kBacklog) != 0) return ErrnoStatus(errno, path, "cannot listen");
  std::unique_ptr<ListenSocket> made(new ListenSocket(path, *std::move(lock), std::move(socket)));
  struct stat file;
  if (lstat(path.c_str(), &file) == 0) {
    made->device_ = file.st_dev;
    made->inode_ = file.st_ino;
  }
  return made;
}

}  // namespace tiny_knn
