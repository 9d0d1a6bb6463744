#include "cli/daemon_flags.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "cli/daemon_connection.h"
#include "cli/values.h"
#include "core/job/job_spec.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Text = std::optional<std::string>;

struct StartTexts {
  Text socket, state_dir, device, max_memory, threads, idle_release, grace;
  bool background = false;
};

void Declare(FlagParser& parser, StartTexts& texts) {
  parser.Switch("--background", &texts.background);
  parser.Value("--socket", &texts.socket);
  parser.Value("--state-dir", &texts.state_dir);
  parser.Value("--device", &texts.device);
  parser.Value("--max-memory", &texts.max_memory);
  parser.Value("--threads", &texts.threads);
  parser.Value("--idle-release", &texts.idle_release);
  parser.Value("--grace", &texts.grace);
}

std::string Absolute(const std::string& path, const std::string& folder) {
  if (path.starts_with('/')) return path;
  return fmt::format("{}{}{}", folder, folder.ends_with('/') ? "" : "/", path);
}

}  // namespace

absl::StatusOr<DaemonStart> ParseDaemonFlags(const std::vector<std::string>& args,
                                             const std::string& folder) {
  FlagParser parser("daemon", "[flags]");
  StartTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  DaemonStart start;
  start.help = parser.help_wanted();
  if (start.help) return start;

  const auto pass = [&](const char* flag, std::string value) {
    start.arguments.emplace_back(flag);
    start.arguments.push_back(std::move(value));
  };
  const auto pass_number = [&](const char* flag, const absl::StatusOr<int64_t>& value) {
    if (value.ok()) {
      pass(flag, fmt::format("{}", *value));
    } else if (status.ok()) {
      status = value.status();
    }
  };
  if (texts.socket) {
    const std::string path = texts.socket->empty() ? "" : Absolute(*texts.socket, folder);
    status = CheckSocketFlag(path, *texts.socket);
    if (!status.ok()) return status;
    pass("--socket", path);
  }
  if (texts.state_dir) {
    if (texts.state_dir->empty()) {
      return absl::InvalidArgumentError("--state-dir expects a folder, found ''");
    }
    pass("--state-dir", Absolute(*texts.state_dir, folder));
  }
  if (texts.device) {
    status = CheckDevice("--device", *texts.device);
    if (!status.ok()) return status;
    pass("--device", *texts.device);
  }
  if (texts.max_memory) pass_number("--max-memory", ParseSize("--max-memory", *texts.max_memory));
  if (texts.threads) {
    pass_number("--threads", ParseCount("--threads", *texts.threads, 1, kMostThreads));
  }
  if (texts.idle_release) {
    pass_number("--idle-release", ParseDuration("--idle-release", *texts.idle_release));
  }
  if (texts.grace) pass_number("--grace", ParseDuration("--grace", *texts.grace));
  if (!status.ok()) return status;
  if (texts.background) start.arguments.emplace_back("--background");
  return start;
}

std::vector<FlagParser::Flag> ListDaemonFlags() { return DeclaredFlags<StartTexts>(Declare); }

}  // namespace tiny_knn
