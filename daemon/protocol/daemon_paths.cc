#include "daemon/protocol/daemon_paths.h"

#include <sys/un.h>

#include <algorithm>
#include <cstddef>
#include <optional>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr const char* kSystemSocket = "/run/tiny-knn/daemon.sock";
constexpr const char* kSystemState = "/var/lib/tiny-knn";

// One byte is the NUL at the end.
constexpr size_t kMostSocketPathBytes = sizeof(sockaddr_un::sun_path) - 1;

std::string ValueOf(const Environment& environment, const char* name) {
  const char* const value = environment(name);
  return value == nullptr ? std::string() : std::string(value);
}

// A folder that the environment names, if it is absolute.
std::optional<std::string> FolderOf(const Environment& environment, const char* name) {
  std::string folder = ValueOf(environment, name);
  if (!folder.starts_with('/')) return std::nullopt;
  while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
  return folder == "/" ? std::string() : folder;  // so that "/..." can be appended
}

}  // namespace

absl::Status CheckSocketPath(const std::string& path) {
  if (path.empty()) return absl::InvalidArgumentError("the path of the socket is empty");
  if (path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("the path of the socket holds a NUL");
  }
  if (!path.starts_with('/')) {
    return absl::InvalidArgumentError(
        fmt::format("socket {}: the path has to be absolute, starting with /", path));
  }
  if (path.size() > kMostSocketPathBytes) {
    return absl::InvalidArgumentError(
        fmt::format("socket {}: the path has {} bytes, a socket's may have {}; choose a shorter "
                    "one with --socket or $TINY_KNN_SOCKET",
                    path, path.size(), kMostSocketPathBytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DefaultStateFolder(bool is_root, const Environment& environment) {
  if (is_root) return kSystemState;
  if (const auto folder = FolderOf(environment, "XDG_STATE_HOME")) return *folder + "/tiny-knn";
  if (const auto folder = FolderOf(environment, "HOME")) {
    return *folder + "/.local/state/tiny-knn";
  }
  return absl::FailedPreconditionError(
      "no folder for the daemon's state: neither $XDG_STATE_HOME nor $HOME is an absolute path; "
      "choose one with --state-dir");
}

absl::StatusOr<std::string> DefaultSocketPath(bool is_root, const Environment& environment) {
  std::string path = ValueOf(environment, "TINY_KNN_SOCKET");
  if (path.empty()) {
    if (is_root) return kSystemSocket;
    if (const auto folder = FolderOf(environment, "XDG_RUNTIME_DIR")) {
      path = *folder + "/tiny-knn/daemon.sock";
    } else {
      const absl::StatusOr<std::string> state = DefaultStateFolder(is_root, environment);
      if (!state.ok()) {
        return absl::FailedPreconditionError(
            "no folder for the daemon's socket: none of $XDG_RUNTIME_DIR, $XDG_STATE_HOME and "
            "$HOME is an absolute path; choose one with --socket or $TINY_KNN_SOCKET");
      }
      path = *state + "/daemon.sock";
    }
  }
  if (absl::Status status = CheckSocketPath(path); !status.ok()) return status;
  return path;
}

std::vector<std::string> SocketsToTry(bool is_root, const Environment& environment) {
  // Who names a socket means that one and no other.
  if (std::string named = ValueOf(environment, "TINY_KNN_SOCKET"); !named.empty()) {
    return {std::move(named)};
  }
  std::vector<std::string> sockets;
  const absl::StatusOr<std::string> own = DefaultSocketPath(is_root, environment);
  if (own.ok()) sockets.push_back(*own);
  if (std::find(sockets.begin(), sockets.end(), kSystemSocket) == sockets.end()) {
    sockets.emplace_back(kSystemSocket);
  }
  return sockets;
}

}  // namespace tiny_knn
