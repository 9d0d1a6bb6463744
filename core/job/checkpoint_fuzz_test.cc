// Any bytes at all go through the reader of checkpoints: as they are, and with the magic before and
// the checksum behind them, so that more than the checksum is tested.
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "core/job/checkpoint_file.h"
#include "core/search/search_state.h"

namespace tiny_knn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void Parse(const std::vector<uint8_t>& bytes) {
  const absl::StatusOr<CheckpointData> data = ParseCheckpoint(bytes);
  if (!data.ok()) {
    Require(data.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string message(data.status().message());
    Require(!message.empty() && message.size() < 200);
    return;
  }
  Require(data->run_id.size() == 16 && data->state.finished_queries >= 0);
  for (const SearchSpan& span : data->state.spans) {
    Require(span.num_queries == static_cast<int64_t>(span.counts.size()));
    Require(span.docs.size() * sizeof(SavedDoc) <= bytes.size());
  }
  // What is accepted for some search can be taken apart.
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const SearchParams params{.k = 2, .compute_dtype = dtype};
    if (!CheckState(data->state, 1000, 1000, params).ok()) continue;
    for (const SearchSpan& span : data->state.spans) {
      const SearchSpan last = span.Part(span.num_queries - 1, span.num_queries);
      Require(last.counts.size() == 1 && last.counts[0] <= 3);
      if (span.docs_done < 1000) continue;
      std::vector<int64_t> indices(2);
      std::vector<double> scores(2);
      WriteRows(last, {1, 2, dtype, scores.data(), indices.data()});
      Require(indices[0] >= 0 && indices[0] < 1000);
    }
  }
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tiny_knn::Parse({data, data + size});
  constexpr std::string_view kMagic = "tiny-knn checkpoint 1\n";
  std::vector<uint8_t> whole(kMagic.begin(), kMagic.end());
  whole.insert(whole.end(), data, data + size);
  const auto crc = static_cast<uint32_t>(crc32_z(0, whole.data(), whole.size()));
  for (int i = 0; i < 4; ++i) whole.push_back(static_cast<uint8_t>(crc >> (8 * i)));
  tiny_knn::Parse(whole);
  return 0;
}
