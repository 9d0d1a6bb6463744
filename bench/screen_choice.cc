// What the planner's choice of a screen costs: every shape of a grid is searched with each screen,
// in turn, and with the one that the planner chooses compared with the faster one. With --worst,
// docs that are made to make codes useless: there what counts is how much is lost against float32.
//
//   bazel run -c opt //bench:screen_choice -- [--worst] [--rounds N] [--queries N,...] [--docs
//   N,...]
//       [--dims N,...] [--k N,...]                                              (one line)
//
// Prints a line for each shape, and at the end the greatest losses.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/cpu/cpu_engine.h"
#include "core/io/row_source.h"
#include "core/matrix/aligned_vector.h"
#include "core/search/engine.h"
#include "core/search/isa.h"
#include "core/search/planner.h"
#include "core/search/search.h"

namespace tiny_knn {
namespace {

class DiscardingSink : public TopKSink {
 public:
  absl::Status Take(int64_t, const TopKView&) override { return absl::OkStatus(); }
};

struct Rows {
  AlignedVector<float> values;
  int64_t rows;
  int64_t dim;
};

struct Case {
  std::string name;
  const Rows* queries;
  const Rows* docs;
  int64_t k;
};

Rows GaussianRows(int64_t rows, int64_t dim, unsigned seed) {
  // A long stretch of numbers again and again, at another offset for each row: made quickly.
  static const AlignedVector<float> numbers = [] {
    AlignedVector<float> made(size_t{1} << 22);
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (float& value : made) value = normal(random);
    return made;
  }();
  Rows result{AlignedVector<float>(static_cast<size_t>(rows * dim)), rows, dim};
  std::mt19937_64 random(seed);
  for (int64_t row = 0; row < rows; ++row) {
    const size_t first = random() % (numbers.size() - static_cast<size_t>(dim));
    std::copy_n(numbers.begin() + static_cast<int64_t>(first), dim,
                result.values.begin() + row * dim);
  }
  return result;
}

struct Timing {
  double seconds = 0;
  SearchReport report;
};

double Now(bool cpu_time) {
  timespec now{};
  clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct How {
  bool worst = false;
  bool cpu_time = false;
  int64_t rounds = 3;
};

// Short searches are repeated for so long.
constexpr double kLeastSeconds = 0.02;
// Threads that meet soon again spin for less than this. What they worked is counted when they
// sleep.
constexpr std::chrono::milliseconds kUntilThreadsSleep(1);

// The time of one search.
Timing Search(Engine& engine, const Case& problem, const ProblemShape& shape,
              const MachineLimits& limits, bool cpu_time) {
  const auto source = [](const char* name, const Rows& rows) {
    return MakeMemoryRowSource(name, {rows.values.data(), DType::kFloat32, rows.rows, rows.dim,
                                      rows.dim * int64_t{sizeof(float)}});
  };
  const auto queries = source("queries", *problem.queries);
  const auto docs = source("docs", *problem.docs);
  const SearchParams params{.k = problem.k, .metric = shape.metric};
  const SearchPlan plan = PlanSearch(shape, limits).value();
  DiscardingSink sink;
  Timing timing;
  double searches = 0;
  if (cpu_time) std::this_thread::sleep_for(kUntilThreadsSleep);
  const double first = Now(/*cpu_time=*/false);
  const double start = Now(cpu_time);
  for (; searches == 0 || Now(/*cpu_time=*/false) - first < kLeastSeconds; ++searches) {
    auto report = engine.Search(*queries, *docs, params, plan, nullptr, sink);
    if (!report.ok()) {
      fmt::print(stderr, "{}: {}\n", problem.name, report.status().ToString());
      std::exit(1);
    }
    timing.report = *report;
  }
  if (cpu_time) std::this_thread::sleep_for(kUntilThreadsSleep);
  timing.seconds = (Now(cpu_time) - start) / searches;
  return timing;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Loss {
  double share;  // of the faster screen's time
  std::string line;
};

Loss Measure(Engine& engine, const Case& problem, const How& how) {
  const ProblemShape shape{.num_queries = problem.queries->rows,
                           .num_docs = problem.docs->rows,
                           .dim = problem.docs->dim,
                           .k = problem.k,
                           .docs_in_callers_memory = true};
  MachineLimits limits{.threads = static_cast<int>(std::thread::hardware_concurrency()),
                       .memory_limit_bytes = int64_t{12} << 30,
                       .has_int8_dot_products = HasInt8DotProducts(),
                       .has_int8_tiles = HasInt8Tiles()};
  const ScreenKind chosen = PlanSearch(shape, limits)->screen;
  std::vector<ScreenKind> screens = {ScreenKind::kFloat32Gemm, ScreenKind::kInt8Codes};
  if (HasInt8Tiles()) screens.push_back(ScreenKind::kInt16Codes);
  std::vector<double> seconds[3];
  SearchReport report;
  for (int64_t round = 0; round <= how.rounds; ++round) {
    for (const ScreenKind screen : screens) {
      limits.screen = screen;
      const Timing timing = Search(engine, problem, shape, limits, how.cpu_time);
      if (screen == ScreenKind::kInt8Codes) report = timing.report;
      if (round > 0) seconds[static_cast<size_t>(screen)].push_back(timing.seconds);
    }
  }
  double taken = 0;
  double best = 0;
  std::string times;
  for (const ScreenKind screen : screens) {
    const double median = Median(seconds[static_cast<size_t>(screen)]);
    times += fmt::format("{:>10.5f} ", median);
    if (screen == chosen) taken = median;
    // The worst docs are compared with the first, float32.
    if (best == 0 || (!how.worst && median < best)) best = median;
  }
  const double per_query = 1 / static_cast<double>(problem.queries->rows);
  const Loss loss{
      taken / best - 1,
      fmt::format("{:<14} {:>5} {:>7} {:>5} {:>6} {} {:<12} {:>5.0f}% {:>9.1f} {:>5}", problem.name,
                  problem.queries->rows, problem.docs->rows, problem.docs->dim, problem.k, times,
                  ScreenKindName(chosen), 100 * (taken / best - 1),
                  static_cast<double>(report.refined_pairs) * per_query, report.repeated_queries)};
  fmt::print("{}\n", loss.line);
  std::fflush(stdout);
  return loss;
}

// What is hard for a screen or for a selection.
std::vector<std::pair<std::string, std::function<void(Rows&)>>> WorstDocs() {
  return {
      {"sorted",  // every doc beats those before it
       [](Rows& docs) {
         for (int64_t row = 0; row < docs.rows; ++row) {
           const float growth = 1 + static_cast<float>(row) / static_cast<float>(docs.rows);
           for (int64_t j = 0; j < docs.dim; ++j) {
             float& value = docs.values[static_cast<size_t>(row * docs.dim + j)];
             value = growth + 0.01F * value;
           }
         }
       }},
      {"identical",
       [](Rows& docs) {
         for (int64_t row = 1; row < docs.rows; ++row) {
           std::copy_n(docs.values.begin(), docs.dim, docs.values.begin() + row * docs.dim);
         }
       }},
      {"one huge dim",  // takes nearly all of a code's range
       [](Rows& docs) {
         for (int64_t row = 0; row < docs.rows; ++row) {
           docs.values[static_cast<size_t>(row * docs.dim)] *= 1000;
         }
       }},
      {"near the same",  // closer than codes can tell
       [](Rows& docs) {
         for (int64_t row = 1; row < docs.rows; ++row) {
           for (int64_t j = 0; j < docs.dim; ++j) {
             float& value = docs.values[static_cast<size_t>(row * docs.dim + j)];
             value = docs.values[static_cast<size_t>(j)] + 1e-4F * value;
           }
         }
       }},
  };
}

void MeasureAll(const std::vector<int64_t>& queries, const std::vector<int64_t>& docs,
                const std::vector<int64_t>& dims, const std::vector<int64_t>& ks, const How& how) {
  const auto engine = MakeCpuEngine();
  std::vector<Loss> losses;
  fmt::print("{:<14} {:>5} {:>7} {:>5} {:>6} {:>10} {:>10} {:>10}  {:<12} {:>6} {:>9}\n", "docs",
             "Q", "D", "dim", "k", "float32 s", "int8 s", HasInt8Tiles() ? "int16 s" : "", "chosen",
             "loss", "refined/q");
  for (const int64_t dim : dims) {
    for (const int64_t num_docs : docs) {
      std::vector<std::pair<std::string, Rows>> matrices;
      if (how.worst) {
        for (const auto& [name, spoil] : WorstDocs()) {
          matrices.emplace_back(name, GaussianRows(num_docs, dim, 2));
          spoil(matrices.back().second);
        }
      } else {
        matrices.emplace_back("Gaussian", GaussianRows(num_docs, dim, 2));
      }
      for (const int64_t num_queries : queries) {
        const Rows query_rows = GaussianRows(num_queries, dim, 1);
        for (const auto& [name, rows] : matrices) {
          for (const int64_t k : ks) {
            if (k > num_docs) continue;
            losses.push_back(Measure(*engine, {name, &query_rows, &rows, k}, how));
          }
        }
      }
    }
  }
  std::sort(losses.begin(), losses.end(),
            [](const Loss& a, const Loss& b) { return a.share > b.share; });
  fmt::print("\ngreatest losses of {}:\n", losses.size());
  for (size_t i = 0; i < std::min<size_t>(12, losses.size()); ++i) {
    fmt::print("{}\n", losses[i].line);
  }
}

}  // namespace
}  // namespace tiny_knn

int main(int argc, char** argv) {
  CLI::App app("What the planner's choice of a screen costs");
  tiny_knn::How how;
  std::vector<int64_t> queries{1, 8, 16, 32, 64, 128, 256, 1024};
  std::vector<int64_t> docs{2048, 20'000, 100'000};
  std::vector<int64_t> dims{16, 32, 64, 128, 384, 768, 1536};
  std::vector<int64_t> ks{1, 10, 100, 1000, 5000};
  app.add_flag("--worst", how.worst, "docs that codes cannot tell apart");
  app.add_flag("--cpu-time", how.cpu_time, "what all threads work");
  app.add_option("--rounds", how.rounds, "medians of so many")->check(CLI::PositiveNumber);
  app.add_option("--queries", queries)->delimiter(',');
  app.add_option("--docs", docs)->delimiter(',');
  app.add_option("--dims", dims)->delimiter(',');
  app.add_option("--k", ks)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  tiny_knn::MeasureAll(queries, docs, dims, ks, how);
  return 0;
}
