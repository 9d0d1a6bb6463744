// Replies and events as JSON.
#include <array>
#include <string>
#include <utility>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/json_members.h"
#include "daemon/protocol/json_object.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/warm_docs_members.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Json = nlohmann::json;

// `type` of a reply, in the order of ReplyBody's alternatives. An error has "ok": false instead.
constexpr std::array<std::string_view, std::variant_size_v<ReplyBody>> kReplyNames = {
    "error", "hello", "submit", "jobs", "subscribe", "log", "clean", "stats", "done"};

template <typename V>
void JobMember(V& v, const char* name, typename V::template Ref<JobView> job) {
  if constexpr (V::kReads) {
    const Json* const json = v.Find(name, Presence::kRequired);
    if (json == nullptr) return;
    absl::StatusOr<JobView> view = JobViewFromJson(*json);
    if (view.ok()) {
      job = *std::move(view);
    } else {
      v.Keep(absl::InvalidArgumentError(
          fmt::format("in `{}`: {}", v.NameOf(name), std::string(view.status().message()))));
    }
  } else {
    v.Put(name, JobViewToJson(job));
  }
}

template <typename V>
void Members(V& v, typename V::template Ref<ErrorReply> m) {
  v.Object("error", m, [](auto& inner, auto& error) {
    inner.Text("message", error.message, kMessageText);
    std::string code(ErrorCodeName(error.code));
    inner.Text("code", code, kAnyText);
    if constexpr (std::remove_reference_t<decltype(inner)>::kReads) {
      error.code = ParseErrorCode(code).value_or(ErrorCode::kInternal);
    }
  });
}

template <typename V>
void Members(V& v, typename V::template Ref<HelloReply> m) {
  v.Int("protocol", m.protocol, {1, kIntCount.most});
  v.Texts("features", m.features, kMessageText);
  v.Text("build", m.build, kMessageText);
  v.Int("uid", m.uid, kUid);
}

template <typename V>
void Members(V& v, typename V::template Ref<SubmitReply> m) {
  JobMember(v, "job", m.job);
  v.Bool("existed", m.existed);
}

// Reading only: EncodeJobs writes them.
void Members(MemberReader& v, JobsReply& m) {
  v.Bool("more", m.more);
  const Json* const jobs = v.Find("jobs", Presence::kRequired);
  if (jobs == nullptr) return;
  if (!jobs->is_array()) return v.Fail("jobs", "a list of jobs");
  for (const Json& json : *jobs) {
    absl::StatusOr<JobView> view = JobViewFromJson(json);
    if (!view.ok()) {
      return v.Keep(absl::InvalidArgumentError(
          fmt::format("in `jobs[{}]`: {}", m.jobs.size(), std::string(view.status().message()))));
    }
    m.jobs.push_back(*std::move(view));
  }
}

template <typename V>
void Members(V& v, typename V::template Ref<SubscribeReply> m) {
  v.Int("sequence", m.sequence, kAnyCount);
}

template <typename V>
void Members(V& v, typename V::template Ref<LogReply> m) {
  v.Text("text", m.text, kAnyText);
  v.Int("next_offset", m.next_offset, kAnyCount);
  v.Bool("finished", m.finished);
}

template <typename V>
void Members(V& v, typename V::template Ref<CleanReply> m) {
  v.Int("removed", m.removed, kAnyCount);
}

template <typename V>
void Members(V& v, typename V::template Ref<StatsReply> m) {
  v.Text("version", m.version, kMessageText);
  v.Int("pid", m.pid, kAnyCount);
  v.Int("uid", m.uid, kUid);
  v.Number("uptime_seconds", m.uptime_seconds);
  v.Text("device", m.device, kMessageText);
  v.Text("device_state", m.device_state, kMessageText);
  v.IntOrNull("running_uid", m.running_uid, kUid);
  v.Int("max_memory_bytes", m.max_memory_bytes, kAnyCount);
  v.Objects("warm_docs", m.warm_docs, kMostWarmDocs,
            [](auto& inner, auto& docs) { WarmDocsMembers(inner, docs); });
  v.Int("queued", m.queued, kAnyCount);
  v.Int("running", m.running, kAnyCount);
  v.Int("finished", m.finished, kAnyCount);
  v.Int("connections", m.connections, kAnyCount);
  v.Bool("draining", m.draining);
  v.Bool("stopping", m.stopping);
  v.Text("journal", m.journal, kMessageText);
  v.Text("socket_path", m.socket_path, kMessageText);
  v.Text("state_folder", m.state_folder, kMessageText);
}

template <typename V>
void Members(V& /*v*/, typename V::template Ref<EmptyReply> /*m*/) {}

// Written job by job, so that it is known where the line is full.
std::string EncodeJobs(int64_t id, const JobsReply& reply) {
  const std::string start = fmt::format(R"({{"id":{},"ok":true,"type":"jobs","jobs":[)", id);
  const std::string_view longest_end = R"(],"more":false})";
  std::string line = start;
  bool more = reply.more;
  for (const JobView& job : reply.jobs) {
    const std::string text = DumpJson(JobViewToJson(job));
    if (line.size() + 1 + text.size() + longest_end.size() > kMostLineBytes) {
      more = true;
      break;
    }
    if (line.size() > start.size()) line += ',';
    line += text;
  }
  return line + (more ? R"(],"more":true})" : longest_end.data());
}

absl::StatusOr<ServerMessage> ReadEvent(MemberReader& reader) {
  std::string event;
  reader.Text("event", event, kAnyText);
  if (reader.status().ok() && event != "job") {
    return absl::InvalidArgumentError("`event` has to be job");
  }
  JobEvent result;
  reader.Int("sequence", result.sequence, kAnyCount);
  JobMember(reader, "job", result.job);
  if (!reader.status().ok()) return reader.status();
  return result;
}

absl::StatusOr<ServerMessage> ReadReply(MemberReader& reader) {
  Reply reply;
  bool ok = false;
  reader.Int("id", reply.id, kAnyCount);
  reader.Bool("ok", ok);
  std::string type = "error";
  if (ok) reader.Text("type", type, kAnyText);
  if (!reader.status().ok()) return reader.status();
  std::optional<ReplyBody> body = AlternativeNamed<ReplyBody>(kReplyNames, type);
  if (!body || ok != (type != "error")) {
    return absl::InvalidArgumentError("`type` is no reply of this protocol");
  }
  std::visit([&reader](auto& decoded) { Members(reader, decoded); }, *body);
  if (!reader.status().ok()) return reader.status();
  reply.body = *std::move(body);
  return reply;
}

}  // namespace

std::string EncodeReply(const Reply& reply) {
  if (const auto* const jobs = std::get_if<JobsReply>(&reply.body)) {
    return EncodeJobs(reply.id, *jobs);
  }
  MemberWriter writer;
  std::visit(
      [&writer](const auto& body) {
        if constexpr (!std::is_same_v<std::decay_t<decltype(body)>, JobsReply>) {
          Members(writer, body);
        }
      },
      reply.body);
  const bool ok = !std::holds_alternative<ErrorReply>(reply.body);
  writer.Int("id", reply.id);
  writer.Bool("ok", ok);
  if (ok) writer.Put("type", std::string(kReplyNames[reply.body.index()]));
  return DumpJson(writer.Take());
}

std::string EncodeEvent(const JobEvent& event) {
  MemberWriter writer;
  writer.Put("event", "job");
  writer.Int("sequence", event.sequence);
  JobMember(writer, "job", event.job);
  return DumpJson(writer.Take());
}

absl::StatusOr<ServerMessage> DecodeServerMessage(std::string_view line) {
  const absl::StatusOr<Json> json = ParseJsonObject(line);
  if (!json.ok()) return json.status();
  MemberReader reader(*json);
  return json->contains("event") ? ReadEvent(reader) : ReadReply(reader);
}

}  // namespace tiny_knn
