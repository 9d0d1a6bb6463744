// `tiny-knn run`: one job, and what is said about it.
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "cli/interrupt.h"
#include "cli/local_job.h"
#include "cli/progress.h"
#include "cli/run_flags.h"
#include "cli/search_report.h"
#include "cli/verbs.h"
#include "core/job/job_report.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"

namespace tiny_knn {

const std::string_view kRunHelp =
    R"(tiny-knn run: find the k nearest docs of every query, exactly

usage: tiny-knn run QUERIES DOCS [flags]
       tiny-knn QUERIES DOCS [flags]

QUERIES and DOCS are 2-D .npy files of equal width, one embedding a row. DOCS
may be a folder of such files or a pattern in quotes ('docs/*.npy'), in natural
order of the names (2 before 10). The result is a Python pickle of a dict with
indices [Q, k] and scores [Q, k], best first; its path is printed on standard
output. (A file named like a command is reachable as ./NAME.)

what is searched
  -k, --k N             docs per query (default: 2000, or all where fewer)
      --metric M        ip (default), cosine or l2 (negated squared distance)
      --dtype T         compute in T: float32 (default), float16, bfloat16,
                        float64, int8, ...; scores are exact for it
      --exclude-self    leave out the doc with the query's own row number
      --docs-range A:B  only docs A to B-1; the result is a part for merge
      --input-dtype T   what raw two-byte data is, such as bfloat16

where it goes
  -o, --output-path P   default: top{k}_{QUERIES}_x_{DOCS}.pkl in this folder; a
                        name that ends in .npz makes it numpy's own format
      --checkpoint F    keep in F how far the search is: the same command, run
                        again after a crash, goes on there; removed at the end
      --checkpoint-every T  at most that often (default: 30s)

how (never changes the result)
      --device D        auto (default), cpu, cuda or cuda:N
      --cpu             the same as --device cpu
      --threads N       default: one per CPU this process may use
      --memory-limit S  most memory to use, such as 4G (default: 75% of what is
                        free); K, M, G, T count in 1024, KB, MB, ... in 1000
      --gpu-memory S    most memory to use on a CUDA device
      --batch-size N    most queries per pass over the docs (default: automatic)

what is said
      --dry-run         print the plan and, measured in about a second, how long
                        it would take; write nothing
      --verify N        repeat N random queries in exact arithmetic and compare
                        all bits before the result is written; keeps N rows of
                        results in memory beyond the limit
      --progress M      auto (default: a bar on a terminal; none where TERM=dumb
                        or TQDM_DISABLE is set), always, never or json
  -q, --quiet           only errors on standard error
  -v, --verbose         also the plan and the times
  -h, --help            this page

exit codes: 0 done, 1 failed while running, 2 wrong use or bad input,
            130 interrupted; no partial result is left in any case

example: tiny-knn run queries.npy docs.npy -k 100 --metric cosine -o top.pkl
)";

absl::Status RunVerb(const std::vector<std::string>& args, Console& console) {
  absl::StatusOr<RunRequest> request = ParseRunFlags(args);
  if (!request.ok()) return request.status();
  if (request->help) {
    console.Out(kRunHelp);
    return absl::OkStatus();
  }
  SetUpConsole(*request, console);
  CatchInterrupts();

  if (request->dry_run) return DryRun(request->spec, console);
  absl::StatusOr<LocalJob> local = OpenLocalJob(request->spec, console);
  if (!local.ok()) return local.status();
  PreparedJob& job = local->prepared;
  Engine& engine = *local->engine;
  const auto lines = PlanLines(request->spec, job, engine);
  if (!lines.ok()) return lines.status();
  for (const std::string& line : *lines) console.Detail(OneLine(line));

  absl::StatusOr<JobResult> result;
  {
    const bool bar = WantsBar(request->progress, request->quiet, isatty(STDERR_FILENO) != 0,
                              [](const char* name) -> const char* { return std::getenv(name); });
    ConsoleProgress progress(console, bar, request->progress == ProgressMode::kJson);
    // The first batch may take a while: show at once that there is something to wait for.
    progress.Report(0, job.shape.num_queries * job.shape.num_docs);
    result = RunJob(request->spec, job, engine, {.progress = &progress});
  }
  if (absl::IsCancelled(result.status())) {
    return absl::CancelledError(
        request->spec.checkpoint_path.empty()
            ? "interrupted: no result was written"
            : "interrupted: no result was written; the same command goes on from the checkpoint");
  }
  if (!result.ok()) return result.status();
  PrintPath(job.output_path, console);
  SayReport(request->spec, job, MakeJobReport(job, engine.device(), *result), "", console);
  return absl::OkStatus();
}

VerbFlags RunVerbFlags() { return DeclaredFlags<RunTexts>(DeclareRunFlags); }

}  // namespace tiny_knn
