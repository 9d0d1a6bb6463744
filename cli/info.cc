// `tiny-knn info`: what a file holds, before or after a search.
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "cli/matrix_stats.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "core/io/npy.h"
#include "core/io/result_file.h"
#include "core/io/row_source.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"
#include "core/matrix/dtype.h"
#include "fmt/format.h"

namespace tiny_knn {

const std::string_view kInfoHelp =
    R"(tiny-knn info: what an .npy file or a result file holds

usage: tiny-knn info FILE [--input-dtype T]

Of an .npy file: shape, dtype, order, byte order, size; after reading all of it,
the rows with NaN or infinity, the rows of zeros, and the norms of the rest. Of
a result (.pkl, .npz): what was searched, and how.

      --input-dtype T  what raw two-byte data is, such as bfloat16
  -h, --help           this page

example: tiny-knn info docs.npy
)";

namespace {

constexpr int kLabelWidth = 14;

struct InfoTexts {
  std::string path;
  std::optional<std::string> input_dtype;
};

void Declare(FlagParser& parser, InfoTexts& texts) {
  parser.Value("--input-dtype", &texts.input_dtype);
  parser.Positional("FILE", &texts.path);
}

void Line(std::string_view label, const std::string& value, Console& console) {
  console.Out(PadRight(label, kLabelWidth) + OneLine(value) + "\n");
}

int64_t FileSize(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 ? info.st_size : 0;
}

bool IsRegularFile(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

// The file's first bytes, as many as an .npy header may need; fewer if it is shorter.
std::vector<uint8_t> ReadStart(const std::string& path) {
  std::vector<uint8_t> start(static_cast<size_t>(12 + kMaxNpyHeaderBytes));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(start.data()), static_cast<std::streamsize>(start.size()));
  start.resize(static_cast<size_t>(file.gcount()));
  return start;
}

absl::Status ResultInfo(const std::string& path, bool is_zip, Console& console) {
  const absl::StatusOr<ResultFile> result = ReadResult(path);
  if (!result.ok()) return AsBadInput(result.status());
  const ResultMetadata& data = result->metadata;
  Line("file", path, console);
  Line("kind", is_zip ? "search result (.npz)" : "search result (pickle)", console);
  Line("size", fmt::format("{} ({} bytes)", FormatBytes(FileSize(path)), FileSize(path)), console);
  Line("queries", fmt::format("{}", data.num_queries), console);
  Line("k", fmt::format("{}", data.k), console);
  Line("indices", fmt::format("[{}, {}] int64", data.num_queries, data.k), console);
  Line("scores", fmt::format("[{}, {}] {}", data.num_queries, data.k, DTypeName(data.score_dtype)),
       console);
  const auto text = [&](std::string_view label, const std::string& value) {
    if (!value.empty()) Line(label, value, console);
  };
  text("queries file", data.queries_path);
  text("docs file", data.docs_path);
  if (data.is_part()) {
    Line("part",
         fmt::format("docs {}:{} of {}, for k={}", data.part.docs_begin, data.part.docs_end,
                     data.part.num_docs, data.part.k_wanted),
         console);
  }
  if (!data.docs_manifest.empty()) {
    Line("docs files",
         fmt::format("{}", std::count(data.docs_manifest.begin(), data.docs_manifest.end(), '\n')),
         console);
  }
  text("metric", data.metric);
  text("dtype", data.dtype);
  text("exclude self", data.exclude_self ? "yes" : "");
  text("device", data.device);
  if (data.batch_size > 0) Line("batch size", fmt::format("{}", data.batch_size), console);
  text("written by", data.tiny_knn_version.empty() ? "" : "tiny-knn " + data.tiny_knn_version);
  return absl::OkStatus();
}

std::string Share(int64_t rows, int64_t of) {
  if (rows == 0) return "0";
  return fmt::format("{} ({:.3g}%)", rows,
                     100.0 * static_cast<double>(rows) / static_cast<double>(of));
}

absl::Status NpyInfo(const std::string& path, std::optional<DType> input_dtype, Console& console) {
  absl::StatusOr<std::unique_ptr<RowSource>> source = OpenNpyRowSource(path, input_dtype);
  if (!source.ok()) return AsBadInput(source.status());
  const absl::StatusOr<NpyHeader> header = ParseNpyHeader(ReadStart(path), input_dtype);
  if (!header.ok()) return header.status();
  const int64_t file_bytes = FileSize(path);

  Line("file", path, console);
  Line("kind", "matrix (.npy)", console);
  Line("size", fmt::format("{} ({} bytes)", FormatBytes(file_bytes), file_bytes), console);
  Line("rows", fmt::format("{}", header->rows), console);
  Line("dim", fmt::format("{}", header->dim), console);
  Line("dtype", std::string(DTypeName(header->dtype)), console);
  Line("order", header->fortran_order ? "Fortran (read through a transposing buffer)" : "C",
       console);
  const bool single_bytes = ItemSize(header->dtype) == 1;
  Line("byte order",
       single_bytes         ? "none (one byte)"
       : header->swap_bytes ? "big endian (swapped while reading)"
                            : "little endian",
       console);
  const int64_t trailing = file_bytes - header->data_offset - header->data_bytes();
  if (trailing > 0) Line("after data", fmt::format("{} bytes, ignored", trailing), console);
  // What is known so far is shown while the rest is read.
  absl::Status status = console.Flush();
  if (!status.ok()) return status;

  const absl::StatusOr<MatrixStats> stats = ComputeMatrixStats(**source);
  if (absl::IsResourceExhausted(stats.status())) {
    // The source's own advice is for a search.
    return absl::ResourceExhaustedError(fmt::format(
        "{}: a row of {} {} values, in this order and byte order, does not fit into the "
        "memory that is free",
        path, header->dim, DTypeName(header->dtype)));
  }
  if (!stats.ok()) return stats.status();
  Line("rows with NaN", Share(stats->rows_with_nan, header->rows), console);
  Line("rows with Inf", Share(stats->rows_with_inf, header->rows), console);
  Line("zero rows", Share(stats->zero_rows, header->rows), console);
  if (stats->finite_rows == 0) {
    Line("norms", "none: no finite row", console);
  } else {
    Line("norms",
         fmt::format("min {:.6g}, mean {:.6g}, max {:.6g}", stats->min_norm, stats->mean_norm,
                     stats->max_norm),
         console);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status InfoVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("info", "FILE [--input-dtype T]");
  InfoTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kInfoHelp, console)) return status;
  std::optional<DType> input_dtype;
  if (texts.input_dtype) {
    input_dtype = ParseDType(*texts.input_dtype);
    if (!input_dtype) {
      return absl::InvalidArgumentError(fmt::format("--input-dtype expects one of {}, found '{}'",
                                                    FileDTypeNames(), OneLine(*texts.input_dtype)));
    }
  }
  // Only a regular file is looked into here: opening a FIFO would wait for its writer.
  if (IsRegularFile(texts.path)) {
    const std::vector<uint8_t> start = ReadStart(texts.path);
    if (LooksLikeResult(start)) return ResultInfo(texts.path, start[0] == 'P', console);
  }
  return NpyInfo(texts.path, input_dtype, console);
}

VerbFlags InfoVerbFlags() { return DeclaredFlags<InfoTexts>(Declare); }

}  // namespace tiny_knn
