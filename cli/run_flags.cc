#include "cli/run_flags.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "cli/flags.h"
#include "cli/values.h"
#include "core/job/docs_range.h"
#include "core/job/one_line.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kNoMost = std::numeric_limits<int64_t>::max();

using Text = RunTexts::Text;

// `run`'s own: both files are required.
void Declare(FlagParser& parser, RunTexts& texts) {
  DeclareRunFlags(parser, texts);
  parser.Positional("QUERIES", &texts.queries);
  parser.Positional("DOCS", &texts.docs);
}

// Turns texts into values, one after the other; the first that is wrong stays as the status.
class ValueReader {
 public:
  // A flag that was not given is left alone; so is everything after the first error.
  template <typename T>
  void Count(std::string_view flag, const Text& text, int64_t least, int64_t most, T* value) {
    Read(
        text, [&](const std::string& given) { return ParseCount(flag, given, least, most); },
        value);
  }
  template <typename T>
  void Size(std::string_view flag, const Text& text, T* value) {
    Read(
        text, [&](const std::string& given) { return ParseSize(flag, given); }, value);
  }
  template <typename T>
  void Duration(std::string_view flag, const Text& text, T* value) {
    Read(
        text, [&](const std::string& given) { return ParseDuration(flag, given); }, value);
  }
  // `parse` gives an optional; `accepted` says which names there are.
  template <typename Parse, typename T>
  void Name(std::string_view flag, const Text& text, const Parse& parse, std::string_view accepted,
            T* value) {
    if (!text || !status_.ok()) return;
    if (const auto parsed = parse(*text)) {
      *value = *parsed;
    } else {
      Refuse(fmt::format("{} expects {}, found '{}'", flag, accepted, OneLine(*text)));
    }
  }
  void Refuse(const std::string& why) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(why);
  }
  const absl::Status& status() const { return status_; }

 private:
  template <typename Parse, typename T>
  void Read(const Text& text, const Parse& parse, T* value) {
    if (!text || !status_.ok()) return;
    const absl::StatusOr<int64_t> parsed = parse(*text);
    if (parsed.ok()) {
      *value = static_cast<T>(*parsed);
    } else {
      status_ = parsed.status();
    }
  }

  absl::Status status_;
};

std::optional<DType> ParseComputeDType(std::string_view name) {
  const std::optional<DType> dtype = ParseDType(name);
  return dtype && IsComputeDType(*dtype) ? dtype : std::nullopt;
}

}  // namespace

void DeclareRunFlags(FlagParser& parser, RunTexts& texts) {
  parser.Value("-k,--k", &texts.k);
  parser.Value("--metric", &texts.metric);
  parser.Value("--dtype", &texts.dtype);
  parser.Switch("--exclude-self", &texts.exclude_self);
  parser.Value("--docs-range", &texts.docs_range);
  parser.Value("--input-dtype", &texts.input_dtype);
  parser.Value("-o,--output-path", &texts.output_path);
  parser.Value("--checkpoint", &texts.checkpoint);
  parser.Value("--checkpoint-every", &texts.checkpoint_every);
  parser.Value("--device", &texts.device);
  parser.Switch("--cpu", &texts.cpu);
  parser.Value("--threads", &texts.threads);
  parser.Value("--memory-limit", &texts.memory_limit);
  parser.Value("--gpu-memory", &texts.gpu_memory);
  parser.Value("--batch-size", &texts.batch_size);
  parser.Switch("--dry-run", &texts.dry_run);
  parser.Value("--verify", &texts.verify);
  parser.Value("--progress", &texts.progress);
  parser.Switch("-q,--quiet", &texts.quiet);
  parser.Switch("-v,--verbose", &texts.verbose);
}

const char* FirstSearchFlagGiven(const RunTexts& texts) {
  const std::pair<const char*, bool> given[] = {
      {"--k", texts.k.has_value()},
      {"--metric", texts.metric.has_value()},
      {"--dtype", texts.dtype.has_value()},
      {"--exclude-self", texts.exclude_self},
      {"--docs-range", texts.docs_range.has_value()},
      {"--input-dtype", texts.input_dtype.has_value()},
      {"--output-path", texts.output_path.has_value()},
      {"--checkpoint", texts.checkpoint.has_value()},
      {"--checkpoint-every", texts.checkpoint_every.has_value()},
      {"--device", texts.device.has_value()},
      {"--cpu", texts.cpu},
      {"--threads", texts.threads.has_value()},
      {"--memory-limit", texts.memory_limit.has_value()},
      {"--gpu-memory", texts.gpu_memory.has_value()},
      {"--batch-size", texts.batch_size.has_value()},
      {"--verify", texts.verify.has_value()},
  };
  for (const auto& [name, is_given] : given) {
    if (is_given) return name;
  }
  return nullptr;
}

absl::StatusOr<RunRequest> InterpretReportingFlags(const RunTexts& texts) {
  RunRequest request;
  request.dry_run = texts.dry_run;
  request.quiet = texts.quiet;
  request.verbose = texts.verbose;
  ValueReader read;
  read.Name("--progress", texts.progress, ParseProgressMode, "auto, always, never or json",
            &request.progress);
  if (!read.status().ok()) return read.status();
  return request;
}

absl::StatusOr<RunRequest> InterpretRunFlags(const RunTexts& texts) {
  RunRequest request;
  JobSpec& spec = request.spec;
  spec.queries_path = texts.queries;
  spec.docs_path = texts.docs;
  spec.exclude_self = texts.exclude_self;

  ValueReader read;
  if (texts.queries.empty()) read.Refuse("QUERIES is an empty name; give an .npy file");
  if (texts.docs.empty()) read.Refuse("DOCS is an empty name; give an .npy file");
  if (texts.k) {
    spec.k = 0;
    read.Count("--k", texts.k, 1, kNoMost, &*spec.k);
  }
  if (texts.batch_size) {
    spec.batch_size = 0;
    read.Count("--batch-size", texts.batch_size, 1, kNoMost, &*spec.batch_size);
  }
  read.Count("--threads", texts.threads, 1, kMostThreads, &spec.threads);
  read.Count("--verify", texts.verify, 0, kNoMost, &spec.verify_queries);
  read.Size("--memory-limit", texts.memory_limit, &spec.memory_limit_bytes);
  read.Size("--gpu-memory", texts.gpu_memory, &spec.gpu_memory_bytes);
  read.Name("--metric", texts.metric, ParseMetric, "ip, cosine or l2", &spec.metric);
  read.Name("--dtype", texts.dtype, ParseComputeDType,
            fmt::format("one of {}", ComputeDTypeNames()), &spec.compute_dtype);
  read.Name("--input-dtype", texts.input_dtype, ParseDType,
            fmt::format("one of {}", FileDTypeNames()), &spec.input_dtype);
  if (texts.docs_range) {
    const absl::StatusOr<DocsRange> range = ParseDocsRange(*texts.docs_range);
    if (range.ok()) {
      spec.docs_range = *range;
    } else {
      read.Refuse(fmt::format("--docs-range {}, found '{}'", std::string(range.status().message()),
                              OneLine(*texts.docs_range)));
    }
  }
  if (texts.output_path) {
    spec.output_path = *texts.output_path;
    if (spec.output_path.empty()) read.Refuse("--output-path expects a file name, found ''");
  }
  if (texts.checkpoint) {
    spec.checkpoint_path = *texts.checkpoint;
    if (spec.checkpoint_path.empty()) read.Refuse("--checkpoint expects a file name, found ''");
  }
  read.Duration("--checkpoint-every", texts.checkpoint_every, &spec.checkpoint_seconds);
  if (texts.checkpoint_every && !texts.checkpoint) {
    read.Refuse("--checkpoint-every says how often --checkpoint FILE is saved; give that too");
  }
  spec.device = texts.device.value_or(texts.cpu ? "cpu" : "auto");
  if (texts.cpu && spec.device != "cpu" && spec.device != "auto") {
    read.Refuse(fmt::format("--cpu and --device {} contradict each other; give one of them",
                            OneLine(spec.device)));
  }
  if (texts.cpu) spec.device = "cpu";
  if (!read.status().ok()) return read.status();
  absl::StatusOr<RunRequest> reporting = InterpretReportingFlags(texts);
  if (reporting.ok()) reporting->spec = std::move(spec);
  return reporting;
}

absl::StatusOr<RunRequest> ParseRunFlags(const std::vector<std::string>& args) {
  FlagParser parser("run", "QUERIES DOCS [flags]");
  RunTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  if (parser.help_wanted()) {
    RunRequest request;
    request.help = true;
    return request;
  }
  return InterpretRunFlags(texts);
}

void SetUpConsole(const RunRequest& request, Console& console) {
  console.set_quiet(request.quiet);
  console.set_verbose(request.verbose);
  if (request.progress == ProgressMode::kJson) console.set_style(Console::Style::kJson);
}

std::vector<std::string> RunFlagNames() {
  FlagParser parser("run", "");
  RunTexts texts;
  Declare(parser, texts);
  return parser.FlagNames();
}

}  // namespace tiny_knn
