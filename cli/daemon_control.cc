// `tiny-knn drain` and `shutdown`: what the daemon's owner tells it.
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/daemon_connection.h"
#include "cli/interrupt.h"
#include "cli/verbs.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kDrainHelp =
    R"(tiny-knn drain: no new jobs; the daemon ends after the last one

usage: tiny-knn drain [--undo] [--socket P]

Jobs that are queued or running go on; the daemon ends when the queue is empty.
For the daemon's owner and root only.

      --undo        takes new jobs again
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn drain
)";

const std::string_view kShutdownHelp =
    R"(tiny-knn shutdown: end the daemon; its queue is kept

usage: tiny-knn shutdown [--now] [--socket P]

The running job is finished first, for as long as the daemon's --grace allows;
then it is stopped and queued again. Queued jobs run when the daemon is started
again. Returns when the daemon has ended; Ctrl-C stops the waiting only. For the
daemon's owner and root only.

      --now         stops the running job at once and queues it again
      --socket P    the daemon's socket (default: yours, else the system's)
  -h, --help        this page

example: tiny-knn shutdown
)";

namespace {

constexpr std::chrono::seconds kBetweenLooks(1);

struct DrainTexts {
  DaemonTexts daemon;
  bool undo = false;
};

void DeclareDrain(FlagParser& parser, DrainTexts& texts) {
  parser.Switch("--undo", &texts.undo);
  DeclareDaemonFlags(parser, texts.daemon);
}

struct ShutdownTexts {
  DaemonTexts daemon;
  bool now = false;
};

void DeclareShutdown(FlagParser& parser, ShutdownTexts& texts) {
  parser.Switch("--now", &texts.now);
  DeclareDaemonFlags(parser, texts.daemon);
}

}  // namespace

absl::Status DrainVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("drain", "[flags]");
  DrainTexts texts;
  DeclareDrain(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kDrainHelp, console)) return status;
  CatchInterrupts();
  status = AskDaemon<EmptyReply>(texts.daemon, DrainRequest{.undo = texts.undo}).status();
  if (!status.ok()) return status;
  console.Note(texts.undo ? "the daemon takes new jobs again"
                          : "the daemon takes no new jobs and ends after the last one it has; "
                            "'tiny-knn drain --undo' takes that back");
  return absl::OkStatus();
}

absl::Status ShutdownVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("shutdown", "[flags]");
  ShutdownTexts texts;
  DeclareShutdown(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kShutdownHelp, console)) return status;
  CatchInterrupts();
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts.daemon);
  if (!client.ok()) return client.status();
  status = (*client)->Call<EmptyReply>(ShutdownRequest{.now = texts.now}).status();
  if (!status.ok()) return status;
  // The connection ends with the daemon, which may say so before.
  while (status.ok() || (absl::IsUnavailable(status) && !ConnectionIsBroken(**client))) {
    status = (*client)->NextEvent(kBetweenLooks).status();
  }
  if (absl::IsCancelled(status)) {
    return absl::CancelledError("interrupted; the daemon still ends when its running job has");
  }
  if (!absl::IsUnavailable(status)) return status;
  console.Note("the daemon has ended; its queue is kept");
  return absl::OkStatus();
}

VerbFlags DrainVerbFlags() { return DeclaredFlags<DrainTexts>(DeclareDrain); }
VerbFlags ShutdownVerbFlags() { return DeclaredFlags<ShutdownTexts>(DeclareShutdown); }

}  // namespace tiny_knn
