// The daemon's socket, and the lock that says whose it is.
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/unique_fd.h"

namespace tiny_knn {

// An flock on `path`, held until this ends. The kernel lets go of it when the process dies, however
// it dies, and keeps it while the process is stopped: so it, and no answer to a ping, says who is
// alive.
class FileLock {
 public:
  // Makes the file (0600) where it is not there. FailedPrecondition when another process holds it:
  // "`what` is in use by another tiny-knnd (pid 12)".
  static absl::StatusOr<FileLock> Take(const std::string& path, const std::string& what);

 private:
  explicit FileLock(UniqueFd file) : file_(std::move(file)) {}
  UniqueFd file_;
};

// Makes `folder` (with that mode, and missing parents as the umask says) unless it is there. It
// must then be a directory of this user that nobody else may write: FailedPrecondition says what to
// do.
absl::Status EnsurePrivateFolder(const std::string& folder, mode_t mode = 0700);

// A listening socket at a path. While it lives, no other tiny-knnd listens there.
class ListenSocket {
 public:
  // Takes `{path}.lock`, replaces what a dead daemon left at `path` (only a socket is replaced,
  // never a file), binds and listens. Mode 0600; with a group 0660 and that group's. The folder is
  // made if it is not there, as EnsurePrivateFolder does: 0700, for a group 0755.
  // FailedPrecondition: another daemon has it, a service manager listens there, something that is
  // no socket is in the way, or the group cannot enter the folder.
  static absl::StatusOr<std::unique_ptr<ListenSocket>> Open(
      const std::string& path, std::optional<gid_t> group = std::nullopt);
  // Takes over one that listens at `path` already, made by a service manager: takes the lock, and
  // leaves the socket's file as it is, also at the end.
  static absl::StatusOr<std::unique_ptr<ListenSocket>> Adopt(UniqueFd socket,
                                                             const std::string& path);
  // Removes the socket if it is still the one that Open made.
  ~ListenSocket();
  ListenSocket(const ListenSocket&) = delete;
  ListenSocket& operator=(const ListenSocket&) = delete;

  int descriptor() const { return socket_.get(); }
  // Gives the descriptor to an event loop, which closes it.
  int ReleaseDescriptor() { return socket_.Release(); }
  const std::string& path() const { return path_; }

 private:
  ListenSocket(std::string path, FileLock lock, UniqueFd socket);
  std::string path_;
  FileLock lock_;
  UniqueFd socket_;
  // Of the file that Open made; 0 for an adopted socket, which is no file's number.
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace tiny_knn
