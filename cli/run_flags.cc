#include "cli/run_flags.h"

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "cli/flags.h"
#include "cli/text.h"
#include "cli/values.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kNoMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostThreads = 4096;

using Text = std::optional<std::string>;  // nothing where the flag was not given

struct RunFlags {
  std::string queries, docs;
  Text k, dtype, batch_size, output_path, device, metric, threads, memory_limit, gpu_memory,
      input_dtype, verify, progress;
  bool cpu = false, dry_run = false, exclude_self = false, quiet = false, verbose = false;
};

void Declare(FlagParser& parser, RunFlags& flags) {
  parser.Value("-k,--k", &flags.k);
  parser.Value("--metric", &flags.metric);
  parser.Value("--dtype", &flags.dtype);
  parser.Switch("--exclude-self", &flags.exclude_self);
  parser.Value("--input-dtype", &flags.input_dtype);
  parser.Value("-o,--output-path", &flags.output_path);
  parser.Value("--device", &flags.device);
  parser.Switch("--cpu", &flags.cpu);
  parser.Value("--threads", &flags.threads);
  parser.Value("--memory-limit", &flags.memory_limit);
  parser.Value("--gpu-memory", &flags.gpu_memory);
  parser.Value("--batch-size", &flags.batch_size);
  parser.Switch("--dry-run", &flags.dry_run);
  parser.Value("--verify", &flags.verify);
  parser.Value("--progress", &flags.progress);
  parser.Switch("-q,--quiet", &flags.quiet);
  parser.Switch("-v,--verbose", &flags.verbose);
  parser.Positional("QUERIES", &flags.queries);
  parser.Positional("DOCS", &flags.docs);
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

absl::StatusOr<RunRequest> ParseRunFlags(const std::vector<std::string>& args) {
  FlagParser parser("run", "QUERIES DOCS [flags]");
  RunFlags flags;
  Declare(parser, flags);
  absl::Status status = parser.Parse(args);
  if (!status.ok()) return status;
  RunRequest request;
  request.help = parser.help_wanted();
  if (request.help) return request;

  JobSpec& spec = request.spec;
  spec.queries_path = flags.queries;
  spec.docs_path = flags.docs;
  spec.exclude_self = flags.exclude_self;
  request.dry_run = flags.dry_run;
  request.quiet = flags.quiet;
  request.verbose = flags.verbose;

  ValueReader read;
  if (flags.queries.empty()) read.Refuse("QUERIES is an empty name; give an .npy file");
  if (flags.docs.empty()) read.Refuse("DOCS is an empty name; give an .npy file");
  if (flags.k) {
    spec.k = 0;
    read.Count("--k", flags.k, 1, kNoMost, &*spec.k);
  }
  if (flags.batch_size) {
    spec.batch_size = 0;
    read.Count("--batch-size", flags.batch_size, 1, kNoMost, &*spec.batch_size);
  }
  read.Count("--threads", flags.threads, 1, kMostThreads, &spec.threads);
  read.Count("--verify", flags.verify, 0, kNoMost, &spec.verify_queries);
  read.Size("--memory-limit", flags.memory_limit, &spec.memory_limit_bytes);
  read.Size("--gpu-memory", flags.gpu_memory, &spec.gpu_memory_bytes);
  read.Name("--metric", flags.metric, ParseMetric, "ip, cosine or l2", &spec.metric);
  read.Name("--dtype", flags.dtype, ParseComputeDType,
            fmt::format("one of {}", ComputeDTypeNames()), &spec.compute_dtype);
  read.Name("--input-dtype", flags.input_dtype, ParseDType,
            fmt::format("one of {}", FileDTypeNames()), &spec.input_dtype);
  read.Name("--progress", flags.progress, ParseProgressMode, "auto, always, never or json",
            &request.progress);
  if (flags.output_path) {
    spec.output_path = *flags.output_path;
    if (spec.output_path.empty()) read.Refuse("--output-path expects a file name, found ''");
  }
  spec.device = flags.device.value_or(flags.cpu ? "cpu" : "auto");
  if (flags.cpu && spec.device != "cpu" && spec.device != "auto") {
    read.Refuse(fmt::format("--cpu and --device {} contradict each other; give one of them",
                            OneLine(spec.device)));
  }
  if (flags.cpu) spec.device = "cpu";
  if (!read.status().ok()) return read.status();
  return request;
}

std::vector<std::string> RunFlagNames() {
  FlagParser parser("run", "");
  RunFlags flags;
  Declare(parser, flags);
  return parser.FlagNames();
}

}  // namespace tiny_knn
