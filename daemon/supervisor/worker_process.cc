#include "daemon/supervisor/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "boost/asio/buffer.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/write.hpp"
#include "boost/system/error_code.hpp"
#include "core/io/errno_status.h"
#include "daemon/supervisor/worker_child.h"
#include "daemon/supervisor/worker_identity.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using boost::system::error_code;
using Clock = std::chrono::steady_clock;

// Between the end of the socket and that of the process, in either order.
constexpr std::chrono::seconds kEndTogether(5);
constexpr std::array<std::string_view, 6> kPassedOn = {
    "LD_LIBRARY_PATH",        "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",   "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
};
constexpr std::array<std::string_view, 4> kPassedOnSanitizers = {"ASAN_OPTIONS", "LSAN_OPTIONS",
                                                                 "TSAN_OPTIONS", "UBSAN_OPTIONS"};
constexpr std::string_view kOwnPrefix = "TINY_KNN_";

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::string DescribeEnd(const siginfo_t& end) {
  if (end.si_code == CLD_EXITED) return fmt::format("ended with exit code {}", end.si_status);
  const char* hint = "";
  if (end.si_status == SIGKILL) hint = "; perhaps the machine ran out of memory";
  if (end.si_status == SIGBUS) hint = "; perhaps a file was truncated or a disk failed";
  return fmt::format("was killed by signal {} ({}){}", end.si_status, strsignal(end.si_status),
                     hint);
}

WorkerEnd DescribeFailure(const IdentityFailure& failure, std::optional<uid_t> user) {
  const std::string what = failure.error == 0
                               ? std::string(failure.step)
                               : fmt::format("{}: {}", failure.step, std::strerror(failure.error));
  const int64_t uid = user ? int64_t{*user} : -1;
  switch (failure.code) {
    case kExitNoSuchUser:
      return {WorkerEnd::Kind::kNoSuchUser,
              fmt::format("has no user to run as: this machine knows no user {}", uid)};
    case kExitNotTheUser:
      return {WorkerEnd::Kind::kNotTheUser,
              fmt::format("could not become user {} ({})", uid, what)};
    default:
      return {WorkerEnd::Kind::kNotStarted,
              fmt::format("could not be started (exit code {}; {})", failure.code, what)};
  }
}

}  // namespace

absl::StatusOr<WorkerBinary> OpenWorkerBinary(const std::string& path) {
  WorkerBinary binary{UniqueFd(open(path.c_str(), O_PATH | O_CLOEXEC)), path};
  if (!binary.file.valid()) {
    return ErrnoStatus(errno, path, "cannot open the worker's program");
  }
  struct stat found;
  if (fstat(binary.file.get(), &found) != 0 || !S_ISREG(found.st_mode) ||
      access(path.c_str(), X_OK) != 0) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is no program that could run jobs; --worker names tiny-knn", path));
  }
  return binary;
}

std::vector<std::string> WorkerEnvironment(char** environment) {
  std::vector<std::string> passed;
  for (char** entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    bool wanted = name.substr(0, kOwnPrefix.size()) == kOwnPrefix;
    for (std::string_view known : kPassedOn) wanted = wanted || name == known;
    for (std::string_view known : kPassedOnSanitizers) wanted = wanted || name == known;
    if (wanted) passed.emplace_back(text);
  }
  return passed;
}

absl::StatusOr<std::shared_ptr<WorkerProcess>> WorkerProcess::Start(boost::asio::io_context& loop,
                                                                    const WorkerBinary& binary,
                                                                    const WorkerStart& start,
                                                                    Callbacks callbacks) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return absl::UnavailableError(
        fmt::format("cannot make a socketpair for a worker: {}", std::strerror(errno)));
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  // The worker's end blocks: it has a thread for it.
  fcntl(theirs.get(), F_SETFL, fcntl(theirs.get(), F_GETFL) & ~O_NONBLOCK);
  int failure_ends[2];
  if (pipe2(failure_ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return absl::UnavailableError(
        fmt::format("cannot make a pipe for a worker: {}", std::strerror(errno)));
  }
  UniqueFd failure(failure_ends[0]);
  const UniqueFd their_failure(failure_ends[1]);

  std::vector<std::string> arguments = {binary.path, "worker", "--device", start.device};
  std::vector<std::string> variables = start.environment;
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(variables);
  const ChildPlan plan{start.user, theirs.get(), binary.file.get(), their_failure.get(),
                       getpid(),   argv.data(),  envp.data()};
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = fork();
  if (pid == 0) ExecWorker(plan);
  const int fork_error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    return absl::UnavailableError(
        fmt::format("cannot start a worker process: {}", std::strerror(fork_error)));
  }
  // Not the function of that name: glibc 2.36 declares it for C only.
  UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  Socket socket(loop);
  error_code error;
  if (process.valid()) {
    socket.assign(boost::asio::local::stream_protocol(), ours.get(), error);
    if (!error) ours.Release();
  }
  if (!process.valid() || error) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return absl::UnavailableError("cannot watch a worker process; too many open files?");
  }
  std::shared_ptr<WorkerProcess> worker(new WorkerProcess(loop, start, pid, std::move(process),
                                                          std::move(failure), std::move(socket),
                                                          std::move(callbacks)));
  worker->WatchExit();
  worker->Read();
  return worker;
}

WorkerProcess::WorkerProcess(boost::asio::io_context& loop, const WorkerStart& start, pid_t pid,
                             UniqueFd process, UniqueFd failure, Socket socket, Callbacks callbacks)
    : pid_(pid),
      socket_(std::move(socket)),
      process_(loop, process.Release()),
      failure_(std::move(failure)),
      timer_(loop),
      dying_timer_(loop),
      user_(start.user),
      dying_(start.dying),
      kill_(start.kill),
      callbacks_(std::move(callbacks)),
      last_heard_(Clock::now()) {}

WorkerProcess::~WorkerProcess() {
  if (exited_) return;
  kill(pid_, SIGKILL);
  // Not for ever: it may hang in the kernel.
  pollfd ended = {.fd = process_.native_handle(), .events = POLLIN, .revents = 0};
  if (!left_behind_) poll(&ended, 1, static_cast<int>(dying_.count()));
  waitpid(pid_, nullptr, WNOHANG);
}

std::chrono::steady_clock::duration WorkerProcess::silence() const {
  return Clock::now() - last_heard_;
}

bool WorkerProcess::has_unread() const {
  int bytes = 0;
  return ioctl(const_cast<Socket&>(socket_).native_handle(), FIONREAD, &bytes) == 0 && bytes > 0;
}

void WorkerProcess::Send(const ToWorker& message) {
  if (socket_over_) return;  // on_exit will tell
  absl::StatusOr<std::string> line = EncodeToWorker(message);
  if (!line.ok())
    return Kill(fmt::format("cannot be told: {}", std::string(line.status().message())));
  outgoing_ += *line;
  outgoing_ += '\n';
  Write();
}

void WorkerProcess::Write() {
  if (!writing_.empty() || outgoing_.empty() || socket_over_) return;
  writing_.swap(outgoing_);
  boost::asio::async_write(socket_, boost::asio::buffer(writing_),
                           [self = shared_from_this()](const error_code& error, size_t) {
                             self->writing_.clear();
                             if (!error) self->Write();
                           });
}

void WorkerProcess::Read() {
  socket_.async_read_some(
      boost::asio::buffer(incoming_),
      [self = shared_from_this()](const error_code& error, size_t size) {
        if (error || self->socket_over_ || self->discarded_) return self->OnSocketEnd();
        self->last_heard_ = Clock::now();
        const absl::Status fed = self->decoder_.Feed({self->incoming_.data(), size});
        while (std::optional<std::string> line = self->decoder_.Next()) {
          absl::StatusOr<FromWorker> message = DecodeFromWorker(*line);
          if (!message.ok()) {
            self->Kill(fmt::format("sent what is no message ({}) and was killed",
                                   std::string(message.status().message())));
            return self->OnSocketEnd();
          }
          self->callbacks_.on_message(*std::move(message));
          if (self->discarded_) return self->OnSocketEnd();
        }
        if (!fed.ok()) {
          self->Kill("sent a line longer than 1 MiB and was killed");
          return self->OnSocketEnd();
        }
        self->Read();
      });
}

void WorkerProcess::Kill(const std::string& why) {
  if (exited_) return;
  if (end_.why.empty()) end_.why = why;
  SendKill();
}

void WorkerProcess::Discard(const std::string& why) {
  discarded_ = true;
  Kill(why);
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] { self->OnSocketEnd(); });
}

void WorkerProcess::Disown() {
  callbacks_ = {[](const FromWorker&) {}, [](const WorkerEnd&) {}};
}

void WorkerProcess::SendKill() {
  kill_ ? kill_(pid_) : void(kill(pid_, SIGKILL));  // not reaped yet, so the pid is still its own
  if (std::exchange(killed_, true)) return;
  dying_timer_.expires_after(dying_);
  dying_timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && !self->exited_) self->LeaveBehind();
  });
}

// It is reaped when it ends after all: WatchExit goes on.
void WorkerProcess::LeaveBehind() {
  left_behind_ = true;
  if (!end_.why.empty()) end_.why += "; ";
  end_.why += fmt::format("it cannot be killed and was left behind (pid {})", pid_);
  OnSocketEnd();
  ReportIfOver();
}

void WorkerProcess::Finish() {
  if (exited_ || socket_over_) return;
  error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  timer_.expires_after(kEndTogether);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->Kill("did not end when it should");
  });
}

void WorkerProcess::OnSocketEnd() {
  if (socket_over_) return;
  socket_over_ = true;
  error_code ignored;
  socket_.close(ignored);
  if (!exited_ && !killed_) {
    timer_.expires_after(kEndTogether);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->Kill("closed its socket without ending");
    });
  }
  ReportIfOver();
}

void WorkerProcess::WatchExit() {
  process_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                      [self = shared_from_this()](const error_code& error) {
                        if (!error) self->OnExit();
                      });
}

void WorkerProcess::OnExit() {
  siginfo_t end{};
  if (waitid(P_PIDFD, static_cast<id_t>(process_.native_handle()), &end, WEXITED) != 0) {
    if (errno == EINTR) return WatchExit();
  }
  exited_ = true;
  dying_timer_.cancel();
  IdentityFailure failure;
  if (read(failure_.get(), &failure, sizeof(failure)) == sizeof(failure)) {
    end_ = DescribeFailure(failure, user_);
  } else if (end_.why.empty()) {
    end_.why = DescribeEnd(end);
  }
  error_code ignored;
  process_.close(ignored);
  if (!socket_over_) {
    // What it said last may still be unread; the end of the socket follows, unless somebody else
    // holds it open.
    timer_.expires_after(kEndTogether);
    timer_.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error) self->OnSocketEnd();
    });
  }
  ReportIfOver();
}

void WorkerProcess::ReportIfOver() {
  if (!socket_over_ || !(exited_ || left_behind_) || reported_) return;
  reported_ = true;
  timer_.cancel();
  callbacks_.on_exit(end_);
  callbacks_ = {};
}

}  // namespace tiny_knn
