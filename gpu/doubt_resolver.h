// Pairs that float64 sums on the device cannot round: the host scores them by
// core/search/rounded_score.h.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "core/cpu/thread_pool.h"
#include "core/search/search.h"
#include "gpu/cuda_raii.h"
#include "gpu/rescore_kernels.h"

namespace tiny_knn {

// Thread-compatible.
class DoubtResolver {
 public:
  // Room for `most` pairs of rows of `dim` at a time. ResourceExhausted.
  absl::Status Reserve(int64_t most, int64_t dim);

  // Device memory that is reserved now.
  int64_t device_bytes() const {
    return doubts_.count() * static_cast<int64_t>(sizeof(Doubt)) +
           rows_.count() * static_cast<int64_t>(sizeof(float)) +
           resolved_.count() * static_cast<int64_t>(sizeof(PairKey));
  }

  // Queues RescoreCandidates and waits; then the keys of all candidates of args' slots are there.
  // `args` names no doubts: they are this one's. `queries`: [queries of the batch, dim] in host
  // memory. Threads of `pool` share the doubts. Stops early, with OK, when `progress` says that the
  // search is cancelled.
  absl::Status Rescore(RescoreArgs args, Metric metric, const float* queries, ThreadPool& pool,
                       const Progress& progress, cudaStream_t stream);

 private:
  void ScoreOnHost(const RescoreArgs& args, int64_t count, Metric metric, const float* queries,
                   ThreadPool& pool);

  DeviceBuffer<Doubt> doubts_;
  DeviceBuffer<float> rows_;
  DeviceBuffer<PairKey> resolved_;
  DeviceBuffer<int32_t> num_doubts_;
  PinnedBuffer<Doubt> host_doubts_;
  PinnedBuffer<float> host_rows_;
  PinnedBuffer<PairKey> host_resolved_;
  PinnedBuffer<int32_t> host_num_doubts_;
};

}  // namespace tiny_knn
