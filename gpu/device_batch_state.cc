// The part of DeviceBatch that tells another process how far it is, and goes on where another one
// was.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/search/ranking.h"
#include "core/search/screen_rules.h"
#include "gpu/device_batch.h"

namespace tiny_knn {

absl::Status DeviceBatch::RestoreBest(const BatchSaver& saver, int64_t first_row) {
  const int64_t capacity = params_.k + 1;
  std::vector<PairKey> keys(static_cast<size_t>(num_queries_ * capacity), 0);
  std::vector<int32_t> counts;
  std::vector<float> thresholds;
  for (int64_t query = 0; query < num_queries_; ++query) {
    const std::span<const SavedDoc> best = saver.BestOf(first_row + query);
    PairKey* const to = keys.data() + query * capacity;
    for (size_t rank = 0; rank < best.size(); ++rank) {
      to[rank] = MakePairKey(static_cast<uint32_t>(best[rank].key),
                             static_cast<uint32_t>(best[rank].index - params_.first_doc));
    }
    counts.push_back(static_cast<int32_t>(best.size()));
    float threshold = -std::numeric_limits<float>::infinity();
    if (static_cast<int64_t>(best.size()) >= params_.k) {
      const auto kth = static_cast<uint32_t>(best[static_cast<size_t>(params_.k - 1)].key);
      threshold = ThresholdFor(units_[static_cast<size_t>(query)], ScoreOfKey<float>(kth));
    }
    thresholds.push_back(threshold);
  }
  FirstError error;
  const auto upload = [&](auto& buffer, const auto& from) {
    error(cudaMemcpyAsync(buffer.data(), from.data(), from.size() * sizeof(from[0]),
                          cudaMemcpyHostToDevice, stream_),
          "copying results to the device");
  };
  upload(best_keys_, keys);
  upload(best_counts_, counts);
  upload(thresholds_, thresholds);
  error(cudaStreamSynchronize(stream_), "copying results to the device");
  return error.Take();
}

absl::StatusOr<SearchSpan> DeviceBatch::ReadBest() {
  SearchSpan span;
  span.num_queries = num_queries_;
  std::vector<int32_t> counts(static_cast<size_t>(num_queries_));
  FirstError error;
  error(cudaMemcpyAsync(counts.data(), best_counts_.data(), counts.size() * sizeof(counts[0]),
                        cudaMemcpyDeviceToHost, stream_),
        "copying results");
  error(cudaStreamSynchronize(stream_), "copying results");
  for (int64_t first = 0; first < num_queries_ && error.ok(); first += plan_.group) {
    const int64_t count = std::min(plan_.group, num_queries_ - first);
    error(SortGroup(first, count));
    if (!error.ok()) break;
    for (int64_t i = 0; i < count; ++i) {
      const int32_t found = counts[static_cast<size_t>(first + i)];
      const PairKey* const sorted = host_sorted_.data() + i * (params_.k + 1);
      span.counts.push_back(found);
      for (int32_t rank = 0; rank < found; ++rank) {
        span.docs.push_back({ScoreKeyOf(sorted[rank]),
                             params_.first_doc + static_cast<int64_t>(IndexOf(sorted[rank]))});
      }
    }
  }
  const absl::Status status = error.Take();
  if (!status.ok()) return status;
  return span;
}

}  // namespace tiny_knn
