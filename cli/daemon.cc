// `tiny-knn daemon` and `tiny-knn worker`: the two processes that a daemon is made of. The first is
// tiny-knnd, a program of its own that links no engine; the second is this one.
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/daemon_flags.h"
#include "cli/flags.h"
#include "cli/verbs.h"
#include "daemon/worker/worker.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kDaemonHelp =
    R"(tiny-knn daemon: start the daemon: one queue for one device

usage: tiny-knn daemon [flags]

Takes the jobs of 'tiny-knn submit', keeps them over crashes, and runs them one
after the other, with the docs of the last ones kept warm in memory. Runs until
Ctrl-C, SIGTERM or 'tiny-knn shutdown'; the queue is kept. Started by root it
serves the members of a group, each as himself, else you alone. As a service of
systemd: tools/install --system.

      --background      returns when the daemon is ready; its messages go to
                        daemon.log in its folder
      --socket P        default: $TINY_KNN_SOCKET, else daemon.sock in
                        $XDG_RUNTIME_DIR/tiny-knn (root: /run/tiny-knn), else in
                        the default of --state-dir, whatever --state-dir says
      --state-dir P     queue and logs (default: $XDG_STATE_HOME/tiny-knn, else
                        ~/.local/state/tiny-knn; root: /var/lib/tiny-knn)
      --device D        auto (default), cpu, cuda or cuda:N; jobs cannot have
                        another one
      --max-memory S    for a search and all warm docs, such as 16G (default: 75
                        percent of what is free)
      --max-warm-memory S
                        of that for warm docs (default: all of it)
      --threads N       most threads of a job (default: one per CPU)
      --max-time T      a job that runs longer fails (default: no limit)
      --idle-release T  gives memory and device back when idle for so long: 30s,
                        10m, 1h (default: 10m)
      --grace T         at the end, time for the running job before it is
                        stopped and queued again (default: 30s)
      --group G         for root: its members may use the daemon; name or number
                        (default: tiny-knn where there is one, else only root)
      --admin-group G   for root: its members may also cancel jobs of others,
                        drain and shut down (default: tiny-knn-admin if there)
  -h, --help            this page

example: tiny-knn daemon --background --max-memory 16G
)";

const std::string_view kWorkerHelp =
    R"(tiny-knn worker: runs the daemon's jobs

usage: tiny-knn worker [--device D]

Started by the daemon, with which it talks over descriptor 3. Nothing for
people: see 'tiny-knn help daemon'.

      --device D    what a job gets that asks for auto (default: auto)
  -h, --help        this page
)";

namespace {

constexpr int kWorkerSocket = 3;
constexpr const char* kSupervisor = "tiny-knnd";

struct WorkerTexts {
  std::optional<std::string> device;
};

void DeclareWorker(FlagParser& parser, WorkerTexts& texts) {
  parser.Value("--device", &texts.device);
}

// Beside this program where both are installed, in the next folder where both were built.
absl::StatusOr<std::string> FindSupervisor(const std::filesystem::path& self) {
  const std::filesystem::path folder = self.parent_path();
  for (const std::filesystem::path& path :
       {folder / kSupervisor, folder.parent_path() / "daemon" / kSupervisor}) {
    struct stat info {};
    if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode)) return path.string();
  }
  return absl::NotFoundError(
      fmt::format("{}: the daemon's program is not there; install tiny-knn with tools/install, "
                  "which puts both in one folder",
                  (folder / kSupervisor).string()));
}

// Asked here, since the daemon itself never looks a name up: whatever answers might not come back.
std::optional<gid_t> FindGroup(const std::string& name) {
  const group* const found = getgrnam(name.c_str());
  if (found == nullptr) return std::nullopt;
  return found->gr_gid;
}

// Becomes the supervisor. Returns only what went wrong.
absl::Status ExecSupervisor(const std::string& path, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {path};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  // Ignored signals outlive exec; the daemon decides for itself.
  std::signal(SIGPIPE, SIG_DFL);
  std::signal(SIGXFSZ, SIG_DFL);
  execv(path.c_str(), argv.data());
  return absl::FailedPreconditionError(
      fmt::format("{}: cannot be started: {}", path, std::strerror(errno)));
}

}  // namespace

absl::Status DaemonVerb(const std::vector<std::string>& args, Console& console) {
  std::error_code error;
  const std::string folder = std::filesystem::current_path(error).string();
  absl::StatusOr<DaemonStart> start =
      ParseDaemonFlags(args, folder, {.is_root = geteuid() == 0, .find_group = FindGroup});
  if (!start.ok()) return start.status();
  if (start->help) {
    console.Out(kDaemonHelp);
    return absl::OkStatus();
  }
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) {
    return absl::FailedPreconditionError(
        fmt::format("/proc/self/exe: cannot be read: {}; is /proc mounted?", error.message()));
  }
  const absl::StatusOr<std::string> supervisor = FindSupervisor(self);
  if (!supervisor.ok()) return supervisor.status();
  start->arguments.insert(start->arguments.end(), {"--worker", self.string()});
  return ExecSupervisor(*supervisor, start->arguments);
}

absl::Status WorkerVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("worker", "[flags]");
  WorkerTexts texts;
  DeclareWorker(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kWorkerHelp, console)) return status;
  struct stat info {};
  if (fstat(kWorkerSocket, &info) != 0 || !S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(
        "worker is started by the daemon, not by hand; see 'tiny-knn help daemon'");
  }
  WorkerOptions options;
  options.socket = kWorkerSocket;
  if (texts.device) options.device = *texts.device;
  return RunWorker(options);
}

VerbFlags DaemonVerbFlags() { return ListDaemonFlags(); }
VerbFlags WorkerVerbFlags() { return DeclaredFlags<WorkerTexts>(DeclareWorker); }

}  // namespace tiny_knn
