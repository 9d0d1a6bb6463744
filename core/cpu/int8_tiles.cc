#include "core/cpu/int8_tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace tiny_knn {
namespace {

#define TINY_KNN_AMX __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl")))

#define TINY_KNN_INLINE inline __attribute__((always_inline))

// A tile holds 16 rows of 64 bytes: 16 queries or 16 groups of four dims.
constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 64;
// Queries whose sums are in tiles at once: two tiles high.
constexpr int64_t kBlockQueries = 2 * kTileRows;
// And docs: of one digit two tiles wide, of two digits one, each with two sums.
constexpr int64_t BlockDocs(int digits) { return digits == 2 ? kTileRows : 2 * kTileRows; }
// Numbers in a row of sums: of 32 docs, or of 16 the high and then the low ones.
constexpr int64_t kRowSums = 2 * kTileRows;

// Tile registers. Sums of [queries 0-15 or 16-31][docs 0-15 or 16-31, or high or low].
#define TINY_KNN_SUMS_00 0
#define TINY_KNN_SUMS_01 1
#define TINY_KNN_SUMS_10 2
#define TINY_KNN_SUMS_11 3
// Queries 0-15 or 16-31, or high or low digits of one of those.
#define TINY_KNN_QUERIES_0 4
#define TINY_KNN_QUERIES_1 5
// Docs 0-15 or 16-31, or high or low digits.
#define TINY_KNN_DOCS_0 6
#define TINY_KNN_DOCS_1 7

// A block of docs stays in the first cache while blocks of queries go by. So many bytes of those,
// half of such a cache, would drive it out: they are loaded as what is not wanted again.
constexpr int64_t kStreamedQueryBytes = int64_t{24} << 10;
#define TINY_KNN_LOAD_QUERIES(tile, row, stride) \
  if constexpr (kStreams) {                      \
    _tile_stream_loadd(tile, row, stride);       \
  } else {                                       \
    _tile_loadd(tile, row, stride);              \
  }

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// For blocks of `num_queries` queries.
TINY_KNN_AMX void ConfigureTiles(int64_t num_queries, int64_t steps, int digits) {
  TileConfig config;
  const auto set = [&config](int tile, int64_t rows, int64_t row_bytes) {
    if (rows <= 0) return;
    config.rows[tile] = static_cast<uint8_t>(std::min(rows, kTileRows));
    config.row_bytes[tile] = static_cast<uint16_t>(std::min(row_bytes, kTileBytes));
  };
  // With two digits, both tiles of queries hold the same ones.
  const int64_t others = num_queries - kTileRows;
  set(TINY_KNN_SUMS_00, num_queries, kTileBytes);
  set(TINY_KNN_SUMS_01, num_queries, kTileBytes);
  set(TINY_KNN_SUMS_10, others, kTileBytes);
  set(TINY_KNN_SUMS_11, others, kTileBytes);
  set(TINY_KNN_QUERIES_0, num_queries, 4 * steps);
  set(TINY_KNN_QUERIES_1, digits == 2 ? num_queries : others, 4 * steps);
  set(TINY_KNN_DOCS_0, steps, kTileBytes);
  set(TINY_KNN_DOCS_1, steps, kTileBytes);
  // GCC's intrinsic says that it reads the first eight bytes only.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

// What makes scores of sums, and compares them.
struct Scorer {
  const CodedQuery* queries;
  const float* doc_scales;
  TileBounds bounds;
  TileScores out;
};

// Sums of a block of queries with a block of docs.
struct Sums {
  alignas(64) int32_t values[kBlockQueries * kRowSums];
  int64_t first_query = 0;
  int64_t num_queries = 0;  // 0: nothing is there
  int64_t first_doc = 0;
  int64_t num_docs = 0;
};

// Doc numbers of 16 docs of a block.
struct DocLanes {
  __mmask16 mask;
  __m512 scale;
  __m512 norm;
  __m512 residual;
  __m512 upper_offset;
};

TINY_KNN_AMX TINY_KNN_INLINE DocLanes LoadDocs(const Scorer& scorer, int64_t doc, int64_t count) {
  const __mmask16 mask = count >= kTileRows
                             ? __mmask16{0xFFFF}
                             : static_cast<__mmask16>(count <= 0 ? 0 : (1U << count) - 1);
  return {mask, _mm512_maskz_loadu_ps(mask, scorer.doc_scales + doc),
          _mm512_maskz_loadu_ps(mask, scorer.bounds.docs.norm + doc),
          _mm512_maskz_loadu_ps(mask, scorer.bounds.docs.residual + doc),
          _mm512_maskz_loadu_ps(mask, scorer.bounds.docs.upper_offset + doc)};
}

// One query's numbers, in all lanes.
struct QueryLanes {
  __m512 scale;
  __m512 centre_dot;
  __m512 threshold;
  __m512 error_factor;
  __m512 residual_factor;
};

template <int kDigits>
TINY_KNN_AMX TINY_KNN_INLINE __m512 ScoresOf(const QueryLanes& query, const DocLanes& docs,
                                             const int32_t* sums) {
  __m512 products = _mm512_maskz_cvtepi32_ps(docs.mask, _mm512_load_si512(sums));
  if constexpr (kDigits == 2) {
    const __m512 low = _mm512_maskz_cvtepi32_ps(docs.mask, _mm512_load_si512(sums + kTileRows));
    products = _mm512_fmadd_ps(low, _mm512_set1_ps(kLowDigit), products);
  }
  return _mm512_fmadd_ps(_mm512_mul_ps(query.scale, docs.scale), products, query.centre_dot);
}

// As FilterScores has it, which looks again at what survives.
TINY_KNN_AMX TINY_KNN_INLINE __mmask16 Survivors(const QueryLanes& query, const DocLanes& docs,
                                                 __m512 scores) {
  __m512 bound = _mm512_fnmadd_ps(query.error_factor, docs.norm, query.threshold);
  bound = _mm512_fnmadd_ps(query.residual_factor, docs.residual, bound);
  bound = _mm512_sub_ps(bound, docs.upper_offset);
  // Not "less": a NaN on either side must survive.
  return _mm512_mask_cmp_ps_mask(docs.mask, scores, bound, _CMP_NLT_UQ);
}

// Makes scores of the sums before while others are multiplied: other units do that.
template <int kDigits>
class Meanwhile {
 public:
  TINY_KNN_AMX TINY_KNN_INLINE Meanwhile(const Scorer& scorer, const Sums& before, int64_t tiles)
      : queries_(scorer.queries + before.first_query),
        bounds_(scorer.bounds.queries + before.first_query),
        values_(before.values),
        scores_(scorer.out.scores + before.first_query * scorer.out.stride + before.first_doc),
        stride_(scorer.out.stride),
        groups_(scorer.out.groups + before.first_query),
        first_group_(before.first_doc / kGroupDocs),
        count_(before.num_queries),
        tiles_(tiles),
        docs0_(LoadDocs(scorer, before.first_doc, before.num_docs)),
        docs1_(LoadDocs(scorer, before.first_doc + kTileRows, before.num_docs - kTileRows)) {}

  // When so many of the tiles are multiplied.
  TINY_KNN_AMX TINY_KNN_INLINE void After(int64_t tile) {
    const int64_t to = count_ * tile / tiles_;
    for (; done_ < to; ++done_) Score(done_);
  }

 private:
  TINY_KNN_AMX TINY_KNN_INLINE void Score(int64_t i) {
    const CodedQuery& coded = queries_[i];
    const QueryBounds& bounds = bounds_[i];
    const QueryLanes query{_mm512_set1_ps(coded.scale), _mm512_set1_ps(coded.centre_dot),
                           _mm512_set1_ps(bounds.threshold), _mm512_set1_ps(bounds.error_factor),
                           _mm512_set1_ps(bounds.residual_factor)};
    const int32_t* const values = values_ + i * kRowSums;
    float* const out = scores_ + i * stride_;
    const __m512 scores0 = ScoresOf<kDigits>(query, docs0_, values);
    const __mmask16 survivors0 = Survivors(query, docs0_, scores0);
    if constexpr (kDigits == 2) {
      if (survivors0 == 0) return;
      _mm512_mask_storeu_ps(out, docs0_.mask, scores0);
      groups_[i] |= uint64_t{1} << first_group_;
      return;
    }
    const __m512 scores1 = ScoresOf<kDigits>(query, docs1_, values + kTileRows);
    const __mmask16 survivors1 = Survivors(query, docs1_, scores1);
    if (_mm512_kortestz(survivors0, survivors1) != 0) return;
    _mm512_mask_storeu_ps(out, docs0_.mask, scores0);
    _mm512_mask_storeu_ps(out + kTileRows, docs1_.mask, scores1);
    const uint64_t groups = (survivors0 != 0 ? 1U : 0U) | (survivors1 != 0 ? 2U : 0U);
    groups_[i] |= groups << first_group_;
  }

  const CodedQuery* const queries_;
  const QueryBounds* const bounds_;
  const int32_t* const values_;
  float* const scores_;
  const int64_t stride_;
  uint64_t* const groups_;
  const int64_t first_group_;
  const int64_t count_;
  const int64_t tiles_;
  const DocLanes docs0_;
  const DocLanes docs1_;
  int64_t done_ = 0;
};

// Fetches the docs of the next block into the core's own cache, some steps after each tile.
class Ahead {
 public:
  Ahead(const uint8_t* docs, int64_t dim, int digits, int64_t steps_per_tile)
      : next_(reinterpret_cast<const char*>(docs)),
        other_bytes_(digits == 2 ? DigitBytes(dim) : LaneBytes(dim)),
        steps_per_tile_(steps_per_tile) {}
  TINY_KNN_INLINE void AfterTile() {
    for (int64_t i = 0; i < steps_per_tile_; ++i, next_ += kStepBytes) {
      _mm_prefetch(next_, _MM_HINT_T1);
      _mm_prefetch(next_ + other_bytes_, _MM_HINT_T1);
    }
  }

 private:
  const char* next_;
  int64_t other_bytes_;  // from one tile of docs to the other
  int64_t steps_per_tile_;
};

// What is multiplied: a block of queries and one of docs.
struct Block {
  const int8_t* queries;  // codes of the first
  const uint8_t* docs;    // the first one's in its panel
  int64_t dim;
};

// Where the operands of one multiplication of tiles lie.
struct Operands {
  const int8_t* queries;
  const uint8_t* docs;
};

TINY_KNN_INLINE Operands OperandsOf(const Block& block, int64_t steps, int64_t tile) {
  // The last tile of docs ends with the panel; what it shares with the one before it meets zeros.
  const int64_t step = std::max<int64_t>(0, std::min(tile * kTileRows, steps - kTileRows));
  const bool shares = step != tile * kTileRows;
  return {block.queries + (shares ? tile + 1 : tile) * kTileBytes, block.docs + step * kStepBytes};
}

int64_t TilesOf(int64_t dim) { return (CodeSteps(dim) + kTileRows - 1) / kTileRows; }

// `kRows`: tiles of queries, one or two.
template <int kRows>
TINY_KNN_AMX TINY_KNN_INLINE void ZeroSums() {
  _tile_zero(TINY_KNN_SUMS_00);
  _tile_zero(TINY_KNN_SUMS_01);
  if constexpr (kRows == 2) {
    _tile_zero(TINY_KNN_SUMS_10);
    _tile_zero(TINY_KNN_SUMS_11);
  }
}

template <int kRows>
TINY_KNN_AMX TINY_KNN_INLINE void StoreSums(int32_t* sums) {
  constexpr int64_t kStride = kRowSums * sizeof(int32_t);
  _tile_stored(TINY_KNN_SUMS_00, sums, kStride);
  _tile_stored(TINY_KNN_SUMS_01, sums + kTileRows, kStride);
  if constexpr (kRows == 2) {
    _tile_stored(TINY_KNN_SUMS_10, sums + kTileRows * kRowSums, kStride);
    _tile_stored(TINY_KNN_SUMS_11, sums + kTileRows * kRowSums + kTileRows, kStride);
  }
}

// Codes of one digit.
template <int kRows, bool kStreams>
TINY_KNN_AMX void MultiplyDigits(const Block& block, const Scorer& scorer, const Sums& before,
                                 Ahead& ahead, int32_t* sums) {
  const int64_t steps = CodeSteps(block.dim);
  const int64_t tiles = TilesOf(block.dim);
  const int64_t lane_bytes = LaneBytes(block.dim);
  const int64_t stride = QueryCodeBytes(block.dim, 1);
  Meanwhile<1> meanwhile(scorer, before, tiles);
  ZeroSums<kRows>();
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const Operands at = OperandsOf(block, steps, tile);
    _tile_loadd(TINY_KNN_DOCS_0, at.docs, kStepBytes);
    TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_0, at.queries, stride);
    _tile_dpbssd(TINY_KNN_SUMS_00, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_0);
    _tile_loadd(TINY_KNN_DOCS_1, at.docs + lane_bytes, kStepBytes);
    _tile_dpbssd(TINY_KNN_SUMS_01, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_1);
    if constexpr (kRows == 2) {
      TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_1, at.queries + kTileRows * stride, stride);
      _tile_dpbssd(TINY_KNN_SUMS_10, TINY_KNN_QUERIES_1, TINY_KNN_DOCS_0);
      _tile_dpbssd(TINY_KNN_SUMS_11, TINY_KNN_QUERIES_1, TINY_KNN_DOCS_1);
    }
    ahead.AfterTile();
    meanwhile.After(tile + 1);
  }
  StoreSums<kRows>(sums);
}

// Codes of two digits: products of high ones, and of high and low ones.
template <int kRows, bool kStreams>
TINY_KNN_AMX void MultiplyTwoDigits(const Block& block, const Scorer& scorer, const Sums& before,
                                    Ahead& ahead, int32_t* sums) {
  const int64_t steps = CodeSteps(block.dim);
  const int64_t tiles = TilesOf(block.dim);
  const int64_t low_docs = DigitBytes(block.dim);
  const int64_t stride = QueryCodeBytes(block.dim, 2);
  const int64_t low_queries = QueryDigitBytes(block.dim);
  Meanwhile<2> meanwhile(scorer, before, tiles);
  ZeroSums<kRows>();
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const Operands at = OperandsOf(block, steps, tile);
    _tile_loadd(TINY_KNN_DOCS_0, at.docs, kStepBytes);
    TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_0, at.queries, stride);
    _tile_dpbssd(TINY_KNN_SUMS_00, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_0);
    _tile_loadd(TINY_KNN_DOCS_1, at.docs + low_docs, kStepBytes);
    _tile_dpbssd(TINY_KNN_SUMS_01, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_1);
    TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_1, at.queries + low_queries, stride);
    _tile_dpbssd(TINY_KNN_SUMS_01, TINY_KNN_QUERIES_1, TINY_KNN_DOCS_0);
    if constexpr (kRows == 2) {
      const int8_t* const others = at.queries + kTileRows * stride;
      TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_0, others, stride);
      _tile_dpbssd(TINY_KNN_SUMS_10, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_0);
      _tile_dpbssd(TINY_KNN_SUMS_11, TINY_KNN_QUERIES_0, TINY_KNN_DOCS_1);
      TINY_KNN_LOAD_QUERIES(TINY_KNN_QUERIES_1, others + low_queries, stride);
      _tile_dpbssd(TINY_KNN_SUMS_11, TINY_KNN_QUERIES_1, TINY_KNN_DOCS_0);
    }
    ahead.AfterTile();
    meanwhile.After(tile + 1);
  }
  StoreSums<kRows>(sums);
}

template <int kDigits, int kRows, bool kStreams>
TINY_KNN_AMX TINY_KNN_INLINE void Multiply(const Block& block, const Scorer& scorer,
                                           const Sums& before, Ahead& ahead, int32_t* sums) {
  if constexpr (kDigits == 2) {
    MultiplyTwoDigits<kRows, kStreams>(block, scorer, before, ahead, sums);
  } else {
    MultiplyDigits<kRows, kStreams>(block, scorer, before, ahead, sums);
  }
}

// Queries [begin, end), in blocks of `block_queries`, of one or two tiles, with all docs. Each
// block of docs is read once, while those of queries stay in the core's own cache.
template <int kDigits, bool kStreams>
TINY_KNN_AMX void ScoreBlocks(const Scorer& scorer, int64_t begin, int64_t end,
                              int64_t block_queries, const CodedDocs& docs, int64_t dim) {
  if (begin == end) return;
  constexpr int64_t kBlockDocs = BlockDocs(kDigits);
  ConfigureTiles(block_queries, CodeSteps(dim), kDigits);
  const int64_t tiles_per_doc_block =
      (end - begin + block_queries - 1) / block_queries * TilesOf(dim);
  const int64_t steps_per_tile = (CodeSteps(dim) + tiles_per_doc_block - 1) / tiles_per_doc_block;
  const auto in_panel = [&](int64_t doc) {
    return docs.panels + doc / kPanelDocs * PanelBytes(dim, kDigits) +
           doc % kPanelDocs / kLaneDocs * LaneBytes(dim);
  };
  Sums both[2];
  Sums* sums = &both[0];
  Sums* before = &both[1];
  for (int64_t doc = 0; doc < docs.count; doc += kBlockDocs) {
    Ahead ahead(in_panel(doc + kBlockDocs), dim, kDigits, steps_per_tile);
    for (int64_t query = begin; query < end; query += block_queries) {
      const Block block{scorer.queries[query].codes, in_panel(doc), dim};
      if (block_queries > kTileRows) {
        Multiply<kDigits, 2, kStreams>(block, scorer, *before, ahead, sums->values);
      } else {
        Multiply<kDigits, 1, kStreams>(block, scorer, *before, ahead, sums->values);
      }
      sums->first_query = query;
      sums->num_queries = block_queries;
      sums->first_doc = doc;
      sums->num_docs = std::min(kBlockDocs, docs.count - doc);
      std::swap(sums, before);
    }
  }
  Meanwhile<kDigits>(scorer, *before, 1).After(1);
}

template <int kDigits, bool kStreams>
TINY_KNN_AMX void ScoreWith(const Scorer& scorer, int64_t num_queries, const CodedDocs& docs,
                            int64_t dim) {
  const int64_t whole = num_queries / kBlockQueries * kBlockQueries;
  ScoreBlocks<kDigits, kStreams>(scorer, 0, whole, kBlockQueries, docs, dim);
  // With two digits, tiles of queries are as high as each other.
  const int64_t tile = kDigits == 2 && num_queries - whole > kTileRows ? kTileRows : 0;
  ScoreBlocks<kDigits, kStreams>(scorer, whole, whole + tile, tile, docs, dim);
  ScoreBlocks<kDigits, kStreams>(scorer, whole + tile, num_queries, num_queries - whole - tile,
                                 docs, dim);
}

}  // namespace

TINY_KNN_AMX void ScoreCodesByTiles(const CodedQuery* queries, int64_t num_queries,
                                    const CodedDocs& docs, int64_t dim, const TileBounds& bounds,
                                    const TileScores& scores) {
  std::fill(scores.groups, scores.groups + num_queries, uint64_t{0});
  const Scorer scorer{queries, docs.scales, bounds, scores};
  const bool streams = num_queries * QueryCodeBytes(dim, docs.digits) > kStreamedQueryBytes;
  const auto score = docs.digits == 2 ? (streams ? ScoreWith<2, true> : ScoreWith<2, false>)
                                      : (streams ? ScoreWith<1, true> : ScoreWith<1, false>);
  score(scorer, num_queries, docs, dim);
  _tile_release();
}

}  // namespace tiny_knn
#endif
