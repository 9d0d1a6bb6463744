// tiny-knnd, the supervisor's own program: flags, the log, and going to the background. `tiny-knn
// daemon` executes it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/job/machine_limits.h"
#include "core/job/version.h"
#include "daemon/protocol/daemon_paths.h"
#include "daemon/supervisor/listen_socket.h"
#include "daemon/supervisor/options.h"
#include "daemon/supervisor/supervisor.h"
#include "fmt/format.h"
#include "spdlog/sinks/rotating_file_sink.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {
namespace {

constexpr size_t kLogFileBytes = size_t{4} << 20;
constexpr size_t kLogFiles = 2;

struct Flags {
  SupervisorOptions options;
  bool background = false;
};

void PrintError(const std::string& message) {
  const std::string line = fmt::format("tiny-knnd: error: {}\n", message);
  if (std::fputs(line.c_str(), stderr) < 0) return;
}

absl::StatusOr<Flags> ParseFlags(int argc, char** argv) {
  Flags flags;
  SupervisorOptions& options = flags.options;
  int64_t idle_release = options.idle_release.count();
  int64_t grace = options.grace.count();
  CLI::App app("tiny-knnd: the queue's keeper; 'tiny-knn daemon --help' describes it");
  app.set_version_flag("--version", fmt::format("tiny-knnd {}", kTinyKnnVersion));
  app.add_option("--socket", options.socket_path);
  app.add_option("--state-dir", options.state_folder);
  app.add_option("--device", options.device);
  app.add_option("--max-memory", options.max_memory_bytes)->check(CLI::PositiveNumber);
  app.add_option("--threads", options.most_threads)->check(CLI::NonNegativeNumber);
  app.add_option("--idle-release", idle_release)->check(CLI::Range(0, 1000000000));
  app.add_option("--grace", grace)->check(CLI::Range(0, 1000000000));
  app.add_option("--worker", options.worker_path)->required();
  app.add_flag("--background", flags.background);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Error& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));
    return absl::InvalidArgumentError(
        fmt::format("{}; 'tiny-knn daemon' is the way to start it", error.what()));
  }
  options.idle_release = std::chrono::seconds(idle_release);
  options.grace = std::chrono::seconds(grace);

  const bool is_root = geteuid() == 0;
  const auto environment = [](const char* name) -> const char* { return std::getenv(name); };
  if (options.state_folder.empty()) {
    absl::StatusOr<std::string> folder = DefaultStateFolder(is_root, environment);
    if (!folder.ok()) return folder.status();
    options.state_folder = *std::move(folder);
  }
  if (options.socket_path.empty()) {
    absl::StatusOr<std::string> path = DefaultSocketPath(is_root, environment);
    if (!path.ok()) return path.status();
    options.socket_path = *std::move(path);
  }
  if (!options.state_folder.starts_with('/')) {
    return absl::InvalidArgumentError(
        fmt::format("--state-dir {}: must begin with /", options.state_folder));
  }
  const absl::Status usable = CheckSocketPath(options.socket_path);
  if (!usable.ok()) return usable;
  if (options.max_memory_bytes == 0) {
    options.max_memory_bytes = DefaultMemoryLimit(AvailableMemoryBytes());
  }
  return flags;
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

absl::Status Serve(const SupervisorOptions& options, ReadyPipe& pipe) {
  return RunSupervisor(options, [&pipe] { pipe.Ready(); });
}

// The daemon's part of --background.
int ServeInBackground(const SupervisorOptions& options, ReadyPipe pipe) {
  setsid();
  if (chdir("/") != 0) errno = 0;
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int standard : {0, 1, 2}) dup2(null, standard);
  if (null > 2) close(null);
  umask(077);
  absl::Status status = EnsurePrivateFolder(options.state_folder);
  if (status.ok()) status = LogToFile(options.state_folder + "/daemon.log");
  if (status.ok()) status = Serve(options, pipe);
  if (!status.ok()) {
    spdlog::critical("{}", std::string(status.message()));
    pipe.Fail(std::string(status.message()));
  }
  return status.ok() ? 0 : 2;
}

int Main(int argc, char** argv) {
  OpenStandardStreams();
  const absl::StatusOr<Flags> flags = ParseFlags(argc, argv);
  if (!flags.ok()) {
    PrintError(std::string(flags.status().message()));
    return 2;
  }
  if (!flags->background) {
    SetUpLog(std::make_shared<spdlog::sinks::stderr_sink_st>());
    ReadyPipe nobody(-1);
    const absl::Status status = Serve(flags->options, nobody);
    if (!status.ok()) PrintError(std::string(status.message()));
    return status.ok() ? 0 : 2;
  }
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
    return ServeInBackground(flags->options, ReadyPipe(ends[1]));
  }
  close(ends[1]);
  return AwaitReady(ends[0], child, flags->options);
}

}  // namespace
}  // namespace tiny_knn

int main(int argc, char** argv) { return tiny_knn::Main(argc, argv); }
