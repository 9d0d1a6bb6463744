// `tiny-knn submit`: a search for the daemon's queue.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "cli/daemon_connection.h"
#include "cli/follow.h"
#include "cli/interrupt.h"
#include "cli/local_job.h"
#include "cli/progress.h"
#include "cli/search_report.h"
#include "cli/submit_flags.h"
#include "cli/values.h"
#include "cli/verbs.h"
#include "core/io/file_util.h"
#include "core/io/unique_fd.h"
#include "core/job/job_report.h"
#include "core/job/job_spec_json.h"
#include "core/job/run_job.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {

const std::string_view kSubmitHelp =
    R"(tiny-knn submit: like run, in the daemon's queue; prints the job's id

usage: tiny-knn submit QUERIES DOCS [flags]
       tiny-knn submit --spec FILE [flags]

The files are checked at once: what run would refuse is not queued. The daemon
keeps the job over a crash or a restart, runs it as you, and writes the same
indices and scores as run. 'tiny-knn daemon --background' starts a daemon.

the job
      --spec FILE       a job as JSON instead of QUERIES, DOCS and the flags of
                        run that describe a search; - is standard input
      --priority N      -100 to 100 (default: 0); greater runs earlier
      --key K           of jobs with one key there is only one: submitting again
                        is safe, and gives the id of the first
      --timeout T       fails when it runs longer: 30s, 10m, 1h (default: never)
      --socket P        the daemon's socket (default: yours, else the system's)

what is printed
      --wait            waits for the end; prints the result's path and exits as
                        run does. Ctrl-C cancels the job
      --follow          --wait with progress, as --progress says
      --json            the job as JSON; with --follow a line for every change

the search, as for run
  -k, --k N             docs per query (default: 2000, or all where fewer)
      --metric M        ip (default), cosine or l2 (negated squared distance)
      --dtype T         compute in T (default: float32)
      --exclude-self    leave out the doc with the query's own row number
      --docs-range A:B  only docs A to B-1; the result is a part for merge
      --input-dtype T   what raw two-byte data is, such as bfloat16
  -o, --output-path P   default: top{k}_{QUERIES}_x_{DOCS}.pkl in this folder; a
                        name that ends in .npz makes it numpy's own format
      --checkpoint F    keep in F how far the search is, for a job that starts
                        again after a crash
      --checkpoint-every T  at most that often (default: 30s)
      --device D        auto (default: the daemon's), cpu, cuda or cuda:N
      --cpu             the same as --device cpu
      --threads N       at most the daemon's
      --memory-limit S  at most the daemon's
      --gpu-memory S    most memory to use on a CUDA device
      --batch-size N    most queries per pass over the docs (default: automatic)
      --verify N        repeat N random queries in exact arithmetic

what is said
      --dry-run         print the plan as run does; nothing is queued
      --progress M      auto (default), always, never or json; with --follow
  -q, --quiet           only errors on standard error
  -v, --verbose         also how the search went in detail
  -h, --help            this page

exit codes: as run's; 1 also when there is no daemon

example: tiny-knn submit queries.npy docs.npy -k 100 --wait
)";

namespace {

constexpr size_t kMostSpecBytes = size_t{1} << 20;
// For checking a job that names no limit: what is free here and now says nothing about later.
constexpr int64_t kAmpleMemory = int64_t{1} << 50;

// The whole of a spec file, which may be a pipe.
absl::StatusOr<std::string> ReadSpecFile(const std::string& path) {
  const std::string name = path == "-" ? "standard input" : path;
  UniqueFd opened;
  if (path != "-") {
    opened = UniqueFd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (opened.get() < 0) return ErrnoStatus(errno, path, "cannot open");
  }
  const int fd = path == "-" ? STDIN_FILENO : opened.get();
  std::string text;
  std::array<char, 16384> bytes{};
  while (true) {
    const ssize_t got = read(fd, bytes.data(), bytes.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, name, "cannot read");
    if (got == 0) return text;
    text.append(bytes.data(), static_cast<size_t>(got));
    if (text.size() > kMostSpecBytes) {
      return absl::InvalidArgumentError(
          fmt::format("{}: is longer than 1 MiB; expected one job as JSON", name));
    }
  }
}

absl::StatusOr<JobSpec> ReadSpec(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSpecFile(path);
  if (!text.ok()) return text.status();
  absl::StatusOr<JobSpec> spec = JobSpecFromJson(*text);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(),
                        fmt::format("{}: {}", path == "-" ? "standard input" : path,
                                    std::string(spec.status().message())));
  }
  absl::Status status = CheckDevice("device", spec->device);
  if (!status.ok()) return status;
  return spec;
}

// A folder that is not there or not writable is better found now than when the job's turn comes.
absl::Status CheckOutputFolder(const std::string& output_path) {
  const std::filesystem::path parent = std::filesystem::path(output_path).parent_path();
  const std::string folder = parent.empty() ? std::string(".") : parent.string();
  if (access(folder.c_str(), W_OK | X_OK) != 0) {
    return ErrnoStatus(errno, output_path, fmt::format("cannot write to folder {}", folder));
  }
  return absl::OkStatus();
}

// Opens and checks everything that the job needs, as run does before it searches.
absl::StatusOr<PreparedJob> CheckJob(JobSpec spec) {
  // The plan is the worker's to make: nothing is measured here for it.
  if (spec.memory_limit_bytes == 0) spec.memory_limit_bytes = kAmpleMemory;
  if (spec.threads == 0) spec.threads = 1;
  absl::StatusOr<PreparedJob> job = PrepareJob(spec);
  if (!job.ok()) return AsBadInput(job.status());
  absl::Status status = CheckOutputFolder(job->output_path);
  if (!status.ok()) return status;
  return job;
}

absl::StatusOr<SubmitRequest> MakeRequest(const SubmitFlags& flags, const JobSpec& spec,
                                          const PreparedJob& job) {
  SubmitRequest request;
  request.key = flags.key.empty() ? NewSubmitKey() : flags.key;
  request.priority = flags.priority;
  request.timeout_seconds = flags.timeout_seconds;
  request.spec = spec;
  request.spec.k = job.k_of_all();
  if (spec.working_folder.empty()) {
    std::error_code error;
    request.spec.working_folder = std::filesystem::current_path(error).string();
    if (error) return ErrnoStatus(error.value(), ".", "cannot find this folder's name");
  }
  // Named as the daemon has to resolve it: a default's name depends on k.
  if (spec.output_path.empty()) request.spec.output_path = job.output_path;
  if (!spec.umask) {
    const mode_t mask = umask(0);
    umask(mask);
    request.spec.umask = static_cast<int>(mask);
  }
  request.shape = {.num_queries = job.shape.num_queries,
                   .num_docs = job.shape.num_docs,
                   .dim = job.shape.dim,
                   .k = job.shape.k,
                   .docs_bytes = job.shape.num_docs * job.shape.dim * ItemSize(job.docs->dtype())};
  return request;
}

std::string JsonLine(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

void SayQueued(const SubmitReply& reply, bool waits, Console& console) {
  const JobView& job = reply.job;
  console.Note(fmt::format(
      "{} {}{}{}",
      reply.existed ? fmt::format("this key's job {} is", job.id) : fmt::format("job {}", job.id),
      JobStateName(job.state), job.reason.empty() ? "" : fmt::format(" ({})", job.reason),
      waits ? "" : fmt::format("; 'tiny-knn wait {}' waits for it", job.id)));
}

// What run says at the end, of a job that is done.
void SayDone(const JobSpec& spec, const PreparedJob& prepared, const JobView& job, bool json,
             Console& console) {
  if (!json) PrintPath(prepared.output_path, console);
  if (console.quiet() && !console.verbose()) return;
  absl::StatusOr<JobReport> report = JobReportFromJson(job.report_json);
  if (!report.ok()) {
    NoteDefaultK(prepared, console);
    console.Note(fmt::format("job {}: {}", job.id, std::string(report.status().message())));
    return;
  }
  report->output_path = prepared.output_path;  // as run prints it, not as the daemon resolved it
  SayReport(spec, prepared, *report, job.docs, console);
}

// Says of every change what was asked for: JSON on standard output for --json, the progress of run
// on standard error for --progress json.
absl::Status SayChange(const SubmitFlags& flags, const JobView& job, UserNames& users,
                       Console& console) {
  if (flags.run.progress == ProgressMode::kJson && job.state == JobState::kRunning) {
    console.RawErr(FormatProgressJson(ProgressOf(job)) + "\n");
  }
  if (!flags.json) return absl::OkStatus();
  console.Out(JsonLine({{"event", "job"}, {"job", JobToJson(job, users)}}));
  return console.Flush();
}

absl::Status WaitForJob(const SubmitFlags& flags, const JobSpec& spec, const PreparedJob& prepared,
                        int64_t id, JobFollower& follower, UserNames& users, Console& console) {
  JobFollower::Options options;
  options.cancel_on_interrupt = true;
  if (flags.follow) {
    options.on_change = [&](const JobView& job) { return SayChange(flags, job, users, console); };
    options.draw = !flags.json && WantsBar(flags.run.progress, flags.run.quiet,
                                           isatty(STDERR_FILENO) != 0, [](const char* name) {
                                             return static_cast<const char*>(std::getenv(name));
                                           });
  }
  const absl::StatusOr<std::vector<JobView>> jobs = follower.Follow({id}, options);
  if (!jobs.ok()) return jobs.status();
  const JobView& job = jobs->front();
  if (flags.json && !flags.follow) console.Out(JsonLine(JobToJson(job, users)));
  if (job.state == JobState::kCancelled && follower.asked_to_cancel()) {
    return absl::CancelledError(
        fmt::format("interrupted: job {} was cancelled, no result was written", id));
  }
  absl::Status status = JobStatus(job);
  if (status.ok()) SayDone(spec, prepared, job, flags.json, console);
  return status;
}

}  // namespace

absl::Status SubmitVerb(const std::vector<std::string>& args, Console& console) {
  const absl::StatusOr<SubmitFlags> flags = ParseSubmitFlags(args);
  if (!flags.ok()) return flags.status();
  if (flags->run.help) {
    console.Out(kSubmitHelp);
    return absl::OkStatus();
  }
  SetUpConsole(flags->run, console);

  JobSpec spec = flags->run.spec;
  if (flags->spec_file) {
    absl::StatusOr<JobSpec> read = ReadSpec(*flags->spec_file);
    if (!read.ok()) return read.status();
    spec = *std::move(read);
  }
  // Only now: reading a spec from a terminal ends with Ctrl-C as everything else does.
  CatchInterrupts();
  if (flags->run.dry_run) return DryRun(spec, console);
  // The daemon answers hello while the files are checked here, whose errors come first.
  JobFollower follower(flags->daemon, console);
  follower.BeginToConnect();
  const absl::StatusOr<PreparedJob> prepared = CheckJob(spec);
  if (!prepared.ok()) return prepared.status();
  const absl::StatusOr<SubmitRequest> request = MakeRequest(*flags, spec, *prepared);
  if (!request.ok()) return request.status();

  const absl::StatusOr<SubmitReply> reply = follower.Submit(*request);
  if (!reply.ok()) return reply.status();
  UserNames users;
  if (!flags->json || reply->existed) SayQueued(*reply, flags->wait, console);
  if (flags->wait) {
    return WaitForJob(*flags, spec, *prepared, reply->job.id, follower, users, console);
  }
  NoteDefaultK(*prepared, console);
  console.Out(flags->json ? JsonLine(JobToJson(reply->job, users))
                          : fmt::format("{}\n", reply->job.id));
  return absl::OkStatus();
}

VerbFlags SubmitVerbFlags() { return ListSubmitFlags(); }

}  // namespace tiny_knn
