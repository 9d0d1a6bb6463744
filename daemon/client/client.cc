#include "daemon/client/client.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>
#include <string_view>
#include <system_error>

#include "core/io/unique_fd.h"
#include "daemon/protocol/daemon_paths.h"
#include "daemon/protocol/line_decoder.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kBetweenQuestions(100);  // whether the caller was interrupted
constexpr const char* kHowToStart = "start one with `tiny-knn daemon --background`";

// Events kept beyond this are coalesced: the newest of each job stays.
constexpr size_t kMostKeptEvents = 4096;

std::string ErrorText(int error) { return std::generic_category().message(error); }

std::string WithoutDot(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  return std::string(text);
}

// Why connecting failed, for who typed the command. NotFound: nobody listens there.
absl::Status ExplainConnect(const std::string& path, int error) {
  struct stat status = {};
  if (error == EACCES || error == EPERM) {
    return absl::PermissionDeniedError(
        fmt::format("socket {}: {}; only its owner and its group may talk to that daemon", path,
                    WithoutDot(ErrorText(error))));
  }
  if (stat(path.c_str(), &status) == 0 && !S_ISSOCK(status.st_mode)) {
    return absl::UnavailableError(fmt::format(
        "{} is {}, not a daemon's socket; name one with --socket or $TINY_KNN_SOCKET", path,
        S_ISREG(status.st_mode)   ? "a regular file"
        : S_ISDIR(status.st_mode) ? "a folder"
                                  : "a special file"));
  }
  if (error == ENOENT || error == ENOTDIR || error == ECONNREFUSED) {
    return absl::NotFoundError(path);
  }
  return absl::UnavailableError(fmt::format("socket {}: {}", path, ErrorText(error)));
}

}  // namespace

struct DaemonClient::State {
  // The end of a wait; nothing: when it pleases.
  using Deadline = std::optional<Clock::time_point>;

  Options options;
  std::string path;
  UniqueFd fd;
  int64_t last_id = 0;
  std::string unsent;
  LineDecoder decoder;
  absl::Status broken;       // why nothing more can be read
  bool send_failed = false;  // the daemon closed its end; what it said before may still be there
  std::deque<JobEvent> events;
  size_t coalesce_beyond = kMostKeptEvents;
  HelloReply hello;

  absl::Status Connect(const std::string& socket_path);
  absl::Status SayHello();
  absl::Status AwaitHello();
  absl::StatusOr<ReplyBody> Call(RequestBody body);
  absl::Status Ask(RequestBody body);
  absl::StatusOr<ReplyBody> AwaitReply(std::string_view request, const Deadline& deadline);
  absl::StatusOr<std::optional<JobEvent>> NextEvent(milliseconds timeout);

  absl::StatusOr<std::optional<ServerMessage>> NextMessage(const Deadline& deadline);
  Deadline InTime() const { return Clock::now() + options.reply_timeout; }
  absl::StatusOr<bool> Wait(const Deadline& deadline, int16_t events_wanted, bool* readable);
  void SendSome();
  void ReadSome();
  void Keep(JobEvent event);
  absl::Status Break(absl::Status why) { return broken = std::move(why); }
};

// ---- Connecting ---------------------------------------------------------------------------------

absl::Status DaemonClient::State::Connect(const std::string& socket_path) {
  if (absl::Status status = CheckSocketPath(socket_path); !status.ok()) return status;
  path = socket_path;
  fd = UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return absl::UnavailableError(fmt::format("no socket: {}", ErrorText(errno)));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const Clock::time_point deadline = Clock::now() + options.reply_timeout;
  // A full backlog says EAGAIN, and poll() does not know when there is room.
  while (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    if (errno != EAGAIN && errno != EINTR) return ExplainConnect(path, errno);
    if (options.interrupted()) return absl::CancelledError("interrupted");
    if (Clock::now() >= deadline) {
      return absl::DeadlineExceededError(fmt::format(
          "the daemon at {} accepts no connection; it may be stopped or overloaded", path));
    }
    poll(nullptr, 0, 10);
  }
  return absl::OkStatus();
}

absl::Status DaemonClient::State::SayHello() {
  absl::Status status = Ask(HelloRequest{.client = options.client_name});
  if (status.ok()) SendSome();  // what finds no room, and what fails, is AwaitHello's
  return status;
}

absl::Status DaemonClient::State::AwaitHello() {
  absl::StatusOr<ReplyBody> reply = AwaitReply(RequestName(HelloRequest{}), InTime());
  if (!reply.ok()) return reply.status();
  const auto* const answer = std::get_if<HelloReply>(&*reply);
  if (answer == nullptr) {
    return absl::InternalError(
        fmt::format("what listens at {} answered hello with something else", path));
  }
  if (answer->protocol < kLeastProtocol || answer->protocol > kGreatestProtocol) {
    return absl::FailedPreconditionError(
        fmt::format("the daemon at {} speaks protocol {}, this program {} to {}; use the program "
                    "that the daemon came with",
                    path, answer->protocol, kLeastProtocol, kGreatestProtocol));
  }
  hello = *answer;
  return absl::OkStatus();
}

// ---- Messages -----------------------------------------------------------------------------------

absl::StatusOr<ReplyBody> DaemonClient::State::Call(RequestBody body) {
  if (!broken.ok()) return broken;
  const Deadline deadline = std::holds_alternative<WaitRequest>(body) ? Deadline() : InTime();
  const std::string name(RequestName(body));
  const absl::Status asked = Ask(std::move(body));
  if (!asked.ok()) return asked;
  return AwaitReply(name, deadline);
}

absl::Status DaemonClient::State::Ask(RequestBody body) {
  const absl::StatusOr<std::string> line =
      EncodeRequest({.id = ++last_id, .body = std::move(body)});
  if (!line.ok()) return line.status();
  unsent += *line;
  unsent += '\n';
  return absl::OkStatus();
}

// The reply to what was asked last.
absl::StatusOr<ReplyBody> DaemonClient::State::AwaitReply(std::string_view request,
                                                          const Deadline& deadline) {
  for (;;) {
    absl::StatusOr<std::optional<ServerMessage>> message = NextMessage(deadline);
    if (!message.ok()) return message.status();
    if (!message->has_value()) {
      return absl::DeadlineExceededError(
          fmt::format("the daemon at {} did not answer {} within {:.3g} s; it may be stopped or "
                      "overloaded",
                      path, request, std::chrono::duration<double>(options.reply_timeout).count()));
    }
    if (auto* const event = std::get_if<JobEvent>(&**message)) {
      Keep(std::move(*event));
      continue;
    }
    auto& reply = std::get<Reply>(**message);
    const auto* const error = std::get_if<ErrorReply>(&reply.body);
    // Without an id it is about the connection. Another id's is late: nobody waits for it any more.
    if (error != nullptr && (reply.id == last_id || reply.id == 0)) return ToStatus(*error);
    if (reply.id == last_id) return std::move(reply.body);
  }
}

absl::StatusOr<std::optional<JobEvent>> DaemonClient::State::NextEvent(milliseconds timeout) {
  const Deadline deadline = Clock::now() + timeout;
  while (events.empty()) {
    if (!broken.ok()) return broken;
    absl::StatusOr<std::optional<ServerMessage>> message = NextMessage(deadline);
    if (!message.ok()) return message.status();
    if (!message->has_value()) return std::optional<JobEvent>();
    if (auto* const event = std::get_if<JobEvent>(&**message)) {
      Keep(std::move(*event));
      continue;
    }
    const auto& reply = std::get<Reply>(**message);
    const auto* const error = std::get_if<ErrorReply>(&reply.body);
    if (error != nullptr && reply.id == 0) return ToStatus(*error);
  }
  std::optional<JobEvent> event(std::move(events.front()));
  events.pop_front();
  return event;
}

void DaemonClient::State::Keep(JobEvent event) {
  events.push_back(std::move(event));
  if (events.size() <= coalesce_beyond) return;
  std::deque<JobEvent> newest;
  std::set<int64_t> jobs;
  for (size_t i = events.size(); i-- > 0;) {
    if (jobs.insert(events[i].job.id).second) newest.push_front(std::move(events[i]));
  }
  events = std::move(newest);
  coalesce_beyond = std::max(kMostKeptEvents, 2 * events.size());
}

// The next message; nothing at the deadline. Sends what is unsent meanwhile.
absl::StatusOr<std::optional<ServerMessage>> DaemonClient::State::NextMessage(
    const Deadline& deadline) {
  for (;;) {
    if (const std::optional<std::string> line = decoder.Next()) {
      absl::StatusOr<ServerMessage> message = DecodeServerMessage(*line);
      if (!message.ok()) {
        return Break(absl::InternalError(
            fmt::format("what listens at {} does not speak as a daemon of this version: {}", path,
                        std::string(message.status().message()))));
      }
      return std::optional<ServerMessage>(*std::move(message));
    }
    if (!broken.ok()) return broken;
    if (!unsent.empty() && !send_failed) SendSome();
    const bool wants_to_send = !unsent.empty() && !send_failed;
    bool readable = false;
    const absl::StatusOr<bool> in_time =
        Wait(deadline, wants_to_send ? POLLIN | POLLOUT : POLLIN, &readable);
    if (!in_time.ok()) return in_time.status();
    if (!*in_time) return std::optional<ServerMessage>();
    if (readable) ReadSome();
  }
}

// False at the deadline, which is looked at only after the socket was. Cancelled: interrupted.
absl::StatusOr<bool> DaemonClient::State::Wait(const Deadline& deadline, int16_t events_wanted,
                                               bool* readable) {
  for (;;) {
    if (options.interrupted()) return absl::CancelledError("interrupted");
    milliseconds pause = kBetweenQuestions;
    if (deadline) {
      const auto left = std::chrono::ceil<milliseconds>(*deadline - Clock::now());
      pause = std::clamp(left, milliseconds(0), pause);
    }
    pollfd polled = {.fd = fd.get(), .events = events_wanted, .revents = 0};
    const int ready = poll(&polled, 1, static_cast<int>(pause.count()));
    if (ready > 0) {
      *readable = (polled.revents & (POLLIN | POLLHUP | POLLERR)) != 0;
      return true;
    }
    if (ready < 0 && errno != EINTR) {
      return Break(absl::UnavailableError(fmt::format("socket {}: {}", path, ErrorText(errno))));
    }
    if (deadline && Clock::now() >= *deadline) return false;
  }
}

void DaemonClient::State::SendSome() {
  const ssize_t sent = send(fd.get(), unsent.data(), unsent.size(), MSG_NOSIGNAL);
  if (sent >= 0) {
    unsent.erase(0, static_cast<size_t>(sent));
  } else if (errno != EAGAIN && errno != EINTR) {
    send_failed = true;
  }
}

void DaemonClient::State::ReadSome() {
  std::array<char, 65536> bytes;  // NOLINT(*-member-init): read() fills it
  const ssize_t count = read(fd.get(), bytes.data(), bytes.size());
  if (count > 0) {
    const absl::Status fed = decoder.Feed({bytes.data(), static_cast<size_t>(count)});
    if (fed.ok()) return;
    broken = absl::InternalError(
        fmt::format("what listens at {} does not speak as a daemon of this version: {}", path,
                    std::string(fed.message())));
  } else if (count == 0) {
    broken = absl::UnavailableError(
        fmt::format("the daemon at {} closed the connection; see `tiny-knn status`", path));
  } else if (errno != EAGAIN && errno != EINTR) {
    broken = absl::UnavailableError(
        fmt::format("the connection to the daemon at {} broke: {}", path, ErrorText(errno)));
  }
}

// ---- The class ----------------------------------------------------------------------------------

DaemonClient::DaemonClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
DaemonClient::~DaemonClient() = default;

const HelloReply& DaemonClient::daemon() const { return state_->hello; }
const std::string& DaemonClient::socket_path() const { return state_->path; }

absl::StatusOr<std::unique_ptr<DaemonClient>> DaemonClient::Connect(const Options& options) {
  absl::StatusOr<std::unique_ptr<DaemonClient>> client = Begin(options);
  if (!client.ok()) return client;
  absl::Status status = (*client)->Greet();
  if (!status.ok()) return status;
  return client;
}

absl::Status DaemonClient::Greet() { return state_->AwaitHello(); }

absl::StatusOr<std::unique_ptr<DaemonClient>> DaemonClient::Begin(const Options& options) {
  absl::Status first_error;
  std::string missing;  // sockets where nobody listens
  for (const std::string& path : options.socket_paths) {
    auto state = std::make_unique<State>();
    state->options = options;
    absl::Status status = state->Connect(path);
    if (status.ok()) {
      // A daemon is here, so the others are not tried: jobs belong where the first one is.
      status = state->SayHello();
      if (!status.ok()) return status;
      return std::unique_ptr<DaemonClient>(new DaemonClient(std::move(state)));
    }
    if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) return status;
    if (absl::IsNotFound(status)) {
      missing += missing.empty() ? path : " or " + path;
    } else if (first_error.ok()) {
      first_error = std::move(status);
    }
  }
  // A socket that is wrong or closed to this user says more than one that is not there.
  if (!first_error.ok()) return first_error;
  return absl::UnavailableError(fmt::format("no daemon listens at {}; {}",
                                            missing.empty() ? "any socket" : missing, kHowToStart));
}

absl::StatusOr<ReplyBody> DaemonClient::CallAny(RequestBody body) {
  return state_->Call(std::move(body));
}

absl::StatusOr<std::optional<JobEvent>> DaemonClient::NextEvent(milliseconds timeout) {
  return state_->NextEvent(std::max(timeout, milliseconds(0)));
}

std::string NewSubmitKey() {
  std::array<unsigned char, 16> bytes = {};
  // Up to 256 bytes come whole once the kernel's generator is seeded; nothing else can fail.
  ssize_t count = 0;
  do {
    count = getrandom(bytes.data(), bytes.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count != static_cast<ssize_t>(bytes.size())) std::abort();
  std::string key;
  for (const unsigned char byte : bytes) key += fmt::format("{:02x}", byte);
  return key;
}

}  // namespace tiny_knn
