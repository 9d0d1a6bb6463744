#include "daemon/supervisor/service_manager.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int kFirstInherited = 3;  // SD_LISTEN_FDS_START
constexpr timeval kPatience{2, 0};

// The variable's value, which nobody finds any more.
std::optional<std::string> TakeVariable(const char* name) {
  const char* const value = std::getenv(name);
  if (value == nullptr) return std::nullopt;
  std::string taken = value;
  unsetenv(name);
  return taken;
}

std::optional<int64_t> ParseNumber(const std::string& text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end || number < 0) return std::nullopt;
  return number;
}

int SocketOption(int fd, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

absl::Status Unusable(std::string_view found) {
  return absl::FailedPreconditionError(fmt::format(
      "the service manager passes {} as descriptor {}, expected a Unix stream socket that listens "
      "at a path; see ListenStream= and Accept=no in the socket's unit",
      found, kFirstInherited));
}

absl::StatusOr<InheritedSocket> Inspect(int fd) {
  const int domain = SocketOption(fd, SO_DOMAIN);
  if (domain < 0) {
    const bool is_open = fcntl(fd, F_GETFD) >= 0;
    return Unusable(is_open ? "something that is no socket" : "nothing");
  }
  InheritedSocket inherited{UniqueFd(fd), ""};
  if (domain != AF_UNIX) return Unusable("a socket of another domain");
  if (SocketOption(fd, SO_TYPE) != SOCK_STREAM) return Unusable("a socket of another type");
  if (SocketOption(fd, SO_ACCEPTCONN) != 1) return Unusable("a socket that does not listen");
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return Unusable("a socket without a name");
  }
  const size_t header = offsetof(sockaddr_un, sun_path);
  if (size <= header || address.sun_path[0] != '/') {
    // Anybody could take an abstract name before us, and no folder's mode would protect it.
    return Unusable("a socket without an absolute path");
  }
  inherited.path.assign(address.sun_path, strnlen(address.sun_path, size - header));
  const int flags = fcntl(fd, F_GETFL);
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || flags < 0 ||
      fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return Unusable(fmt::format("a socket that cannot be set up ({})", std::strerror(errno)));
  }
  return inherited;
}

}  // namespace

absl::StatusOr<ServiceManager> ServiceManager::At(std::string_view address) {
  const bool is_path = address.starts_with('/');
  const size_t most = sizeof(sockaddr_un::sun_path) - (is_path ? 1 : 0);  // a path ends with a NUL
  if ((!is_path && !address.starts_with('@')) || address.size() < 2 || address.size() > most) {
    return absl::InvalidArgumentError(
        fmt::format("NOTIFY_SOCKET={}: expected a path or a name that begins with @, of 2 to {} "
                    "bytes; the service manager would never hear that the daemon is ready",
                    address, most));
  }
  ServiceManager manager;
  manager.address_ = address;
  if (!is_path) manager.address_[0] = '\0';
  manager.socket_ = UniqueFd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!manager.exists()) {
    return absl::UnavailableError(
        fmt::format("cannot make a socket for $NOTIFY_SOCKET: {}", std::strerror(errno)));
  }
  // Failing leaves us more patient than we want to be, no more.
  setsockopt(manager.socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  return manager;
}

absl::StatusOr<ServiceManager> ServiceManager::FromEnvironment() {
  const std::optional<std::string> address = TakeVariable("NOTIFY_SOCKET");
  if (!address || address->empty()) return ServiceManager();
  return At(*address);
}

absl::Status ServiceManager::Ready(std::string_view status) {
  return Send(fmt::format("READY=1\nSTATUS={}", status), 0);
}

absl::Status ServiceManager::Status(std::string_view status) {
  return Send(fmt::format("STATUS={}", status), MSG_DONTWAIT);
}

absl::Status ServiceManager::Stopping(std::string_view status) {
  return Send(fmt::format("STOPPING=1\nSTATUS={}", status), 0);
}

absl::Status ServiceManager::Send(const std::string& message, int flags) const {
  if (!exists()) return absl::OkStatus();
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  std::memcpy(to.sun_path, address_.data(), address_.size());  // At has counted
  const bool is_abstract = address_[0] == '\0';
  const size_t size = offsetof(sockaddr_un, sun_path) + address_.size() + (is_abstract ? 0 : 1);
  ssize_t sent;
  do {
    sent = sendto(socket_.get(), message.data(), message.size(), flags | MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&to), static_cast<socklen_t>(size));
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("the service manager does not take messages: {}", std::strerror(errno)));
}

absl::StatusOr<InheritedSocket> TakeInheritedSocket() {
  const std::optional<std::string> pid = TakeVariable("LISTEN_PID");
  const std::optional<std::string> count = TakeVariable("LISTEN_FDS");
  const std::optional<std::string> names = TakeVariable("LISTEN_FDNAMES");
  if (!pid || !count) return InheritedSocket();
  const std::optional<int64_t> meant_for = ParseNumber(*pid);
  if (!meant_for) {
    return absl::FailedPreconditionError(
        fmt::format("LISTEN_PID={}: expected a process id; unset it", *pid));
  }
  if (*meant_for != getpid()) return InheritedSocket();
  if (ParseNumber(*count) != 1) {
    return absl::FailedPreconditionError(
        fmt::format("the service manager passes {} sockets{}, expected 1; give the socket's unit "
                    "one ListenStream=, and the service one socket",
                    *count, names && !names->empty() ? fmt::format(" ({})", *names) : ""));
  }
  return Inspect(kFirstInherited);
}

}  // namespace tiny_knn
