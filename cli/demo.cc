// `tiny-knn demo`: the main job on bundled word vectors, as something worth looking at.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/flags.h"
#include "cli/labels.h"
#include "cli/text.h"
#include "cli/values.h"
#include "cli/verbs.h"
#include "core/io/row_source.h"
#include "core/job/machine_limits.h"
#include "core/job/one_line.h"
#include "core/job/run_job.h"
#include "core/job/verify.h"
#include "core/matrix/matrix_view.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "fmt/format.h"
#include "gpu/open_engine.h"

namespace tiny_knn {

const std::string_view kDemoHelp =
    R"(tiny-knn demo: nearest words of a few words, from bundled data

usage: tiny-knn demo [WORD ...] [flags]

Searches the vectors of some words among those of 20,000 words (GloVe, public
domain), exactly, by cosine, and then repeats every search in exact arithmetic.

      --top N     words per query word (default 8)
      --data DIR  folder with docs.npy and words.txt (default: as installed)
  -h, --help      this page

example: tiny-knn demo river guitar einstein
)";

namespace {

constexpr std::array<const char*, 5> kDefaultWords = {"paris", "guitar", "physics", "happy",
                                                      "tuesday"};
constexpr int kPageWidth = 80;
constexpr int64_t kMostTop = 1000;

// <folder of this program>/../share/tiny-knn/words.
std::string InstalledData() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "share/tiny-knn/words";
  return (program.parent_path().parent_path() / "share/tiny-knn/words").string();
}

struct WordData {
  std::unique_ptr<RowSource> docs;
  std::vector<std::string> words;  // of every row of docs
};

absl::StatusOr<WordData> OpenWords(const std::string& folder) {
  const std::string docs_path = (std::filesystem::path(folder) / "docs.npy").string();
  const std::string words_path = (std::filesystem::path(folder) / "words.txt").string();
  WordData data;
  absl::StatusOr<std::unique_ptr<RowSource>> docs = OpenNpyRowSource(docs_path, std::nullopt);
  if (absl::IsNotFound(docs.status())) {
    return absl::NotFoundError(
        fmt::format("no demo data in {} (docs.npy and words.txt); say where it is with --data DIR, "
                    "in a checkout examples/words",
                    folder));
  }
  if (!docs.ok()) return AsBadInput(docs.status());
  absl::StatusOr<std::vector<std::string>> words = ReadAllLabels(words_path);
  if (!words.ok()) return words.status();
  data.docs = *std::move(docs);
  data.words = *std::move(words);
  if (static_cast<int64_t>(data.words.size()) != data.docs->rows()) {
    return absl::InvalidArgumentError(
        fmt::format("{} has {}, {} has {}: they must be as many", words_path,
                    Plural(static_cast<int64_t>(data.words.size()), "word", "words"), docs_path,
                    Plural(data.docs->rows(), "row", "rows")));
  }
  if (data.docs->rows() < 2) {
    return absl::InvalidArgumentError(
        fmt::format("{} has fewer than 2 rows: there is nothing to find", docs_path));
  }
  return data;
}

// The row of each word; an unknown word is InvalidArgument naming those that are spelt alike.
absl::StatusOr<std::vector<int64_t>> FindWords(const std::vector<std::string>& wanted,
                                               const std::vector<std::string>& words) {
  std::vector<int64_t> rows;
  for (const std::string& word : wanted) {
    auto found = std::find(words.begin(), words.end(), word);
    if (found == words.end()) {
      std::string lower = word;
      for (char& c : lower) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      }
      found = std::find(words.begin(), words.end(), lower);
      if (found == words.end()) {
        const std::vector<std::string> near = NearestWords(lower, words, 3);
        std::string hint = "; try a common English word";
        if (!near.empty()) {
          hint = "; did you mean " + near[0];
          for (size_t i = 1; i < near.size(); ++i)
            hint += (i + 1 < near.size() ? ", " : " or ") + near[i];
          hint += "?";
        }
        return absl::InvalidArgumentError(
            fmt::format("'{}' is not one of the {} words{}", OneLine(word), words.size(), hint));
      }
    }
    rows.push_back(found - words.begin());
  }
  return rows;
}

// Copies of some rows of `docs`, back to back.
absl::StatusOr<std::vector<std::byte>> CopyRows(RowSource& docs, const std::vector<int64_t>& rows) {
  const auto row_bytes = static_cast<size_t>(docs.dim() * ItemSize(docs.dtype()));
  std::vector<std::byte> bytes(row_bytes * rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const absl::StatusOr<MatrixView> view = docs.Rows(rows[i], rows[i] + 1);
    if (!view.ok()) return view.status();
    std::memcpy(bytes.data() + i * row_bytes, view->Row(0), row_bytes);
  }
  docs.Release();
  return bytes;
}

// Keeps all results. Scores are float: the demo computes in float32.
class KeepingSink : public TopKSink {
 public:
  absl::Status Take(int64_t, const TopKView& results) override {
    const int64_t count = results.num_queries * results.k;
    const auto* batch_scores = static_cast<const float*>(results.scores);
    indices.insert(indices.end(), results.indices, results.indices + count);
    scores.insert(scores.end(), batch_scores, batch_scores + count);
    return absl::OkStatus();
  }
  std::vector<int64_t> indices;
  std::vector<float> scores;
};

struct Neighbour {
  std::string word;
  float score;
};

// Columns of neighbours side by side, as many as a page has room for.
std::string Columns(const std::vector<std::string>& titles,
                    const std::vector<std::vector<Neighbour>>& neighbours) {
  constexpr int kScoreWidth = 5;  // "0.912"; "-0.91"
  constexpr int kGap = 3;
  int word_width = 4;
  for (size_t i = 0; i < titles.size(); ++i) {
    word_width = std::max(word_width, DisplayWidth(titles[i]) - kScoreWidth - 1);
    for (const Neighbour& neighbour : neighbours[i]) {
      word_width = std::max(word_width, DisplayWidth(neighbour.word));
    }
  }
  const int column_width = word_width + 1 + kScoreWidth;
  const auto per_block =
      static_cast<size_t>(std::max(1, (kPageWidth + kGap) / (column_width + kGap)));
  std::string text;
  for (size_t begin = 0; begin < titles.size(); begin += per_block) {
    const size_t end = std::min(begin + per_block, titles.size());
    std::vector<std::string> lines(2);
    for (size_t i = begin; i < end; ++i) {
      lines[0] += PadRight(titles[i], column_width + kGap);
      lines[1] += std::string(static_cast<size_t>(column_width), '-') + std::string(kGap, ' ');
    }
    for (size_t rank = 0; rank < neighbours[begin].size(); ++rank) {
      std::string& line = lines.emplace_back();
      for (size_t i = begin; i < end; ++i) {
        const Neighbour& neighbour = neighbours[i][rank];
        line += PadRight(neighbour.word, word_width) + ' ' +
                PadLeft(fmt::format("{:.3f}", neighbour.score), kScoreWidth) +
                std::string(kGap, ' ');
      }
    }
    if (begin > 0) text += '\n';
    for (const std::string& line : lines) {
      text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    }
  }
  return text;
}

// The nearest words of each row, the word itself left out. One more than is shown was searched: the
// word itself need not be the first, and need not be there at all (a row of zeros).
std::vector<std::vector<Neighbour>> DropSelf(const KeepingSink& results,
                                             const std::vector<int64_t>& rows, int64_t k,
                                             const std::vector<std::string>& words) {
  std::vector<std::vector<Neighbour>> all;
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<Neighbour>& mine = all.emplace_back();
    for (int64_t rank = 0; rank < k; ++rank) {
      const size_t at = i * static_cast<size_t>(k) + static_cast<size_t>(rank);
      if (results.indices[at] == rows[i]) continue;
      mine.push_back({words[static_cast<size_t>(results.indices[at])], results.scores[at]});
    }
    mine.resize(std::min(mine.size(), static_cast<size_t>(k - 1)));
  }
  return all;
}

absl::Status Demo(const std::vector<std::string>& asked, const std::string& folder, int64_t top,
                  Console& console) {
  absl::StatusOr<WordData> data = OpenWords(folder);
  if (!data.ok()) return data.status();
  RowSource& docs = *data->docs;
  const absl::StatusOr<std::vector<int64_t>> rows = FindWords(asked, data->words);
  if (!rows.ok()) return rows.status();
  const absl::StatusOr<std::vector<std::byte>> query_bytes = CopyRows(docs, *rows);
  if (!query_bytes.ok()) return query_bytes.status();
  const auto num_queries = static_cast<int64_t>(rows->size());
  const std::unique_ptr<RowSource> queries =
      MakeMemoryRowSource("the words asked for", {query_bytes->data(), docs.dtype(), num_queries,
                                                  docs.dim(), docs.dim() * ItemSize(docs.dtype())});

  const SearchParams params{std::min(top + 1, docs.rows()), Metric::kCosine, DType::kFloat32,
                            false};
  absl::Status status = ValidateSearch(*queries, docs, params);
  if (!status.ok()) return status;
  const ProblemShape shape{.num_queries = num_queries,
                           .num_docs = docs.rows(),
                           .dim = docs.dim(),
                           .k = params.k,
                           .metric = params.metric,
                           .query_dtype = queries->dtype(),
                           .doc_dtype = docs.dtype(),
                           .compute_dtype = params.compute_dtype,
                           .query_buffer_bytes_per_row = queries->buffer_bytes_per_row(),
                           .doc_buffer_bytes_per_row = docs.buffer_bytes_per_row()};
  const absl::StatusOr<SearchPlan> plan = PlanSearch(
      shape,
      {.threads = UsableCpus(), .memory_limit_bytes = DefaultMemoryLimit(AvailableMemoryBytes())});
  if (!plan.ok()) return plan.status();
  absl::StatusOr<OpenedEngine> opened = OpenEngine({});
  if (!opened.ok()) return opened.status();

  KeepingSink results;
  const auto start = std::chrono::steady_clock::now();
  const absl::StatusOr<SearchReport> report =
      opened->engine->Search(*queries, docs, params, *plan, nullptr, results);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!report.ok()) return report.status();

  std::vector<std::string> titles;
  for (int64_t row : *rows) titles.push_back(data->words[static_cast<size_t>(row)]);
  console.Out(Columns(titles, DropSelf(results, *rows, params.k, data->words)));
  console.Out(fmt::format("\n{} x {} = {} pairs, dim {}, cosine, searched in {:.1f} ms on {}\n",
                          Plural(num_queries, "word", "words"), docs.rows(),
                          num_queries * docs.rows(), docs.dim(), seconds * 1000,
                          opened->engine->device() == "cpu"
                              ? Plural(plan->threads, "CPU thread", "CPU threads")
                              : std::string(opened->engine->device())));
  status = console.Flush();
  if (!status.ok()) return status;

  int64_t identical = 0;
  std::string first_mismatch;
  for (int64_t query = 0; query < num_queries; ++query) {
    const size_t at = static_cast<size_t>(query * params.k);
    absl::StatusOr<std::string> mismatch =
        FindMismatch(*queries, query, docs, params,
                     {1, params.k, DType::kFloat32, &results.scores[at], &results.indices[at]});
    if (!mismatch.ok()) return mismatch.status();
    identical += mismatch->empty();
    if (first_mismatch.empty()) first_mismatch = *std::move(mismatch);
  }
  console.Out(fmt::format("checked against exact arithmetic: {} of {} identical\n", identical,
                          num_queries));
  if (!first_mismatch.empty()) {
    return absl::InternalError(
        fmt::format("this is a bug in tiny-knn, please report it: {}", first_mismatch));
  }
  return absl::OkStatus();
}

struct DemoTexts {
  std::optional<std::string> data, top;
  std::vector<std::string> words;
};

void Declare(FlagParser& parser, DemoTexts& texts) {
  parser.Value("--data", &texts.data);
  parser.Value("--top", &texts.top);
  parser.Positionals("WORD", &texts.words);
}

}  // namespace

absl::Status DemoVerb(const std::vector<std::string>& args, Console& console) {
  FlagParser parser("demo", "[WORD ...] [flags]");
  DemoTexts texts;
  Declare(parser, texts);
  absl::Status status = parser.Parse(args);
  if (!status.ok() || PrintedHelp(parser, kDemoHelp, console)) return status;
  int64_t top = 8;
  if (texts.top) {
    const absl::StatusOr<int64_t> asked = ParseCount("--top", *texts.top, 1, kMostTop);
    if (!asked.ok()) return asked.status();
    top = *asked;
  }
  if (texts.words.empty()) texts.words.assign(kDefaultWords.begin(), kDefaultWords.end());
  return Demo(texts.words, texts.data.value_or(InstalledData()), top, console);
}

VerbFlags DemoVerbFlags() { return DeclaredFlags<DemoTexts>(Declare); }

}  // namespace tiny_knn
