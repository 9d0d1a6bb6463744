// What every verb that talks to the daemon starts with: where its socket lies, a connection, and
// the names of users.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/job_view.h"
#include "nlohmann/json_fwd.hpp"

namespace tiny_knn {

// The flags that all of these verbs have.
struct DaemonTexts {
  std::optional<std::string> socket;
};
void DeclareDaemonFlags(FlagParser& parser, DaemonTexts& texts);

// OK for a path that a socket may have; else InvalidArgument that names --socket and what was
// `typed`.
absl::Status CheckSocketFlag(const std::string& path, const std::string& typed);

bool SignalCaught();

// Connects to the daemon of --socket, else to the first that listens where one may. Errors as
// DaemonClient::Connect. `interrupted` ends every wait; by default a caught signal does.
absl::StatusOr<std::unique_ptr<DaemonClient>> ConnectToDaemon(
    const DaemonTexts& texts, std::function<bool()> interrupted = SignalCaught);

// The same, without waiting for the answer to hello: DaemonClient::Greet does that.
absl::StatusOr<std::unique_ptr<DaemonClient>> BeginToConnect(
    const DaemonTexts& texts, std::function<bool()> interrupted = SignalCaught);

// Connects for this one request. Errors as ConnectToDaemon and DaemonClient::Call.
template <typename ReplyType>
absl::StatusOr<ReplyType> AskDaemon(const DaemonTexts& texts, RequestBody request) {
  const absl::StatusOr<std::unique_ptr<DaemonClient>> client = ConnectToDaemon(texts);
  if (!client.ok()) return client.status();
  return (*client)->Call<ReplyType>(std::move(request));
}

// Keeps trying to connect until `give_up`: by default for as long as a daemon may take to start
// again. One that is there but does not answer is tried again too, the last time at most for one
// reply_timeout more. `interrupted` as above.
inline constexpr std::chrono::seconds kReconnectFor(60);
absl::StatusOr<std::unique_ptr<DaemonClient>> ReconnectToDaemon(
    const DaemonTexts& texts, const std::function<bool()>& interrupted,
    std::chrono::steady_clock::time_point give_up = std::chrono::steady_clock::now() +
                                                    kReconnectFor);

// Whether another connection may help: nobody is there, or nobody answers.
bool MayReconnect(const absl::Status& status);

// Whether it is the connection that failed, where a call gave Unavailable: a daemon that refuses
// work answers the next call, a broken connection does not.
bool ConnectionIsBroken(DaemonClient& client);

// User names by number, each asked for once. Thread-compatible.
class UserNames {
 public:
  // The name, or the number in decimal where the system knows none.
  const std::string& Of(int64_t uid);

 private:
  std::map<int64_t, std::string> names_;
};

// Whose job runs; empty when none does, or one of our own.
std::string RunningUser(const StatsReply& stats, UserNames& users);

// The job with a reason to wait that people can read: the daemon's own if it gives one, else whose
// jobs are before it.
JobView WithReason(JobView job, UserNames& users);

// JobViewToJson of WithReason, with a member "user" more.
nlohmann::json JobToJson(const JobView& job, UserNames& users);
std::string JobsToJsonArray(const std::vector<JobView>& jobs, UserNames& users);  // one line

// Job ids as typed: positive decimal numbers. `usage` is said when there are none.
absl::StatusOr<std::vector<int64_t>> ParseJobIds(const std::vector<std::string>& words,
                                                 const std::string& usage);

// Why a finished job came to nothing, with the code that it has here and now; OK for one that is
// done. REQUIRES: the job is finished.
absl::Status JobStatus(const JobView& job);

}  // namespace tiny_knn
