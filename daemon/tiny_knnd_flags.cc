#include "daemon/tiny_knnd_flags.h"

#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "core/job/machine_limits.h"
#include "core/job/version.h"
#include "daemon/protocol/daemon_paths.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// (gid_t)-1 means "leave as it is" to the system's calls, so it is nobody's.
constexpr int64_t kMostGid = 4294967294;
constexpr int64_t kMostSeconds = 1000000000;

absl::Status FillInPaths(SupervisorOptions& options) {
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
  return CheckSocketPath(options.socket_path);
}

}  // namespace

absl::StatusOr<SupervisorFlags> ParseSupervisorFlags(int argc, char** argv) {
  SupervisorFlags flags;
  SupervisorOptions& options = flags.options;
  int64_t idle_release = options.idle_release.count();
  int64_t grace = options.grace.count();
  int64_t group = -1;
  int64_t admin_group = -1;
  CLI::App app("tiny-knnd: the queue's keeper; 'tiny-knn daemon --help' describes it");
  app.set_version_flag("--version", fmt::format("tiny-knnd {}", kTinyKnnVersion));
  app.add_option("--socket", options.socket_path);
  app.add_option("--state-dir", options.state_folder);
  app.add_option("--device", options.device);
  app.add_option("--max-memory", options.max_memory_bytes)->check(CLI::PositiveNumber);
  app.add_option("--max-warm-memory", options.max_warm_bytes)->check(CLI::PositiveNumber);
  app.add_option("--threads", options.most_threads)->check(CLI::NonNegativeNumber);
  app.add_option("--max-time", options.max_seconds)->check(CLI::Range(int64_t{0}, kMostSeconds));
  app.add_option("--idle-release", idle_release)->check(CLI::Range(int64_t{0}, kMostSeconds));
  app.add_option("--grace", grace)->check(CLI::Range(int64_t{0}, kMostSeconds));
  // Numbers: this process never asks who is who.
  app.add_option("--group", group)->check(CLI::Range(int64_t{0}, kMostGid));
  app.add_option("--admin-group", admin_group)->check(CLI::Range(int64_t{0}, kMostGid));
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
  if (group >= 0) options.group = static_cast<gid_t>(group);
  if (admin_group >= 0) options.admin_group = static_cast<gid_t>(admin_group);
  if ((options.group || options.admin_group) && geteuid() != 0) {
    return absl::InvalidArgumentError(
        "--group and --admin-group are for a daemon of root; one that is not root serves its own "
        "user only");
  }
  flags.names_socket = !options.socket_path.empty();
  const absl::Status status = FillInPaths(options);
  if (!status.ok()) return status;
  if (options.max_memory_bytes == 0) {
    options.max_memory_bytes = DefaultMemoryLimit(AvailableMemoryBytes());
  }
  return flags;
}

}  // namespace tiny_knn
