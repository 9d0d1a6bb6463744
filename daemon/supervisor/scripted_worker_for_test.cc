// A worker that does as its --device says: what tests of the supervisor's side run instead of
// `tiny-knn worker`.
#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <variant>

#include "daemon/protocol/build_id.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/worker_messages.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int kSocket = 3;

void SendLine(const std::string& line) {
  const std::string whole = line + "\n";
  if (send(kSocket, whole.data(), whole.size(), MSG_NOSIGNAL) < 0) std::_Exit(9);
}

void Send(const FromWorker& message) { SendLine(EncodeFromWorker(message)); }

// Every open descriptor, what it is, the folder and the environment: for the job's log.
void ReportSurroundings(int64_t job) {
  DIR* folder = opendir("/proc/self/fd");
  while (const dirent* entry = readdir(folder)) {
    if (entry->d_name[0] == '.' || std::atoi(entry->d_name) == dirfd(folder)) continue;
    char target[256] = {};
    const std::string path = fmt::format("/proc/self/fd/{}", entry->d_name);
    if (readlink(path.c_str(), target, sizeof(target) - 1) < 0) continue;
    Send(WorkerLog{job, fmt::format("fd {} {}", entry->d_name, target)});
  }
  closedir(folder);
  char working[256] = {};
  if (getcwd(working, sizeof(working)) != nullptr)
    Send(WorkerLog{job, fmt::format("cwd {}", working)});
  for (char** variable = environ; *variable != nullptr; ++variable) {
    Send(WorkerLog{job, fmt::format("env {}", *variable)});
  }
}

// What /proc tells of this process, for the job's log.
void ReportIdentity(int64_t job) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::replace(line.begin(), line.end(), '\t', ' ');
    Send(WorkerLog{job, line});
  }
  const std::string parent = fmt::format("/proc/{}/fd", getppid());
  Send(WorkerLog{job, opendir(parent.c_str()) == nullptr ? "parent closed" : "parent open"});
}

// A script may stand in a file, "@{path}", so that a test can change its mind between workers.
std::string ReadScript(const std::string& device) {
  if (!device.starts_with('@')) return device;
  std::ifstream file(device.substr(1));
  std::string script;
  std::getline(file, script);
  return script;
}

WorkerFinished Finished(int64_t job, const std::string& code, const std::string& error) {
  WorkerFinished finished;
  finished.job = job;
  finished.error_code = code;
  finished.error = error;
  finished.output_path = "/somewhere/out.pkl";
  finished.device = "cpu";
  finished.docs = "cold";
  return finished;
}

class ScriptedWorker {
 public:
  explicit ScriptedWorker(std::string script) : script_(std::move(script)) {}

  int Run() {
    if (script_ == "die_at_start") return 3;
    if (script_ == "exit_127") return 127;
    if (script_ == "stop_at_start") raise(SIGSTOP);
    Send(WorkerHello{script_ == "foreign" ? "another build" : std::string(kBuildId), getpid()});
    // Tells a test that the hello is on its way, in a file that it names.
    if (const char* told = getenv("TINY_KNN_TOLD")) close(creat(told, 0600));
    if (script_ == "silent") {
      while (true) pause();
    }
    LineDecoder decoder;
    char buffer[4096];
    while (true) {
      const ssize_t size = recv(kSocket, buffer, sizeof(buffer), 0);
      if (size <= 0) return script_ == "will_not_end" ? (sleep(1000), 0) : 0;
      if (!decoder.Feed({buffer, static_cast<size_t>(size)}).ok()) return 9;
      while (std::optional<std::string> line = decoder.Next()) {
        absl::StatusOr<ToWorker> message = DecodeToWorker(*line);
        if (!message.ok()) return 9;
        Handle(*message);
      }
    }
  }

 private:
  void Handle(const ToWorker& message) {
    if (const auto* run = std::get_if<WorkerRun>(&message)) return HandleRun(*run);
    if (const auto* remove = std::get_if<WorkerRemove>(&message)) {
      if (script_ == "die_removing") std::abort();
      if (script_ == "hang_removing") return;
      if (script_ == "note_removing") Send(WorkerLog{remove->job, "note: cannot remove"});
      return Send(WorkerRemoved{remove->job});
    }
    const int64_t job = std::get<WorkerCancel>(message).job;
    if (script_ == "stubborn") return;
    if (script_ == "done_although_cancelled") return Send(Finished(job, "ok", ""));
    Send(Finished(job, "cancelled", "interrupted"));
  }

  void HandleRun(const WorkerRun& run) {
    if (script_ == "die_running") std::abort();
    if (script_ == "killed_running") raise(SIGKILL);
    if (script_ == "garbage") return SendLine("{\"type\":\"run\"");
    if (script_ == "long_line") return SendLine(std::string(2 << 20, 'x'));
    if (script_ == "close_socket") {
      close(kSocket);
      while (true) pause();
    }
    if (script_ == "surroundings") ReportSurroundings(run.job);
    if (script_ == "identity") {
      ReportSurroundings(run.job);
      ReportIdentity(run.job);
    }
    if (script_ == "tells_pid") Send(WorkerLog{run.job, fmt::format("{}", getpid())});
    if (script_ == "wrong_job") {
      Send(WorkerProgress{run.job + 1, 1, 2});
      Send(Finished(run.job + 1, "ok", ""));
    }
    if (script_ == "bad_input") return Send(Finished(run.job, "not_found", "q.npy: is not there"));
    Send(WorkerProgress{run.job, 1, 4});
    if (script_ == "die_after_progress") std::abort();
    if (script_ == "waits" || script_ == "stubborn" || script_ == "done_although_cancelled") return;
    if (script_ == "finish_and_die") {
      Send(Finished(run.job, "ok", ""));
      std::abort();
    }
    Send(WorkerLog{run.job, "a line"});
    Send(Finished(run.job, "ok", ""));
  }

  const std::string script_;
};

}  // namespace
}  // namespace tiny_knn

// argv: worker --device SCRIPT
int main(int argc, char** argv) {
  return tiny_knn::ScriptedWorker(tiny_knn::ReadScript(argc > 3 ? argv[3] : "")).Run();
}
