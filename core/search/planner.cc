#include "core/search/planner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/matrix/dtype.h"
#include "core/search/screen_cost.h"

namespace tiny_knn {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// A block of docs is screened by every query while it lies in the shared cache.
constexpr int64_t kDocBlockBytes = 6 * kMiB;
constexpr int64_t kMaxDocBlock = 65536;
// Codes are four or two times smaller than the rows that they were made of and which are wanted
// again to refine: those stay in cache too, if they are no more than this, or than this for each
// thread, whose caches then hold them.
constexpr int64_t kFetchedBlockBytes = 8 * kMiB;
constexpr int64_t kFetchedBlockBytesPerThread = kMiB;
// Fetched rows lie in huge pages.
constexpr int64_t kHugePageBytes = 2 * kMiB;
// A score tile and the rows behind it stay in a core's own cache. The GEMM library copies a tile's
// docs to where it wants them, each time: for more queries, that is less of its work.
constexpr int64_t kCodedQueryTile = 128;
constexpr int64_t kGemmQueryTile = 256;
constexpr int64_t kDocTile = 512;
// What the GEMM library takes for its packed panels, per thread (measured, oneDNN 2.6.3).
constexpr int64_t kGemmWorkspaceBytes = 2 * kMiB;
// Candidates beyond 2 k: room for what comes before the first threshold stands.
constexpr int64_t kExtraCandidates = 128;
// Float32 lower bound, int32 doc, and the exact score once it is known.
constexpr int64_t kCandidateBytes = 4 + 4 + 8;
// Survivors of codes wait to be refined: so many, or so many times k. The more there are, the fewer
// of them are refined in the end; these fit a core's cache where queries are few. Where docs are
// not kept, they take no more than this share of the memory limit.
constexpr int64_t kLeastWaiting = 2048;
constexpr int64_t kWaitingPerResult = 6;
constexpr int64_t kWaitingShare = 8;
// Float32 lower bound and int32 doc.
constexpr int64_t kWaitingBytes = 4 + 4;
// Norm and two screen offsets, float32 each.
constexpr int64_t kDocScalarBytes = 12;
// Thresholds, norms and other scalars of a query.
constexpr int64_t kQueryScalarBytes = 128;
// A block of codes takes no more than this share of the memory limit, its rows included.
constexpr int64_t kBlockShare = 4;
// Blocks of very long rows hold few docs; below this the GEMM has nothing to work with.
constexpr int64_t kLeastDocBlock = 16;
// Thresholds are guessed from one doc in so many, but from no fewer and no more than so many: for a
// large k, where the guess stands until the end, from more.
struct SampleSize {
  int64_t docs_per_sampled;
  int64_t most;
};
constexpr SampleSize kSample = {32, 8192};
constexpr SampleSize kLargeSample = {16, 32768};
constexpr int64_t kLeastSample = 128;
constexpr int64_t kLeastLargeSampleK = 256;
// Few queries are bound by memory, and would read the sample for little.
constexpr int64_t kLeastSampledQueries = 64;
// As many standard deviations of the sample's count of docs above the k-th best, and so many docs,
// are added to its mean: a guess fails once in some ten thousand.
constexpr double kSampleDeviations = 4;
constexpr int64_t kSampleSlack = 4;
// Bounds of a sampled doc.
constexpr int64_t kSampledDocBytes = 28;
// What a transposing reader stages a file's columns in.
constexpr int64_t kReaderStagingBytes = 2 * kMiB;
// Codes of fewer docs, and of longer rows, are not tried; the cost says nothing of those.
constexpr int64_t kLeastCodedDocs = 4096;
// Where more of the docs are results, most survive one digit.
constexpr int64_t kLeastCodedDocsPerResult = 8;
constexpr int64_t kMostCodedDim = 65536;
// Norms of a row's codes and of what they leave, its scale, and for cosine 1 / its norm, float32
// each.
constexpr int64_t kCodedDocScalarBytes = 16;
// Docs whose codes lie together, and those that are put there at once.
constexpr int64_t kCodedPanel = 64;
constexpr int64_t kCodedLanes = 16;
// Rows of queries' codes are made of these bytes.
constexpr int64_t kCodeLine = 64;
// Chunks of fewer bytes would take more time to finish than it takes to copy rows together that lie
// in too many files.
constexpr int64_t kLeastChunkBytes = 256 * kMiB;
// Where the state is saved between chunks, a chunk is some seconds of multiplications or of
// reading, but long enough for its survivors to be few.
constexpr int64_t kSavedChunkProducts = int64_t{1} << 37;
constexpr int64_t kSavedChunkBytes = int64_t{1} << 31;
constexpr int64_t kLeastSavedChunk = 16384;
constexpr int64_t kLeastSavedChunkPerResult = 8;
// Docs of so many chunks are much larger than the memory that a search may use: they do not go
// through the page cache either. With fewer they might as well have been held in memory.
constexpr int64_t kLeastChunksPastCache = 4;
// Beyond these the sums below could overflow.
constexpr int64_t kLargestDim = int64_t{1} << 40;
constexpr int64_t kLargestK = int64_t{1} << 48;
// Docs of a chunk are counted by 32-bit numbers.
constexpr int64_t kMaxDocChunk = std::numeric_limits<int32_t>::max() - kMaxDocBlock;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of a batch by purpose, per query.
struct QueryBytes {
  int64_t rows;
  int64_t candidates;
  int64_t results;
  int64_t total() const { return rows + candidates + results; }
};

QueryBytes BytesPerQuery(const ProblemShape& shape, const MachineLimits& limits,
                         const SearchPlan& plan) {
  const int64_t score_bytes = ItemSize(WorkingDType(shape.compute_dtype));
  // Rows as converted, in double for rescoring, and in float32 for the screen.
  const int64_t row_bytes = shape.dim * (score_bytes + 8 + 4);
  // Lines of codes, one more for a row's end, one to spread rows.
  // Where codes of one digit say too little, they get another (BatchSearch::JudgeCodes).
  const int64_t digits =
      HasCodes(plan.screen) && limits.has_int8_tiles ? 2 : CodeDigits(plan.screen);
  const int64_t code_bytes = digits * (shape.dim + 4 * kCodeLine);
  // The top k so far, and the same as it is saved or was found saved.
  const int64_t exact_bytes = (shape.k + 1) * (limits.saves_state ? 64 : 16);
  const int64_t waiting_bytes =
      plan.waiting_capacity > 0 ? (plan.waiting_capacity + kCandidatePadding) * kWaitingBytes : 0;
  const int64_t candidate_bytes = (plan.candidate_capacity + kCandidatePadding) * kCandidateBytes;
  return {row_bytes + code_bytes + shape.query_buffer_bytes_per_row + kQueryScalarBytes,
          plan.doc_splits * (candidate_bytes + waiting_bytes),
          exact_bytes + shape.k * (8 + score_bytes)};
}

// A file's rows count as resident whether they are mapped or buffered; the caller's own do not
// count.
int64_t BytesPerDoc(const ProblemShape& shape, ScreenKind screen) {
  const int64_t coded = HasCodes(screen) ? kCodedDocScalarBytes : 0;
  const int64_t rows = shape.docs_in_callers_memory ? 0 : shape.dim * ItemSize(shape.doc_dtype);
  return rows + kDocScalarBytes + coded;
}

int64_t MostDocsOfSavedChunk(const ProblemShape& shape, int64_t queries) {
  const int64_t dim = std::max<int64_t>(1, shape.dim);
  const int64_t by_products = kSavedChunkProducts / dim / queries;
  const int64_t by_bytes = kSavedChunkBytes / (dim * ItemSize(shape.doc_dtype));
  return std::max(
      {std::min(by_products, by_bytes), kLeastSavedChunk, kLeastSavedChunkPerResult * shape.k});
}

// With codes fewer of them are used, as long as codes are (screen_cost.h).
int64_t CandidateCapacity(int64_t k, int64_t num_docs) {
  return std::min(2 * k, num_docs) + kExtraCandidates;
}

// Docs of a chunk that thresholds are guessed from, and which rank among them counts; 0: none.
struct Sample {
  int64_t docs = 0;
  int64_t rank = 0;
};

Sample SampleOf(int64_t chunk_docs, int64_t k, int64_t candidate_capacity) {
  const SampleSize& size = k < kLeastLargeSampleK ? kSample : kLargeSample;
  const int64_t docs = std::min(chunk_docs / size.docs_per_sampled, size.most);
  if (docs < kLeastSample) return {};
  const double expected =
      static_cast<double>(k) * static_cast<double>(docs) / static_cast<double>(chunk_docs);
  const int64_t rank =
      static_cast<int64_t>(expected + kSampleDeviations * std::sqrt(expected)) + kSampleSlack;
  // Beyond that a guess says too little.
  if (rank > docs / 4 || rank > candidate_capacity / 2) return {};
  return {docs, rank};
}

// Of a batch of that many queries.
PassShape PassOf(const ProblemShape& shape, const MachineLimits& limits, int64_t queries) {
  PassShape pass{.num_queries = queries,
                 .num_docs = shape.num_docs,
                 .dim = shape.dim,
                 .k = shape.k,
                 .docs_are_prepared = limits.keeps_docs,
                 .scored_in_one_pass = queries <= kFewQueriesPerThread && !limits.keeps_docs,
                 .has_int8_tiles = limits.has_int8_tiles};
  if (queries >= kLeastSampledQueries) {
    const Sample sample =
        SampleOf(shape.num_docs, shape.k, CandidateCapacity(shape.k, shape.num_docs));
    pass.sample_docs = sample.docs;
    pass.sample_rank = sample.rank;
  }
  if (shape.metric != Metric::kCosine) {
    pass.docs_are_codes = shape.doc_dtype == DType::kInt8 || shape.doc_dtype == DType::kUInt8;
    pass.queries_are_codes = shape.query_dtype == DType::kInt8;
  }
  PassShape waits = pass;
  waits.waiting_capacity = std::max(kLeastWaiting, kWaitingPerResult * shape.k);
  // Where codes are kept, a row may have to be read for each that is refined.
  if (limits.keeps_docs) return waits;
  const int64_t lists = std::max(queries, kFewQueriesPerThread * limits.threads);
  const bool fits =
      waits.waiting_capacity <= limits.memory_limit_bytes / kWaitingShare / kWaitingBytes / lists;
  return fits && Int8CodesCost(waits) < Int8CodesCost(pass) ? waits : pass;
}

ScreenKind ChooseScreen(const ProblemShape& shape, const MachineLimits& limits, int64_t queries) {
  const bool possible =
      WorkingDType(shape.compute_dtype) == DType::kFloat32 && shape.dim <= kMostCodedDim;
  if (!possible) return ScreenKind::kFloat32Gemm;
  if (limits.screen.has_value()) return *limits.screen;
  const bool most_survive = shape.num_docs / kLeastCodedDocsPerResult < shape.k;
  // Docs that are kept have one digit for all searches, those of few queries too, which are bound
  // by how many bytes there are to read.
  const bool two_digits = limits.has_int8_tiles && !limits.keeps_docs;
  if (!limits.has_int8_dot_products || shape.num_docs < kLeastCodedDocs ||
      (most_survive && !two_digits)) {
    return ScreenKind::kFloat32Gemm;
  }
  PassShape pass = PassOf(shape, limits, queries);
  // Whether a file's rows can wait is known when it is read.
  if (shape.docs_are_fetched && !limits.keeps_docs) pass.waiting_capacity = 0;
  const double codes = most_survive ? std::numeric_limits<double>::infinity() : Int8CodesCost(pass);
  const double float32 = Float32GemmCost(pass);
  if (two_digits && Int16CodesCost(pass) < std::min(codes, float32)) return ScreenKind::kInt16Codes;
  return codes < float32 ? ScreenKind::kInt8Codes : ScreenKind::kFloat32Gemm;
}

// The plan for batches of at most `queries`, with docs split `splits` ways. Where the limit is too
// small, only `least_bytes` is set: what it would take.
struct Attempt {
  std::optional<SearchPlan> plan;
  int64_t least_bytes = 0;
};

Attempt PlanWithSplits(const ProblemShape& shape, const MachineLimits& limits, ScreenKind screen,
                       int64_t queries, int64_t splits) {
  SearchPlan plan;
  plan.screen = screen;
  const bool coded = HasCodes(screen);
  plan.threads = limits.threads;
  plan.doc_splits = splits;
  const int64_t num_docs = std::max<int64_t>(shape.num_docs, 1);
  const int64_t block_bytes_per_doc =
      coded ? CodeDigits(screen) * ((shape.dim + 3) / 4 * 4) : shape.dim * 4;
  int64_t docs_in_cache = kDocBlockBytes / block_bytes_per_doc;
  const int64_t stored_row_bytes = shape.dim * ItemSize(shape.doc_dtype);
  if (coded && shape.docs_are_fetched) {
    const int64_t bytes = std::max(kFetchedBlockBytes, plan.threads * kFetchedBlockBytesPerThread);
    docs_in_cache = std::min(docs_in_cache, bytes / stored_row_bytes);
  }
  plan.doc_block = docs_in_cache >= kDocTile
                       ? std::min(docs_in_cache / kDocTile * kDocTile, kMaxDocBlock)
                       : std::max(docs_in_cache, kLeastDocBlock);
  if (coded) plan.doc_block = std::max(plan.doc_block / kCodedPanel * kCodedPanel, kCodedPanel);
  // Under a tight limit queries want that memory more: another pass costs more than smaller blocks.
  const int64_t most_bytes = (limits.memory_limit_bytes - limits.program_bytes) / kBlockShare;
  while (coded && plan.doc_block >= 2 * kDocTile &&
         plan.doc_block * (block_bytes_per_doc + BytesPerDoc(shape, screen)) > most_bytes) {
    plan.doc_block = plan.doc_block / 2 / kDocTile * kDocTile;
  }
  plan.doc_block = std::min(plan.doc_block, num_docs);
  plan.doc_tile = std::min(plan.doc_block, kDocTile);
  plan.query_tile = std::min(queries, coded ? kCodedQueryTile : kGemmQueryTile);
  plan.candidate_capacity = CandidateCapacity(shape.k, num_docs);
  if (screen == ScreenKind::kInt8Codes) {
    plan.waiting_capacity = PassOf(shape, limits, queries).waiting_capacity;
  }

  plan.memory.doc_blocks = (plan.doc_block + (coded ? kCodedPanel : 0)) * block_bytes_per_doc;
  plan.memory.score_tiles =
      plan.threads * (plan.query_tile * plan.doc_tile * 4 + kGemmWorkspaceBytes);
  // Codes on their way to a panel, of two digits perhaps later.
  if (coded) plan.memory.score_tiles += plan.threads * kCodedLanes * 2 * shape.dim;
  plan.memory.doc_blocks +=
      SampleOf(num_docs, shape.k, plan.candidate_capacity).docs * kSampledDocBytes;
  if (shape.docs_are_fetched) {
    plan.memory.doc_blocks +=
        CeilDivide(plan.doc_block * stored_row_bytes, kHugePageBytes) * kHugePageBytes;
  }
  const int64_t candidates = splits * plan.candidate_capacity;
  plan.memory.scratch = plan.threads * ((candidates + splits * plan.waiting_capacity) * 8 +
                                        2 * (candidates + shape.k + 1) * 16);
  for (const int64_t buffer : {shape.query_buffer_bytes_per_row, shape.doc_buffer_bytes_per_row}) {
    if (buffer > 0) plan.memory.scratch += kReaderStagingBytes;
  }
  plan.memory.program = limits.program_bytes;
  const int64_t fixed =
      plan.memory.doc_blocks + plan.memory.score_tiles + plan.memory.scratch + plan.memory.program;
  const QueryBytes per_query = BytesPerQuery(shape, limits, plan);
  const int64_t per_doc = BytesPerDoc(shape, screen);
  const int64_t least = fixed + per_query.total() + plan.doc_block * per_doc;
  if (limits.memory_limit_bytes < least) return {std::nullopt, least};

  // All queries in one pass if they leave half of the memory to the docs; the docs take the rest,
  // in whole blocks, and what is left over then goes to further queries.
  const int64_t available = limits.memory_limit_bytes - fixed;
  const auto queries_in = [&](int64_t bytes) {
    return std::clamp(bytes / per_query.total(), int64_t{1}, queries);
  };
  const int64_t docs_share = std::max(available / 2, plan.doc_block * per_doc);
  const int64_t first_batch = queries_in(available - docs_share);
  plan.doc_chunk =
      std::min({num_docs, kMaxDocChunk, (available - first_batch * per_query.total()) / per_doc});
  if (shape.most_docs_in_place > 0) {
    const int64_t least_rows = std::max(kLeastChunkBytes / stored_row_bytes, plan.doc_block);
    plan.doc_chunk = std::min(plan.doc_chunk, std::max(shape.most_docs_in_place, least_rows));
  }
  if (limits.saves_state) {
    plan.doc_chunk = std::min(plan.doc_chunk, MostDocsOfSavedChunk(shape, first_batch));
    plan.doc_chunk = std::max(plan.doc_chunk, std::min(plan.doc_block, num_docs));
  }
  if (plan.doc_chunk < num_docs) plan.doc_chunk = plan.doc_chunk / plan.doc_block * plan.doc_block;
  plan.query_batch = queries_in(available - plan.doc_chunk * per_doc);
  plan.query_tile = std::min(plan.query_tile, plan.query_batch);
  plan.memory.queries = plan.query_batch * per_query.rows;
  plan.memory.candidates = plan.query_batch * per_query.candidates;
  plan.memory.results = plan.query_batch * per_query.results;
  plan.memory.doc_chunk = plan.doc_chunk * per_doc;
  return {plan, least};
}

}  // namespace

absl::StatusOr<SearchPlan> PlanSearch(const ProblemShape& shape, const MachineLimits& limits) {
  if (shape.dim > kLargestDim || shape.k > kLargestK) {
    return absl::InvalidArgumentError(
        fmt::format("k={}, dim={}: no machine has the memory; k up to {} and dims up to {} can be "
                    "planned for",
                    shape.k, shape.dim, kLargestK, kLargestDim));
  }
  int64_t queries = std::max<int64_t>(shape.num_queries, 1);
  if (limits.requested_batch_size > 0) queries = std::min(queries, limits.requested_batch_size);
  ScreenKind screen = ChooseScreen(shape, limits, queries);
  Attempt unsplit = PlanWithSplits(shape, limits, screen, queries, 1);
  // So little memory that few queries go into a batch, or none.
  if (HasCodes(screen) && !limits.screen.has_value() &&
      (!unsplit.plan.has_value() ||
       ChooseScreen(shape, limits, unsplit.plan->query_batch) != screen)) {
    screen = ScreenKind::kFloat32Gemm;
    unsplit = PlanWithSplits(shape, limits, screen, queries, 1);
  }
  if (!unsplit.plan.has_value()) {
    return absl::InvalidArgumentError(fmt::format(
        "a memory limit of {} is too little for k={}, dim={} and {} threads; pass --memory-limit "
        "{}M or more",
        BytesText(limits.memory_limit_bytes), shape.k, shape.dim, limits.threads,
        CeilDivide(unsplit.least_bytes, kMiB)));
  }
  SearchPlan plan = *unsplit.plan;
  // Where a batch has too few queries for the threads, they split the docs too: as many ways as
  // there is memory for, since each way needs candidate lists of its own.
  for (int64_t splits = limits.threads / CeilDivide(plan.query_batch, kFewQueriesPerThread);
       splits > 1; splits /= 2) {
    const Attempt split = PlanWithSplits(shape, limits, screen, plan.query_batch, splits);
    if (split.plan.has_value()) {
      plan = *split.plan;
      break;
    }
  }

  if (plan.query_batch >= kLeastSampledQueries) {
    const Sample sample = SampleOf(plan.doc_chunk, shape.k, plan.candidate_capacity);
    plan.sample_docs = sample.docs;
    plan.sample_rank = sample.rank;
  }
  plan.num_passes = CeilDivide(shape.num_queries, plan.query_batch);
  plan.num_chunks = CeilDivide(shape.num_docs, plan.doc_chunk);
  plan.reads_past_cache =
      shape.docs_are_fetched && plan.num_passes == 1 && plan.num_chunks >= kLeastChunksPastCache;
  const __int128 bytes_read =
      static_cast<__int128>(plan.num_passes) * shape.num_docs * shape.dim *
          ItemSize(shape.doc_dtype) +
      static_cast<__int128>(shape.num_queries) * shape.dim * ItemSize(shape.query_dtype);
  plan.bytes_read = static_cast<int64_t>(
      std::min(bytes_read, static_cast<__int128>(std::numeric_limits<int64_t>::max())));
  return plan;
}

std::string_view ScreenKindName(ScreenKind kind) {
  switch (kind) {
    case ScreenKind::kFloat32Gemm:
      return "float32 GEMM";
    case ScreenKind::kInt8Codes:
      return "int8 codes";
    case ScreenKind::kInt16Codes:
      return "int16 codes";
  }
  return "float32 GEMM";
}

std::string BytesText(int64_t bytes) {
  if (bytes >= 1024 * kMiB) return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / 0x1p30);
  if (bytes >= kMiB) return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / 0x1p20);
  return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 0x1p10);
}

std::string PlanLine(std::string_view label, std::string_view value) {
  return fmt::format("{:<14}{}\n", label, value);
}

std::string DescribeShape(const ProblemShape& shape) {
  return fmt::format("{} queries x {} docs x {} dims, k={}, metric {}, computed in {}",
                     shape.num_queries, shape.num_docs, shape.dim, shape.k,
                     MetricName(shape.metric), DTypeName(shape.compute_dtype));
}

std::string DescribePlan(const ProblemShape& shape, const SearchPlan& plan) {
  std::string text;
  const auto line = [&text](std::string_view label, const std::string& value) {
    text += PlanLine(label, value);
  };
  line("search", DescribeShape(shape));
  line(
      "screen",
      fmt::format("{}, tiles of {} queries x {} docs, {} threads{}", ScreenKindName(plan.screen),
                  plan.query_tile, plan.doc_tile, plan.threads,
                  plan.doc_splits > 1 ? fmt::format(", docs split {} ways", plan.doc_splits) : ""));
  line("batches", fmt::format("{} of up to {} queries, one pass over the docs each",
                              plan.num_passes, plan.query_batch));
  line("chunks", fmt::format("{} per pass, of up to {} docs", plan.num_chunks, plan.doc_chunk));
  if (plan.sample_docs > 0) {
    line("thresholds", fmt::format("guessed from a sample of {} docs", plan.sample_docs));
  }
  line("bytes read",
       BytesText(plan.bytes_read) +
           (plan.reads_past_cache ? ", past the page cache unless it holds them" : ""));
  line("memory",
       fmt::format("{}: docs {}, queries {}, candidates {}, results {}, blocks {}, tiles {}, "
                   "scratch {}",
                   BytesText(plan.memory.total()), BytesText(plan.memory.doc_chunk),
                   BytesText(plan.memory.queries), BytesText(plan.memory.candidates),
                   BytesText(plan.memory.results), BytesText(plan.memory.doc_blocks),
                   BytesText(plan.memory.score_tiles), BytesText(plan.memory.scratch)) +
           (plan.memory.program > 0 ? ", program " + BytesText(plan.memory.program) : ""));
  return text;
}

}  // namespace tiny_knn
