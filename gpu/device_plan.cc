#include "gpu/device_plan.h"

#include <algorithm>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Bytes that rows on the device are aligned to: what tensor cores and vector loads want.
constexpr int64_t kRowAlignment = 16;
// Fewer queries than this, and reading the docs takes longer than multiplying them in float32: a
// rounded copy would not pay.
constexpr int64_t kLeastTf32Queries = 32;
// The tile is written by one kernel and read by the next: in cache it costs no memory traffic. The
// rows behind it share the cache.
constexpr double kTileShareOfL2 = 0.6;
constexpr int64_t kLeastTileBytes = 4 * kMiB;
constexpr int64_t kQueryTile = 1024;
constexpr int64_t kMostDocTile = int64_t{1} << 22;
constexpr int64_t kDocTileUnit = 64;
// Bytes of the file that are copied at a time, twice on the device and twice in pinned memory.
constexpr int64_t kSliceBytes = 64 * kMiB;
// Docs that are on the device already are screened in blocks of so many pairs, between which the
// host looks.
constexpr int64_t kPairsPerBlock = int64_t{1} << 32;
// Beyond 2 k: so many can come with a tile.
constexpr int64_t kExtraCandidates = 2048;
constexpr int64_t kKeyBytes = sizeof(PairKey);
constexpr int64_t kMostKeysBytes = 256 * kMiB;
constexpr int64_t kMostGroup = 4096;
constexpr int64_t kDoubtRowBytes = 16 * kMiB;
constexpr int64_t kMostDoubts = 65536;
// What cuBLAS takes for itself, at most, as NVIDIA recommends for Hopper.
constexpr int64_t kLibraryBytes = 64 * kMiB;

// Docs of a chunk are counted by 32-bit numbers.
constexpr int64_t kMostChunkDocs = (int64_t{1} << 31) - 2 * kMostDocTile;

int64_t RoundUpTo(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

int64_t BytesPerQuery(const DeviceShape& shape, const DevicePlan& plan) {
  const int64_t candidates = plan.capacity * (sizeof(float) + sizeof(int32_t));
  const int64_t state =
      sizeof(QueryScreen) + sizeof(QueryUnits) + sizeof(QueryNorms) + sizeof(RowSums) + 32;
  return shape.format.BytesPerRow(shape.dim) + candidates + (shape.k + 1) * kKeyBytes + state;
}

}  // namespace

int64_t RowFormat::row_item_bytes() const {
  switch (row_type) {
    case RowType::kFloat32:
      return 4;
    case RowType::kFloat16:
    case RowType::kBFloat16:
      return 2;
    case RowType::kInt8:
      break;
  }
  return 1;
}

int64_t RowFormat::Stride(int64_t dim) const {
  return RoundUpTo(dim, kRowAlignment / row_item_bytes());
}

int64_t RowFormat::BytesPerRow(int64_t dim) const {
  const int64_t rounded = has_rounded_copy() ? static_cast<int64_t>(sizeof(float)) : 0;
  return Stride(dim) * (row_item_bytes() + rounded);
}

int64_t DeviceBytesPerDoc(const RowFormat& format, int64_t dim) {
  return format.BytesPerRow(dim) + static_cast<int64_t>(sizeof(DocScreen) + sizeof(DocTail));
}

RowFormat ChooseRowFormat(DType compute_dtype, int64_t dim, int64_t num_queries,
                          const DeviceTraits& traits, const DeviceTuning& tuning) {
  constexpr int kAmpere = 80;
  const bool has_tf32 = traits.compute_capability >= kAmpere && !tuning.no_tf32;
  switch (compute_dtype) {
    case DType::kFloat16:
    case DType::kUInt8:  // whole numbers to 2,048 are float16
      return {RowType::kFloat16, GemmKind::kFloat16};
    case DType::kBFloat16:
      if (traits.compute_capability >= kAmpere) return {RowType::kBFloat16, GemmKind::kBFloat16};
      break;
    case DType::kInt8:
      if (dim <= kMostInt8Dim) return {RowType::kInt8, GemmKind::kInt8};
      return {RowType::kFloat16, GemmKind::kFloat16};
    default:
      break;
  }
  const bool pays = num_queries >= kLeastTf32Queries || tuning.tf32_always;
  return {RowType::kFloat32, has_tf32 && pays ? GemmKind::kTf32 : GemmKind::kFloat32};
}

absl::StatusOr<DevicePlan> PlanOnDevice(const DeviceShape& shape, const DeviceTraits& traits,
                                        int64_t budget_bytes, const DeviceTuning& tuning) {
  const auto tuned = [](int64_t tuned_value, int64_t planned) {
    return tuned_value > 0 ? std::min(tuned_value, std::max<int64_t>(planned, 1)) : planned;
  };
  const int64_t num_queries = std::max<int64_t>(shape.num_queries, 1);
  DevicePlan plan;
  plan.stride = shape.format.Stride(shape.dim);
  plan.capacity = tuning.capacity > 0 ? tuning.capacity
                                      : std::min(2 * shape.k + kExtraCandidates,
                                                 std::max<int64_t>(shape.num_docs, 1));
  plan.query_tile = tuned(tuning.query_tile, std::min(num_queries, kQueryTile));
  const int64_t tile_bytes = std::max(
      static_cast<int64_t>(static_cast<double>(traits.l2_bytes) * kTileShareOfL2), kLeastTileBytes);
  plan.doc_tile = std::clamp(
      tile_bytes / int64_t{sizeof(float)} / plan.query_tile / kDocTileUnit * kDocTileUnit,
      kDocTileUnit, kMostDocTile);
  plan.doc_tile = std::min(plan.doc_tile, RoundUpTo(shape.num_docs, 4));
  plan.doc_tile = RoundUpTo(tuned(tuning.doc_tile, plan.doc_tile), 4);
  const int64_t key_row = std::max(plan.capacity, shape.k + 1) * kKeyBytes;
  plan.group = tuned(tuning.group, std::clamp(std::min(kMostKeysBytes / key_row, num_queries),
                                              int64_t{1}, kMostGroup));
  const int64_t doubt_bytes = shape.dim * static_cast<int64_t>(sizeof(float));
  plan.doubts =
      tuned(tuning.doubts, std::clamp(kDoubtRowBytes / doubt_bytes, int64_t{16}, kMostDoubts));
  const int64_t file_row = shape.dim * shape.doc_item_bytes;
  plan.slice_docs = tuned(tuning.slice_docs, std::clamp(kSliceBytes / file_row, int64_t{1},
                                                        std::max<int64_t>(shape.num_docs, 1)));
  const int64_t staging = 2 * plan.slice_docs * file_row;

  const int64_t fixed = plan.query_tile * plan.doc_tile * int64_t{sizeof(float)} + staging +
                        plan.group * key_row +
                        plan.doubts * (doubt_bytes + int64_t{sizeof(Doubt)} + kKeyBytes) +
                        kLibraryBytes + shape.format.BytesBehindDocs(shape.dim);
  const int64_t per_query = BytesPerQuery(shape, plan);
  const int64_t per_doc = shape.docs_are_resident ? 0 : DeviceBytesPerDoc(shape.format, shape.dim);
  const int64_t least = fixed + per_query + per_doc;
  if (budget_bytes < least) {
    return absl::ResourceExhaustedError(
        fmt::format("{} MiB of device memory are too little for k={} and dim={}: {} MiB are needed",
                    budget_bytes / kMiB, shape.k, shape.dim, least / kMiB + 1));
  }
  // All queries in one pass if they leave half of the memory to the docs, which take the rest.
  const int64_t available = budget_bytes - fixed;
  const int64_t docs_share = std::min(available / 2, shape.num_docs * per_doc);
  plan.query_batch = tuned(tuning.query_batch, std::clamp((available - docs_share) / per_query,
                                                          int64_t{1}, num_queries));
  plan.query_tile = std::min(plan.query_tile, plan.query_batch);
  if (shape.docs_are_resident) {
    plan.doc_chunk = shape.num_docs;
    plan.slice_docs =
        tuned(tuning.slice_docs, std::max(plan.slice_docs, kPairsPerBlock / plan.query_batch));
  } else {
    plan.doc_chunk = std::clamp((available - plan.query_batch * per_query) / per_doc, int64_t{1},
                                std::clamp(shape.num_docs, int64_t{1}, kMostChunkDocs));
    plan.doc_chunk = tuned(tuning.doc_chunk, plan.doc_chunk);
  }
  plan.slice_docs = std::min(plan.slice_docs, plan.doc_chunk);
  plan.group = std::min(plan.group, plan.query_batch);
  plan.fixed_bytes = fixed;
  plan.bytes = fixed + plan.query_batch * per_query + plan.doc_chunk * per_doc;
  return plan;
}

}  // namespace tiny_knn
