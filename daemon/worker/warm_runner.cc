#include "daemon/worker/warm_runner.h"

#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include "core/job/job_paths.h"
#include "core/job/job_report.h"
#include "core/job/one_line.h"
#include "daemon/protocol/status_code_name.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Clock = std::chrono::steady_clock;

mode_t ReadUmask() {
  const mode_t mask = umask(022);
  umask(mask);
  return mask;
}

// "cuda" is the first device.
std::string DeviceName(const std::string& device) { return device == "cuda" ? "cuda:0" : device; }

// The device that a job asks for, within the daemon's: that is all it may have, the CPU besides.
absl::StatusOr<std::string> NarrowDevice(const std::string& job, const std::string& daemon) {
  if (job == "auto") return DeviceName(daemon);
  if (job == "cpu" || daemon == "auto") return DeviceName(job);
  if (job == "cuda" && daemon.starts_with("cuda")) return DeviceName(daemon);
  if (DeviceName(job) == DeviceName(daemon)) return DeviceName(job);
  return absl::InvalidArgumentError(
      fmt::format("device '{}': this daemon uses {} only; submit with --device auto", job, daemon));
}

}  // namespace

WarmRunner::WarmRunner(WarmRunnerOptions options)
    : options_(std::move(options)), own_umask_(ReadUmask()), usable_cpus_(UsableCpus()) {}

WorkerFinished WarmRunner::Run(const WorkerRun& run, JobListener& listener) {
  const Clock::time_point start = Clock::now();
  done_.reset();
  WorkerFinished finished;
  finished.job = run.job;
  absl::Status status;
  try {
    status = RunNarrowed(run, listener, finished);
  } catch (const std::bad_alloc&) {
    status = absl::ResourceExhaustedError(
        "out of memory; submit with a smaller --memory-limit, which is what the search plans for");
  }
  if (absl::IsResourceExhausted(status)) {
    cache_.DropAll();
  } else {
    cache_.DropUnfilled();
  }
  finished.error_code = std::string(StatusCodeName(status.code()));
  finished.error = OneLine(std::string(status.message()));
  finished.total_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  finished.warm_docs = cache_.Describe();
  return finished;
}

void WarmRunner::Rest() {
  done_.reset();
  memory_.FindGroups();
}

absl::Status WarmRunner::RunNarrowed(const WorkerRun& run, JobListener& listener,
                                     WorkerFinished& finished) {
  const absl::Status cancelled = absl::CancelledError("cancelled; nothing was written");
  if (listener.cancelled()) return cancelled;
  umask(run.spec.umask ? static_cast<mode_t>(*run.spec.umask) : own_umask_);
  const Limits limits = Narrow(run);
  const JobSpec& spec = limits.spec;

  // Taken by name, before and after opening: had another file been there in between, it would have
  // to have been put in place and taken away again by its owner.
  const std::string docs_path = ResolvePath(spec, spec.docs_path);
  ExaminedDocs before = ExamineDocs(docs_path);
  if (!spec.checkpoint_path.empty()) {
    before.may_be_kept = false;
    before.why_not = "a search with a checkpoint goes through them chunk by chunk";
  }
  absl::StatusOr<PreparedJob> job =
      PrepareJob(spec, before.may_be_kept ? DocsUse::kKept : DocsUse::kOnce);
  if (!job.ok()) return AsBadInput(job.status());
  const std::optional<FileVersion> after = StatFileVersion(docs_path);
  finished.output_path = job->output_path;

  absl::StatusOr<ChosenEngine> chosen = ChooseEngine(spec);
  if (!chosen.ok()) return AsBadInput(chosen.status());
  Engine& engine = *chosen->engine;
  finished.device = std::string(engine.device());

  if (before.version) cache_.DropOutdated(*before.version, docs_path);
  WarmDocs* warm_docs = nullptr;
  if (before.may_be_kept && before.version == after) {
    WarmKey key{.file = *before.version,
                .input_dtype = spec.input_dtype,
                .compute_dtype = spec.compute_dtype,
                .metric = spec.metric,
                .engine = chosen->name,
                .screen = job->plan.screen};
    if (job->part) key.range = {job->part->docs_begin, job->part->docs_end};
    warm_docs = ChooseWarmDocs(limits, key, engine, *job);
  }
  if (warm_docs == nullptr) {
    // What pays for docs that are kept need not pay for one search.
    absl::StatusOr<SearchPlan> plan = PlanJob(spec, job->shape);
    if (!plan.ok()) return plan.status();
    job->plan = *std::move(plan);
    cache_.EvictTo(limits.WarmBeside(job->plan.memory.total()), nullptr);
  }
  finished.docs = warm_docs != nullptr && warm_docs->filled() ? "warm" : "cold";

  std::vector<std::string> lines;
  if (!chosen->note.empty()) lines.push_back(OneLine("note: " + chosen->note));
  const auto plan_lines = PlanLines(spec, *job, engine);
  if (!plan_lines.ok()) return plan_lines.status();
  for (const std::string& line : *plan_lines) lines.push_back(OneLine(line));
  lines.push_back(OneLine(fmt::format("{:<14}{}{}", "docs are", finished.docs,
                                      before.why_not.empty() ? "" : " (" + before.why_not + ")")));
  listener.Log(lines);
  absl::StatusOr<JobResult> result =
      RunJob(spec, *job, engine,
             {.progress = &listener, .warm_docs = warm_docs, .temporary_tag = run.temporary_tag});
  if (absl::IsCancelled(result.status())) return cancelled;
  if (!result.ok()) return result.status();
  const JobReport report = MakeJobReport(*job, engine.device(), *result);
  lines.clear();
  for (const std::string& note : JobNotes(spec, *job, report)) {
    lines.push_back(OneLine("note: " + note));
  }
  if (!lines.empty()) listener.Log(lines);
  finished.report_json = JobReportToJson(report);
  finished.search_seconds = result->search_seconds;
  done_ = *std::move(job);
  return absl::OkStatus();
}

WarmRunner::ExaminedDocs WarmRunner::ExamineDocs(const std::string& path) const {
  const int64_t now_ns = options_.now_ns();  // before the sync: see SyncFileVersion
  ExaminedDocs docs;
  docs.version = StatFileVersion(path);
  if (!docs.version || !IsSettled(*docs.version, now_ns)) return docs;
  // A version of which something is kept was taken after a sync, so it is as good as a new one.
  if (!cache_.HasFile(*docs.version)) {
    const absl::StatusOr<FileVersion> synced = SyncFileVersion(path);
    if (!synced.ok()) {
      docs.why_not = std::string(synced.status().message());
      return docs;
    }
    docs.version = *synced;
  }
  docs.may_be_kept = IsSettled(*docs.version, now_ns);
  return docs;
}

WarmRunner::Limits WarmRunner::Narrow(const WorkerRun& run) const {
  Limits limits{.spec = run.spec};
  JobSpec& spec = limits.spec;
  const int64_t most =
      run.most_memory_bytes > 0 ? run.most_memory_bytes : std::numeric_limits<int64_t>::max();
  // What is kept can be given up, so it counts as available.
  limits.budget_bytes =
      std::min(most, DefaultMemoryLimit(memory_.AvailableBytes() + cache_.bytes()));
  limits.warm_bytes =
      run.most_warm_bytes > 0 ? run.most_warm_bytes : std::numeric_limits<int64_t>::max();
  spec.memory_limit_bytes =
      spec.memory_limit_bytes > 0 ? std::min(spec.memory_limit_bytes, most) : limits.budget_bytes;
  if (spec.threads == 0) spec.threads = usable_cpus_;
  if (run.most_threads > 0) spec.threads = std::min(spec.threads, run.most_threads);
  return limits;
}

absl::StatusOr<WarmRunner::ChosenEngine> WarmRunner::ChooseEngine(const JobSpec& spec) {
  absl::StatusOr<std::string> device = NarrowDevice(spec.device, options_.device);
  if (!device.ok()) return device.status();
  const bool is_auto = *device == "auto";
  std::string name = is_auto ? auto_name_ : *device;
  auto kept = engines_.find(name);
  if (kept != engines_.end() && kept->second.gpu_memory_bytes != spec.gpu_memory_bytes &&
      kept->second.engine->device() != "cpu") {
    cache_.DropOfEngine(name);
    engines_.erase(kept);
    kept = engines_.end();
  }
  if (kept == engines_.end()) {
    absl::StatusOr<OpenedEngine> opened = options_.open_engine({*device, spec.gpu_memory_bytes});
    if (!opened.ok()) return opened.status();
    if (is_auto) {
      name = opened->engine->device() == "cpu" ? "cpu" : "cuda:0";
      auto_name_ = name;
      auto_note_ = opened->note;
    }
    // Where "auto" turns out to be an engine that is open already, that one stays.
    kept = engines_.try_emplace(name, KeptEngine{std::move(opened->engine), spec.gpu_memory_bytes})
               .first;
  }
  return ChosenEngine{name, kept->second.engine.get(), is_auto ? auto_note_ : std::string()};
}

WarmDocs* WarmRunner::ChooseWarmDocs(const Limits& limits, const WarmKey& key, const Engine& engine,
                                     PreparedJob& job) {
  WarmDocs* kept = cache_.Find(key);
  std::unique_ptr<WarmDocs> made;
  if (kept == nullptr) made = engine.MakeWarmDocs(job.shape, job.plan);
  const WarmDocs* const wanted = kept != nullptr ? kept : made.get();
  if (wanted != nullptr && !MakeRoomInPlan(limits, wanted->bytes(), job)) {
    cache_.Drop(kept);
    kept = nullptr;
    made.reset();
  }
  if (made != nullptr) {
    kept = cache_.Add(key, ResolvePath(limits.spec, limits.spec.docs_path), std::move(made));
  }
  cache_.EvictTo(limits.WarmBeside(job.plan.memory.total()), kept);
  return kept;
}

bool WarmRunner::MakeRoomInPlan(const Limits& limits, int64_t warm_bytes, PreparedJob& job) {
  if (warm_bytes > limits.warm_bytes) return false;
  return MakeRoomForKeptDocs(job.shape, LimitsOf(limits.spec), warm_bytes, limits.budget_bytes,
                             job.plan);
}

}  // namespace tiny_knn
