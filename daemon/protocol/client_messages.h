// What clients and the supervisor say to each other: one JSON object a line each, as
// docs/protocol.md gives them. Decoders take any bytes; encoders take any values and replace bytes
// that are no UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/job/job_spec.h"
#include "daemon/protocol/job_view.h"

namespace tiny_knn {

inline constexpr int kLeastProtocol = 1;
inline constexpr int kGreatestProtocol = 1;

// What a request may say.
inline constexpr int64_t kMostJobsPerRequest = 1000;  // ids, and jobs of a list
inline constexpr size_t kMostKeyBytes = 128;
inline constexpr int kLeastPriority = -100;
inline constexpr int kGreatestPriority = 100;
inline constexpr int64_t kMostTimeoutSeconds = 100'000'000;  // three years, in any clock's range

// ---- Errors -------------------------------------------------------------------------------------

enum class ErrorCode {
  kBadRequest,  // not a request that this protocol knows, or a value that cannot be
  kUnsupportedProtocol,
  kUnknownJob,
  kNotAllowed,   // another user's daemon, what only its administrators may, more than its limits
  kKeyConflict,  // the key belongs to a job with another spec
  kQueueFull,    // this user's limit of queued jobs
  kTooManyConnections,
  kTooManyJobs,    // more ids in one request than are answered, or waited for than may be
  kDraining,       // no new jobs
  kStopping,       // the daemon is about to end
  kJournalFull,    // no disk space to promise anything
  kJournalFailed,  // the disk failed; nothing is accepted until the daemon is started again
  kInternal,
};
std::string_view ErrorCodeName(ErrorCode code);  // "bad_request", ...
std::optional<ErrorCode> ParseErrorCode(std::string_view name);

struct ErrorReply {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;  // one line: what, and what to do
};
// As the rest of the program handles it: kQueueFull and kJournalFull become ResourceExhausted,
// kUnknownJob NotFound, kNotAllowed PermissionDenied, kDraining and kStopping Unavailable, ...
absl::Status ToStatus(const ErrorReply& error);

// ---- Requests -----------------------------------------------------------------------------------

struct HelloRequest {  // first on every connection
  int least_protocol = kLeastProtocol;
  int greatest_protocol = kGreatestProtocol;
  std::string client;  // "tiny-knn 0.1.0", for the log
};
struct SubmitRequest {
  std::string key;   // chosen by the client, 1 to 128 bytes of printable ASCII: one key, one job
  int priority = 0;  // -100 to 100, greater runs earlier
  int64_t timeout_seconds = 0;  // of running, then it fails; 0: none
  JobSpec spec;                 // with output_path, k and an absolute working_folder filled in
  JobShape shape;
};
struct StatusRequest {  // these jobs; unknown_job if one is not there
  std::vector<int64_t> jobs;
};
struct ListRequest {      // this user's jobs (root: everyone's), oldest first
  bool finished = true;   // also those that are done, failed or cancelled
  bool everyone = false;  // also those of other users, redacted
  int64_t after_job = 0;  // only ids greater than this: how to page
  int64_t limit = 1000;   // 1 to 1000
};
struct WaitRequest {  // answered when all of them are finished
  std::vector<int64_t> jobs;
};
struct SubscribeRequest {     // events from now on, after one event for each job as it is now
  std::vector<int64_t> jobs;  // empty: all of this user
};
struct CancelRequest {
  std::vector<int64_t> jobs;
};
struct LogRequest {
  int64_t job = 0;
  int64_t offset = 0;  // bytes to skip
};
struct CleanRequest {};  // forgets this user's finished jobs and their logs
struct StatsRequest {};
struct DrainRequest {
  bool undo = false;  // accept jobs again
};
struct ShutdownRequest {
  bool now = false;  // do not wait for the running job: it is queued again
};

using RequestBody = std::variant<HelloRequest, SubmitRequest, StatusRequest, ListRequest,
                                 WaitRequest, SubscribeRequest, CancelRequest, LogRequest,
                                 CleanRequest, StatsRequest, DrainRequest, ShutdownRequest>;
struct Request {
  int64_t id = 0;  // chosen by the client, echoed by the reply
  RequestBody body;
};
std::string_view RequestName(const RequestBody& body);  // "hello", "submit", ...

// One line without its line end. InvalidArgument as JobSpecToJson.
absl::StatusOr<std::string> EncodeRequest(const Request& request);
// What went wrong, with the id to answer to if one could be read (0 otherwise).
struct RequestError {
  int64_t id = 0;
  ErrorReply error;
};
// A submit is refused here already when its spec names no output, or a relative path but no working
// folder.
std::variant<Request, RequestError> DecodeRequest(std::string_view line);

// ---- Replies ------------------------------------------------------------------------------------

struct HelloReply {
  int protocol = kGreatestProtocol;
  std::vector<std::string> features;
  std::string build;
  int64_t uid = 0;  // whom the daemon serves and runs as
};
struct SubmitReply {
  JobView job;
  bool existed = false;  // the key was known: this is that job
};
struct JobsReply {  // to status, list, wait and cancel
  std::vector<JobView> jobs;
  bool more = false;  // there are more after these; EncodeReply sets it where not all fit a line
};
struct SubscribeReply {
  int64_t sequence = 0;  // of the last event before the subscription
};
struct LogReply {
  std::string text;         // at most 256 KiB of whole lines
  int64_t next_offset = 0;  // where to go on
  bool finished = false;    // nothing will follow next_offset
};
struct CleanReply {
  int64_t removed = 0;
};
struct WarmDocsStats {
  std::string docs_path;
  std::string dtype;
  std::string metric;
  int64_t bytes = 0;
};
struct StatsReply {
  std::string version;
  int64_t pid = 0;
  int64_t uid = 0;
  double uptime_seconds = 0;
  std::string device;                  // "cpu", "cuda:0"
  std::string device_state;            // "idle", "job 12", "released"
  std::optional<int64_t> running_uid;  // whose job runs
  int64_t max_memory_bytes = 0;
  std::vector<WarmDocsStats> warm_docs;           // those that the asker may see
  int64_t queued = 0, running = 0, finished = 0;  // jobs of all users
  int64_t connections = 0;
  bool draining = false;
  bool stopping = false;
  std::string journal;  // "ok", or why nothing is accepted
  std::string socket_path;
  std::string state_folder;
};
struct EmptyReply {};  // to drain and shutdown

using ReplyBody = std::variant<ErrorReply, HelloReply, SubmitReply, JobsReply, SubscribeReply,
                               LogReply, CleanReply, StatsReply, EmptyReply>;
struct Reply {
  int64_t id = 0;
  ReplyBody body;
};

// To subscribers. `sequence` grows by one an event; a gap means that events about the same job were
// coalesced, never that the last state of a job is missing.
struct JobEvent {
  int64_t sequence = 0;
  JobView job;
};

// One line without its line end, never longer than kMostLineBytes for values that came in through
// the decoders: of a JobsReply the first jobs that fit, with `more`.
std::string EncodeReply(const Reply& reply);
std::string EncodeEvent(const JobEvent& event);

// What a client reads. InvalidArgument for a line that is neither. An error code that this build
// does not know is kInternal, its message kept.
using ServerMessage = std::variant<Reply, JobEvent>;
absl::StatusOr<ServerMessage> DecodeServerMessage(std::string_view line);

}  // namespace tiny_knn
