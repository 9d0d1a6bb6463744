#include "daemon/supervisor/worker_child.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "daemon/supervisor/worker_identity.h"

namespace tiny_knn {
namespace {

constexpr int kWorkerSocket = 3;  // WorkerOptions::socket
constexpr int kWorkerBinary = 4;
constexpr int kWorkerFailure = 5;
// A worker is the one to go when memory ends: its job fails alone.
constexpr std::string_view kOomScore = "500";

// By the pipe, which the worker's program never sees: an exit code alone its user could forge.
[[noreturn]] void Fail(int pipe, const IdentityFailure& failure) {
  // Without a word it ends as by its user's doing, who may not be to blame.
  if (write(pipe, &failure, sizeof(failure)) < 0) errno = 0;
  _exit(failure.code);
}

}  // namespace

void ExecWorker(const ChildPlan& plan) {
  setsid();  // no Ctrl-C of the terminal that the supervisor stands on
  // Before any is let through: the supervisor's handlers would tell the supervisor.
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGCHLD}) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);

  // Above all that is about to be overwritten first.
  const int failure = fcntl(plan.failure, F_DUPFD, 16);
  const auto fail_setup = [&](const char* step) {
    Fail(failure < 0 ? plan.failure : failure, {kExitNotSetUp, step, errno});
  };
  const int socket = fcntl(plan.socket, F_DUPFD, 16);
  const int binary = fcntl(plan.binary, F_DUPFD, 16);
  const int null = open("/dev/null", O_RDWR);
  if (failure < 0 || socket < 0 || binary < 0 || null < 0) fail_setup("open");
  for (int standard : {0, 1, 2}) {
    if (dup2(null, standard) < 0) fail_setup("dup2");
  }
  if (dup2(socket, kWorkerSocket) < 0 || dup3(binary, kWorkerBinary, O_CLOEXEC) < 0 ||
      dup3(failure, kWorkerFailure, O_CLOEXEC) < 0) {
    fail_setup("dup2");
  }
  // May open descriptors and keep them, so it comes before they are closed.
  UserIdentity identity;
  if (plan.user) {
    const IdentityFailure found = LookUpUser(*plan.user, identity);
    if (found.code != 0) Fail(kWorkerFailure, found);
  }
  if (close_range(kWorkerFailure + 1, ~0u, 0) != 0 || chdir("/") != 0) {
    Fail(kWorkerFailure, {kExitNotSetUp, "close_range or chdir", errno});
  }
  const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (score >= 0) {
    // Where that is not allowed, the kernel chooses by size, which is the worker's too.
    if (write(score, kOomScore.data(), kOomScore.size()) < 0) errno = 0;
    close(score);
  }
  if (plan.user) {
    const IdentityFailure became = BecomeUser(identity);
    if (became.code != 0) Fail(kWorkerFailure, became);
  }
  // After the change of user, which clears it.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != plan.parent) {
    Fail(kWorkerFailure, {kExitNotSetUp, "PR_SET_PDEATHSIG", errno});
  }
  fexecve(kWorkerBinary, plan.arguments, plan.environment);
  // A user who has as many processes as he may have is told so only now.
  if (plan.user && errno == EAGAIN) Fail(kWorkerFailure, {kExitNotTheUser, "fexecve", errno});
  Fail(kWorkerFailure, {kExitNotExecuted, "fexecve", errno});
}

}  // namespace tiny_knn
