#include "daemon/protocol/worker_messages.h"

#include <array>
#include <utility>

#include "daemon/protocol/json_members.h"
#include "daemon/protocol/json_object.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/status_code_name.h"
#include "daemon/protocol/warm_docs_members.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// In the order of the alternatives.
constexpr std::array<std::string_view, std::variant_size_v<ToWorker>> kToWorkerNames = {
    "run", "cancel", "remove"};
constexpr std::array<std::string_view, std::variant_size_v<FromWorker>> kFromWorkerNames = {
    "hello", "alive", "progress", "log", "finished", "removed"};

template <typename V>
void Members(V& v, typename V::template Ref<WorkerRun> m) {
  v.Int("job", m.job, kAnyJob);
  v.Int("attempt", m.attempt, kIntCount);
  v.Text("temporary_tag", m.temporary_tag, kNameText);
  v.Int("most_memory_bytes", m.most_memory_bytes, kAnyCount);
  v.Int("most_warm_bytes", m.most_warm_bytes, kAnyCount);
  v.Int("most_threads", m.most_threads, kIntCount);
  v.Spec("spec", m.spec);
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerCancel> m) {
  v.Int("job", m.job, kAnyJob);
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerRemove> m) {
  v.Int("job", m.job, kAnyJob);
  v.Text("temporary_tag", m.temporary_tag, kNameText);
  v.Spec("spec", m.spec);
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerHello> m) {
  v.Text("build", m.build, kNameText);
  v.Int("pid", m.pid, kAnyJob);
}

template <typename V>
void Members(V& /*v*/, typename V::template Ref<WorkerAlive> /*m*/) {}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerProgress> m) {
  v.Int("job", m.job, kAnyJob);
  v.Int("pairs_done", m.pairs_done, kAnyCount);
  v.Int("pairs_total", m.pairs_total, kAnyCount);
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerLog> m) {
  v.Int("job", m.job, kAnyJob);
  v.Text("text", m.text, kPeerText);
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerFinished> m) {
  v.Int("job", m.job, kAnyJob);
  v.Text("error_code", m.error_code, kNameText);
  v.Text("error", m.error, kPeerText);
  v.Text("output_path", m.output_path, kPathText);
  v.Text("device", m.device, kNameText);
  v.TextOrNull("docs_state", m.docs, kNameText);
  v.ReportOrNull("report", m.report_json);
  v.Number("search_seconds", m.search_seconds);
  v.Number("total_seconds", m.total_seconds);
  v.Objects("warm_docs", m.warm_docs, kMostWarmDocs,
            [](auto& inner, auto& docs) { WarmDocsMembers(inner, docs); });
  if constexpr (V::kReads) {
    if (!ParseStatusCode(m.error_code)) v.Fail("error_code", "the name of a status code");
    if (!m.docs.empty() && m.docs != "warm" && m.docs != "cold") {
      v.Fail("docs_state", "null, warm or cold");
    }
  }
}

template <typename V>
void Members(V& v, typename V::template Ref<WorkerRemoved> m) {
  v.Int("job", m.job, kAnyJob);
}

template <typename Message>
using Names = std::array<std::string_view, std::variant_size_v<Message>>;

template <typename Message>
absl::StatusOr<std::string> Encode(const Names<Message>& names, const Message& message) {
  MemberWriter writer;
  std::visit([&writer](const auto& body) { Members(writer, body); }, message);
  if (!writer.status().ok()) return writer.status();
  writer.Put("type", std::string(names[message.index()]));
  std::string line = DumpJson(writer.Take());
  if (line.size() > kMostLineBytes) {
    return absl::InvalidArgumentError(fmt::format("a message has {} bytes, and at most {} are read",
                                                  line.size(), kMostLineBytes));
  }
  return line;
}

template <typename Message>
absl::StatusOr<Message> Decode(const Names<Message>& names, std::string_view line) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(line);
  if (!json.ok()) return json.status();
  MemberReader reader(*json);
  std::string type;
  reader.Text("type", type, kAnyText);
  if (!reader.status().ok()) return reader.status();
  std::optional<Message> message = AlternativeNamed<Message>(names, type);
  if (!message) {
    return absl::InvalidArgumentError(
        fmt::format("`type` has to be one of {}", fmt::join(names, ", ")));
  }
  std::visit([&reader](auto& body) { Members(reader, body); }, *message);
  if (!reader.status().ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: {}", type, std::string(reader.status().message())));
  }
  return *std::move(message);
}

}  // namespace

absl::StatusOr<std::string> EncodeToWorker(const ToWorker& message) {
  return Encode(kToWorkerNames, message);
}

absl::StatusOr<ToWorker> DecodeToWorker(std::string_view line) {
  return Decode<ToWorker>(kToWorkerNames, line);
}

std::string EncodeFromWorker(const FromWorker& message) {
  // Without a spec nothing fails, and the limits on members keep the line short.
  return *Encode(kFromWorkerNames, message);
}

absl::StatusOr<FromWorker> DecodeFromWorker(std::string_view line) {
  return Decode<FromWorker>(kFromWorkerNames, line);
}

}  // namespace tiny_knn
