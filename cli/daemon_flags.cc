#include "cli/daemon_flags.h"

#include <cctype>
#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "cli/daemon_connection.h"
#include "cli/values.h"
#include "core/job/job_spec.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Text = std::optional<std::string>;

// The one after it means "no group" to the system's calls.
constexpr int64_t kMostGid = 4294967294;

struct StartTexts {
  Text socket, state_dir, device, max_memory, max_warm_memory, threads, max_time, idle_release,
      grace, group, admin_group;
  bool background = false;
};

void Declare(FlagParser& parser, StartTexts& texts) {
  parser.Switch("--background", &texts.background);
  parser.Value("--socket", &texts.socket);
  parser.Value("--state-dir", &texts.state_dir);
  parser.Value("--device", &texts.device);
  parser.Value("--max-memory", &texts.max_memory);
  parser.Value("--max-warm-memory", &texts.max_warm_memory);
  parser.Value("--threads", &texts.threads);
  parser.Value("--max-time", &texts.max_time);
  parser.Value("--idle-release", &texts.idle_release);
  parser.Value("--grace", &texts.grace);
  parser.Value("--group", &texts.group);
  parser.Value("--admin-group", &texts.admin_group);
}

std::string Absolute(const std::string& path, const std::string& folder) {
  if (path.starts_with('/')) return path;
  return fmt::format("{}{}{}", folder, folder.ends_with('/') ? "" : "/", path);
}

// What a daemon of root is told about a group: that of `text`, a name or a number; without a text
// that of `fallback`, if there is one.
absl::StatusOr<std::optional<int64_t>> ResolveGroup(const char* flag, const Text& text,
                                                    const char* fallback,
                                                    const DaemonSurroundings& surroundings) {
  if (!surroundings.is_root) {
    if (!text) return std::nullopt;
    return absl::InvalidArgumentError(fmt::format(
        "{} is for a daemon of root, which serves other users; yours serves you", flag));
  }
  const std::optional<gid_t> found = surroundings.find_group(text.value_or(fallback));
  if (found) return static_cast<int64_t>(*found);
  if (!text) return std::nullopt;
  // A group may be called 100, so names come first.
  const absl::StatusOr<int64_t> number = ParseCount(flag, *text, 0, kMostGid);
  if (number.ok()) return *number;
  const bool is_name =
      !text->empty() &&
      (std::isalpha(static_cast<unsigned char>(text->front())) != 0 || text->front() == '_');
  if (!is_name) return number.status();
  return absl::InvalidArgumentError(
      fmt::format("{} {}: there is no group of that name; make it with: groupadd --system {}", flag,
                  *text, *text));
}

}  // namespace

absl::StatusOr<DaemonStart> ParseDaemonFlags(const std::vector<std::string>& args,
                                             const std::string& folder,
                                             const DaemonSurroundings& surroundings) {
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
  if (texts.max_warm_memory) {
    pass_number("--max-warm-memory", ParseSize("--max-warm-memory", *texts.max_warm_memory));
  }
  if (texts.threads) {
    pass_number("--threads", ParseCount("--threads", *texts.threads, 1, kMostThreads));
  }
  if (texts.max_time) {
    const absl::StatusOr<int64_t> seconds = ParseDuration("--max-time", *texts.max_time);
    if (seconds.ok() && *seconds == 0) {
      return absl::InvalidArgumentError("--max-time expects at least 1s, found 0");
    }
    pass_number("--max-time", seconds);
  }
  if (texts.idle_release) {
    pass_number("--idle-release", ParseDuration("--idle-release", *texts.idle_release));
  }
  if (texts.grace) pass_number("--grace", ParseDuration("--grace", *texts.grace));
  if (!status.ok()) return status;
  for (const auto& [flag, text, fallback] :
       {std::tuple("--group", texts.group, kDefaultGroup),
        std::tuple("--admin-group", texts.admin_group, kDefaultAdminGroup)}) {
    const auto group = ResolveGroup(flag, text, fallback, surroundings);
    if (!group.ok()) return group.status();
    if (*group) pass(flag, fmt::format("{}", **group));
  }
  if (texts.background) start.arguments.emplace_back("--background");
  return start;
}

std::vector<FlagParser::Flag> ListDaemonFlags() { return DeclaredFlags<StartTexts>(Declare); }

}  // namespace tiny_knn
