// tiny-knnd, the supervisor's own program: the log, the service manager, and going to the
// background. `tiny-knn daemon` executes it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/service_manager.h"
#include "daemon/supervisor/supervisor.h"
#include "daemon/tiny_knnd_flags.h"
#include "fmt/format.h"
#include "spdlog/sinks/rotating_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

constexpr size_t kLogFileBytes = size_t{4} << 20;
constexpr size_t kLogFiles = 2;

void PrintError(const std::string& message) {
  const std::string line = fmt::format("tiny-knnd: error: {}\n", message);
  if (std::fputs(line.c_str(), stderr) < 0) return;
}

// Descriptors 0 to 2 are open, so that no file of ours becomes standard output by accident.
void OpenStandardStreams() {
  int fd;
  do {
    fd = open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= 2);
  if (fd > 2) close(fd);
}

void SetUpLog(const std::shared_ptr<spdlog::sinks::sink>& sink) {
  auto logger = std::make_shared<spdlog::logger>("tiny-knnd", sink);
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
  logger->flush_on(spdlog::level::info);
  // A full disk under the log is no reason to end, nor to fill standard error.
  logger->set_error_handler([](const std::string&) {});
  spdlog::set_default_logger(std::move(logger));
}

absl::Status LogToFile(const std::string& path) {
  try {
    SetUpLog(
        std::make_shared<spdlog::sinks::rotating_file_sink_st>(path, kLogFileBytes, kLogFiles));
  } catch (const spdlog::spdlog_ex& error) {
    return absl::FailedPreconditionError(error.what());
  }
  return absl::OkStatus();
}

// What the background process tells the one that started it: nothing but an end when it is ready,
// else the error.
class ReadyPipe {
 public:
  explicit ReadyPipe(int fd) : fd_(fd) {}
  void Ready() { Tell("ok"); }
  void Fail(const std::string& message) { Tell(message); }

 private:
  void Tell(const std::string& text) {
    if (fd_ < 0) return;
    if (write(fd_, text.data(), text.size()) < 0) errno = 0;  // the starter is gone: nobody to tell
    close(fd_);
    fd_ = -1;
  }
  int fd_;
};

// The starter's part of --background: waits for word from the daemon.
int AwaitReady(int pipe, pid_t child, const SupervisorOptions& options) {
  std::string word;
  char buffer[4096];
  while (true) {
    const ssize_t size = read(pipe, buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    word.append(buffer, static_cast<size_t>(size));
  }
  if (word == "ok") {
    fmt::print("tiny-knnd (pid {}) listens on {}; its log is {}/daemon.log\n", child,
               options.socket_path, options.state_folder);
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  PrintError(word.empty()
                 ? "the daemon ended before it was ready; see daemon.log in its state folder"
                 : word);
  return 2;
}

// 0 after an orderly end; 2 when it could not start, which starting it again would not change; 1
// when it broke after that.
int ExitCode(const absl::Status& status, bool was_ready) {
  if (status.ok()) return 0;
  return was_ready ? 1 : 2;
}

// The daemon's part of --background.
int ServeInBackground(const SupervisorOptions& options, InheritedSocket socket, ReadyPipe pipe) {
  setsid();
  if (chdir("/") != 0) errno = 0;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int standard : {0, 1, 2}) dup2(null, standard);
  if (null > 2) close(null);
  umask(077);
  SupervisorCallbacks callbacks;
  // Not before: the log of a daemon that is there already is that one's.
  callbacks.on_sole = [&options] { return LogToFile(options.state_folder + "/daemon.log"); };
  bool was_ready = false;
  callbacks.on_ready = [&] {
    was_ready = true;
    pipe.Ready();
  };
  // A service manager waits for the process that it has started, which has ended by then.
  const absl::Status status =
      RunSupervisor(options, {.socket = std::move(socket), .manager = {}}, callbacks);
  if (!status.ok()) {
    spdlog::critical("{}", std::string(status.message()));  // to nowhere, before on_sole
    pipe.Fail(std::string(status.message()));
  }
  return ExitCode(status, was_ready);
}

int ServeInForeground(const SupervisorOptions& options, ServiceLink service) {
  SetUpLog(std::make_shared<spdlog::sinks::stderr_sink_st>());
  SupervisorCallbacks callbacks;
  callbacks.on_sole = [] { return absl::OkStatus(); };
  bool was_ready = false;
  callbacks.on_ready = [&was_ready] { was_ready = true; };
  const absl::Status status = RunSupervisor(options, std::move(service), callbacks);
  if (!status.ok()) PrintError(std::string(status.message()));
  return ExitCode(status, was_ready);
}

// What the service manager has for us. The socket that it passes is the one to listen on.
absl::StatusOr<ServiceLink> TakeService(SupervisorFlags& flags, InheritedSocket socket) {
  ServiceLink service;
  absl::StatusOr<ServiceManager> manager = ServiceManager::FromEnvironment();
  if (!manager.ok()) return manager.status();
  service.manager = *std::move(manager);
  if (socket.exists()) {
    if (flags.names_socket && flags.options.socket_path != socket.path) {
      return absl::InvalidArgumentError(
          fmt::format("--socket {}: the service manager passes a socket at {}; leave --socket out",
                      flags.options.socket_path, socket.path));
    }
    flags.options.socket_path = socket.path;
  }
  service.socket = std::move(socket);
  return service;
}

int Main(int argc, char** argv) {
  absl::StatusOr<InheritedSocket> socket = TakeInheritedSocket();
  OpenStandardStreams();
  if (!socket.ok()) {
    PrintError(std::string(socket.status().message()));
    return 2;
  }
  absl::StatusOr<SupervisorFlags> flags = ParseSupervisorFlags(argc, argv);
  if (!flags.ok()) {
    PrintError(std::string(flags.status().message()));
    return 2;
  }
  absl::StatusOr<ServiceLink> service = TakeService(*flags, *std::move(socket));
  if (!service.ok()) {
    PrintError(std::string(service.status().message()));
    return 2;
  }
  if (!flags->background) return ServeInForeground(flags->options, *std::move(service));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    PrintError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
    return 1;
  }
  const pid_t child = fork();
  if (child < 0) {
    PrintError(fmt::format("cannot start a process: {}", std::strerror(errno)));
    return 1;
  }
  if (child == 0) {
    close(ends[0]);
    return ServeInBackground(flags->options, std::move(service->socket), ReadyPipe(ends[1]));
  }
  close(ends[1]);
  return AwaitReady(ends[0], child, flags->options);
}

}  // namespace
}  // namespace tiny_knn

int main(int argc, char** argv) { return tiny_knn::Main(argc, argv); }
