#include "daemon/protocol/job_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "daemon/protocol/json_members.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

constexpr std::array<std::string_view, 5> kStateNames = {"queued", "running", "done", "failed",
                                                         "cancelled"};

template <typename V>
void Members(V& v, typename V::template Ref<JobView> m) {
  v.Int("id", m.id, kAnyJob);
  v.Int("uid", m.uid, kUid);
  v.Int("priority", m.priority, {-kIntCount.most, kIntCount.most});
  v.Int("attempt", m.attempt, kIntCount);
  v.Int("queries", m.shape.num_queries, kAnyCount);
  v.Int("docs", m.shape.num_docs, kAnyCount);
  v.Int("dim", m.shape.dim, kAnyCount);
  v.CountOrNull("k", m.shape.k);
  v.Int("docs_bytes", m.shape.docs_bytes, kAnyCount);
  v.Number("progress", m.progress);
  v.Number("submitted_at", m.submitted_at);
  v.NumberOrNull("started_at", m.started_at);
  v.NumberOrNull("finished_at", m.finished_at);
  v.NumberOrNull("elapsed_seconds", m.elapsed_seconds);
  v.NumberOrNull("eta_seconds", m.eta_seconds);
  v.Objects(
      "jobs_before", m.jobs_before, kMostUsersBefore,
      [](auto& inner, auto& before) {
        inner.Int("uid", before.uid, kUid);
        inner.Int("jobs", before.jobs, kAnyJob);
      },
      Presence::kOptional);
  v.TextOrNull("reason", m.reason, kMessageText);
  v.Bool("redacted", m.redacted, Presence::kOptional);
  v.Text("queries_path", m.queries_path, kAnyText);
  v.Text("docs_path", m.docs_path, kAnyText);
  v.Text("output_path", m.output_path, kAnyText);
  v.TextOrNull("device", m.device, kMessageText);
  v.TextOrNull("docs_state", m.docs, kMessageText);
  v.TextOrNull("error_code", m.error_code, kMessageText);
  v.TextOrNull("error", m.error, kMessageText);
  v.ReportOrNull("report", m.report_json);
}

}  // namespace

std::string_view JobStateName(JobState state) { return kStateNames[static_cast<size_t>(state)]; }

std::optional<JobState> ParseJobState(std::string_view name) {
  const auto* const found = std::find(kStateNames.begin(), kStateNames.end(), name);
  if (found == kStateNames.end()) return std::nullopt;
  return static_cast<JobState>(found - kStateNames.begin());
}

nlohmann::json JobViewToJson(const JobView& view) {
  MemberWriter writer;
  Members(writer, view);
  writer.Put("state", std::string(JobStateName(view.state)));
  nlohmann::json json = writer.Take();
  json["progress"] = std::min(json["progress"].get<double>(), 1.0);
  return json;
}

absl::StatusOr<JobView> JobViewFromJson(const nlohmann::json& json) {
  if (!json.is_object()) return absl::InvalidArgumentError("a job has to be an object");
  JobView view;
  MemberReader reader(json);
  Members(reader, view);
  std::string state;
  reader.Text("state", state, kAnyText);
  if (const std::optional<JobState> parsed = ParseJobState(state)) {
    view.state = *parsed;
  } else {
    reader.Fail("state", "queued, running, done, failed or cancelled");
  }
  if (view.progress > 1) reader.Fail("progress", "a number from 0 to 1");
  if (!view.docs.empty() && view.docs != "warm" && view.docs != "cold") {
    reader.Fail("docs_state", "null, warm or cold");
  }
  if (!reader.status().ok()) return reader.status();
  return view;
}

}  // namespace tiny_knn
