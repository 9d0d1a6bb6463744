#include "cli/daemon_connection.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <thread>
#include <utility>

#include "cli/interrupt.h"
#include "cli/values.h"
#include "cli/waiting_reason.h"
#include "core/job/one_line.h"
#include "core/job/version.h"
#include "daemon/protocol/daemon_paths.h"
#include "daemon/protocol/status_code_name.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

constexpr std::chrono::milliseconds kBetweenAttempts(100);

const char* ReadEnvironment(const char* name) { return std::getenv(name); }

}  // namespace

void DeclareDaemonFlags(FlagParser& parser, DaemonTexts& texts) {
  parser.Value("--socket", &texts.socket);
}

absl::Status CheckSocketFlag(const std::string& path, const std::string& typed) {
  const absl::Status status = CheckSocketPath(path);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      fmt::format("--socket {}: {}", OneLine(typed), std::string(status.message())));
}

bool SignalCaught() { return CaughtSignal() != 0; }

absl::StatusOr<std::unique_ptr<DaemonClient>> BeginToConnect(const DaemonTexts& texts,
                                                             std::function<bool()> interrupted) {
  DaemonClient::Options options;
  if (texts.socket) {
    absl::Status status = CheckSocketFlag(*texts.socket, *texts.socket);
    if (!status.ok()) return status;
    options.socket_paths = {*texts.socket};
  } else {
    options.socket_paths = SocketsToTry(geteuid() == 0, ReadEnvironment);
  }
  options.client_name = fmt::format("tiny-knn {}", kTinyKnnVersion);
  options.interrupted = std::move(interrupted);
  return DaemonClient::Begin(options);
}

absl::StatusOr<std::unique_ptr<DaemonClient>> ConnectToDaemon(const DaemonTexts& texts,
                                                              std::function<bool()> interrupted) {
  absl::StatusOr<std::unique_ptr<DaemonClient>> client =
      BeginToConnect(texts, std::move(interrupted));
  if (!client.ok()) return client;
  absl::Status status = (*client)->Greet();
  if (!status.ok()) return status;
  return client;
}

absl::StatusOr<std::unique_ptr<DaemonClient>> ReconnectToDaemon(
    const DaemonTexts& texts, const std::function<bool()>& interrupted,
    std::chrono::steady_clock::time_point give_up) {
  while (true) {
    absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts, interrupted);
    // Anything else does not pass by waiting.
    if (!MayReconnect(client.status()) || std::chrono::steady_clock::now() >= give_up) {
      return client;
    }
    if (interrupted()) return absl::CancelledError("interrupted");
    std::this_thread::sleep_for(kBetweenAttempts);
  }
}

bool MayReconnect(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

bool ConnectionIsBroken(DaemonClient& client) {
  return !client.Call<StatsReply>(StatsRequest{}).ok();
}

const std::string& UserNames::Of(int64_t uid) {
  const auto [entry, is_new] = names_.try_emplace(uid);
  if (!is_new) return entry->second;
  entry->second = fmt::format("{}", uid);
  if (uid < 0 || uid > std::numeric_limits<uid_t>::max()) return entry->second;
  std::vector<char> buffer(4096);
  struct passwd user {};
  struct passwd* found = nullptr;
  int error = 0;
  while ((error = getpwuid_r(static_cast<uid_t>(uid), &user, buffer.data(), buffer.size(),
                             &found)) == ERANGE &&
         buffer.size() < 1024 * 1024) {
    buffer.resize(buffer.size() * 2);
  }
  if (error == 0 && found != nullptr) entry->second = found->pw_name;
  return entry->second;
}

std::string RunningUser(const StatsReply& stats, UserNames& users) {
  if (!stats.running_uid || *stats.running_uid == static_cast<int64_t>(geteuid())) return "";
  return users.Of(*stats.running_uid);
}

JobView WithReason(JobView job, UserNames& users) {
  if (job.state == JobState::kQueued && job.reason.empty()) {
    job.reason = BehindText(job.jobs_before, static_cast<int64_t>(geteuid()),
                            [&users](int64_t uid) { return users.Of(uid); });
  }
  return job;
}

nlohmann::json JobToJson(const JobView& job, UserNames& users) {
  nlohmann::json json = JobViewToJson(WithReason(job, users));
  json["user"] = users.Of(job.uid);
  return json;
}

std::string JobsToJsonArray(const std::vector<JobView>& jobs, UserNames& users) {
  nlohmann::json array = nlohmann::json::array();
  for (const JobView& job : jobs) array.push_back(JobToJson(job, users));
  return array.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::vector<int64_t>> ParseJobIds(const std::vector<std::string>& words,
                                                 const std::string& usage) {
  if (words.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("missing ID; usage: tiny-knn {} ('tiny-knn status' lists jobs)", usage));
  }
  std::vector<int64_t> ids;
  for (const std::string& word : words) {
    const absl::StatusOr<int64_t> id = ParseCount("a job's ID", word, 1);
    if (!id.ok()) return id.status();
    ids.push_back(*id);
  }
  return ids;
}

absl::Status JobStatus(const JobView& job) {
  if (job.state == JobState::kDone) return absl::OkStatus();
  absl::StatusCode code = ParseStatusCode(job.error_code).value_or(absl::StatusCode::kUnknown);
  if (code == absl::StatusCode::kOk) code = absl::StatusCode::kUnknown;
  if (job.state == JobState::kCancelled) code = absl::StatusCode::kCancelled;
  const std::string why = job.error.empty() ? std::string(JobStateName(job.state)) : job.error;
  return absl::Status(code, fmt::format("job {}: {}", job.id, why));
}

}  // namespace tiny_knn
