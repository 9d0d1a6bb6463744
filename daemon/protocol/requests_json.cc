// Requests as JSON.
#include <array>
#include <string>
#include <utility>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/json_members.h"
#include "daemon/protocol/json_object.h"
#include "daemon/protocol/line_decoder.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// In the order of RequestBody's alternatives.
constexpr std::array<std::string_view, std::variant_size_v<RequestBody>> kRequestNames = {
    "hello",  "submit", "status", "list",  "wait",  "subscribe",
    "cancel", "log",    "clean",  "stats", "drain", "shutdown"};

constexpr auto kOptional = Presence::kOptional;

template <typename V>
void Members(V& v, typename V::template Ref<HelloRequest> m) {
  v.IntRange("protocol", m.least_protocol, m.greatest_protocol);
  v.Text("client", m.client, kNameText, kOptional);
}

template <typename V>
void ShapeMembers(V& v, typename V::template Ref<JobShape> m) {
  v.Int("queries", m.num_queries, kAnyCount, kOptional);
  v.Int("docs", m.num_docs, kAnyCount, kOptional);
  v.Int("dim", m.dim, kAnyCount, kOptional);
  v.Int("k", m.k, kAnyCount, kOptional);
  v.Int("docs_bytes", m.docs_bytes, kAnyCount, kOptional);
}

template <typename V>
void Members(V& v, typename V::template Ref<SubmitRequest> m) {
  v.Text("key", m.key, kAnyText);
  v.Int("priority", m.priority, {kLeastPriority, kGreatestPriority}, kOptional);
  v.Int("timeout_seconds", m.timeout_seconds, {0, kMostTimeoutSeconds}, kOptional);
  v.Spec("spec", m.spec);
  v.Object(
      "shape", m.shape, [](auto& inner, auto& shape) { ShapeMembers(inner, shape); }, kOptional);
}

template <typename V>
void Members(V& v, typename V::template Ref<StatusRequest> m) {
  v.Ids("jobs", m.jobs, kMostJobsPerRequest);
}

template <typename V>
void Members(V& v, typename V::template Ref<ListRequest> m) {
  v.Bool("finished", m.finished, kOptional);
  v.Bool("everyone", m.everyone, kOptional);
  v.Int("after_job", m.after_job, kAnyCount, kOptional);
  v.Int("limit", m.limit, {1, kMostJobsPerRequest}, kOptional);
}

template <typename V>
void Members(V& v, typename V::template Ref<WaitRequest> m) {
  v.Ids("jobs", m.jobs, kMostJobsPerRequest);
}

template <typename V>
void Members(V& v, typename V::template Ref<SubscribeRequest> m) {
  v.Ids("jobs", m.jobs, kMostJobsPerRequest, kOptional);
}

template <typename V>
void Members(V& v, typename V::template Ref<CancelRequest> m) {
  v.Ids("jobs", m.jobs, kMostJobsPerRequest);
}

template <typename V>
void Members(V& v, typename V::template Ref<LogRequest> m) {
  v.Int("job", m.job, kAnyJob);
  v.Int("offset", m.offset, kAnyCount, kOptional);
}

template <typename V>
void Members(V& /*v*/, typename V::template Ref<CleanRequest> /*m*/) {}

template <typename V>
void Members(V& /*v*/, typename V::template Ref<StatsRequest> /*m*/) {}

template <typename V>
void Members(V& v, typename V::template Ref<DrainRequest> m) {
  v.Bool("undo", m.undo, kOptional);
}

template <typename V>
void Members(V& v, typename V::template Ref<ShutdownRequest> m) {
  v.Bool("now", m.now, kOptional);
}

// ---- What the members have to be together -------------------------------------------------------

absl::Status Check(const SubmitRequest& submit) {
  bool legal = !submit.key.empty() && submit.key.size() <= kMostKeyBytes;
  for (const char c : submit.key) legal = legal && c > ' ' && c <= '~';
  if (!legal) {
    return absl::InvalidArgumentError(fmt::format(
        "`key` has to be 1 to {} printable ASCII characters without spaces", kMostKeyBytes));
  }
  // The daemon has no folder of the client's, and the queue names the file that will be there.
  const JobSpec& spec = submit.spec;
  if (spec.output_path.empty()) {
    return absl::InvalidArgumentError("in `spec`: `output` is missing");
  }
  if (spec.working_folder.empty()) {
    for (const std::string* path :
         {&spec.queries_path, &spec.docs_path, &spec.output_path, &spec.checkpoint_path}) {
      if (path->starts_with('/') || path->empty()) continue;
      return absl::InvalidArgumentError(
          "in `spec`: a path is relative, so `working_folder` has to say where it starts");
    }
  }
  return absl::OkStatus();
}

template <typename Body>
absl::Status Check(const Body& /*body*/) {
  return absl::OkStatus();
}

RequestError Refuse(int64_t id, ErrorCode code, std::string message) {
  return {.id = id, .error = {.code = code, .message = std::move(message)}};
}

}  // namespace

std::string_view RequestName(const RequestBody& body) { return kRequestNames[body.index()]; }

absl::StatusOr<std::string> EncodeRequest(const Request& request) {
  MemberWriter writer;
  std::visit([&writer](const auto& body) { Members(writer, body); }, request.body);
  if (!writer.status().ok()) return writer.status();
  writer.Int("id", request.id);
  writer.Put("type", std::string(RequestName(request.body)));
  std::string line = DumpJson(writer.Take());
  if (line.size() > kMostLineBytes) {
    return absl::InvalidArgumentError(
        fmt::format("the request has {} bytes, and a daemon reads at most {}; shorten its paths",
                    line.size(), kMostLineBytes));
  }
  return line;
}

std::variant<Request, RequestError> DecodeRequest(std::string_view line) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(line);
  if (!json.ok()) {
    return Refuse(0, ErrorCode::kBadRequest, std::string(json.status().message()));
  }
  MemberReader reader(*json);
  int64_t id = 0;
  reader.Int("id", id, {.least = 1});
  std::string type;
  reader.Text("type", type, kAnyText);
  if (!reader.status().ok()) {
    return Refuse(id, ErrorCode::kBadRequest, std::string(reader.status().message()));
  }
  std::optional<RequestBody> body = AlternativeNamed<RequestBody>(kRequestNames, type);
  if (!body) {
    return Refuse(id, ErrorCode::kBadRequest,
                  fmt::format("`type` has to be one of {}", fmt::join(kRequestNames, ", ")));
  }
  absl::Status status = std::visit(
      [&reader](auto& decoded) {
        Members(reader, decoded);
        return reader.status().ok() ? Check(decoded) : reader.status();
      },
      *body);
  if (!status.ok()) {
    return Refuse(id, absl::IsOutOfRange(status) ? ErrorCode::kTooManyJobs : ErrorCode::kBadRequest,
                  fmt::format("{}: {}", type, std::string(status.message())));
  }
  return Request{.id = id, .body = *std::move(body)};
}

}  // namespace tiny_knn
