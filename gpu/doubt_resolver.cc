#include "gpu/doubt_resolver.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/cpu/index_range.h"
#include "core/search/ranking.h"
#include "core/search/rounded_score.h"

namespace tiny_knn {

absl::Status DoubtResolver::Reserve(int64_t most, int64_t dim) {
  FirstError error;
  error(doubts_.Reserve(most));
  error(rows_.Reserve(most * dim));
  error(resolved_.Reserve(most));
  error(num_doubts_.Reserve(1));
  error(host_doubts_.Reserve(most));
  error(host_rows_.Reserve(most * dim));
  error(host_resolved_.Reserve(most));
  error(host_num_doubts_.Reserve(1));
  return error.Take();
}

void DoubtResolver::ScoreOnHost(const RescoreArgs& args, int64_t count, Metric metric,
                                const float* queries, ThreadPool& pool) {
  pool.Run([&](int worker) {
    std::vector<double> wide(static_cast<size_t>(args.dim));
    const IndexRange part = PartOf(count, worker, pool.threads());
    int32_t prepared = -1;
    PreparedQuery<float> query;
    for (int64_t i = part.begin; i < part.end; ++i) {
      const Doubt& doubt = host_doubts_.data()[i];
      if (doubt.query != prepared) {
        const float* const values = queries + int64_t{doubt.query} * args.dim;
        std::copy(values, values + args.dim, wide.begin());
        query = PrepareQuery<float>(values, wide.data(), args.dim);
        prepared = doubt.query;
      }
      const float score = RoundedScore<float>(metric, query, host_rows_.data() + i * args.dim,
                                              std::numeric_limits<double>::infinity(), args.dim);
      host_resolved_.data()[i] =
          MakePairKey(KeyOfScore(score), args.chunk_begin + static_cast<uint32_t>(doubt.doc));
    }
  });
}

absl::Status DoubtResolver::Rescore(RescoreArgs args, Metric metric, const float* queries,
                                    ThreadPool& pool, const Progress& progress,
                                    cudaStream_t stream) {
  args.doubts = doubts_.data();
  args.doubt_capacity =
      static_cast<int32_t>(std::min<int64_t>(doubts_.count(), std::numeric_limits<int32_t>::max()));
  args.num_doubts = num_doubts_.data();
  FirstError error;
  while (!progress.cancelled()) {
    error(cudaMemsetAsync(num_doubts_.data(), 0, sizeof(int32_t), stream), "clearing a counter");
    error(RescoreCandidates(args, stream), "rescoring");
    error(cudaMemcpyAsync(host_num_doubts_.data(), num_doubts_.data(), sizeof(int32_t),
                          cudaMemcpyDeviceToHost, stream),
          "copying a counter");
    error(cudaStreamSynchronize(stream), "rescoring");
    if (!error.ok()) return error.Take();
    const int32_t found = *host_num_doubts_.data();
    if (found == 0) return absl::OkStatus();
    const int32_t listed = std::min(found, args.doubt_capacity);
    error(GatherDoubtRows(args, listed, rows_.data(), stream), "gathering docs");
    const size_t count = static_cast<size_t>(listed);
    error(cudaMemcpyAsync(host_doubts_.data(), doubts_.data(), count * sizeof(Doubt),
                          cudaMemcpyDeviceToHost, stream),
          "copying pairs in doubt");
    error(cudaMemcpyAsync(host_rows_.data(), rows_.data(),
                          count * static_cast<size_t>(args.dim) * sizeof(float),
                          cudaMemcpyDeviceToHost, stream),
          "copying docs");
    error(cudaStreamSynchronize(stream), "copying docs");
    if (!error.ok()) return error.Take();
    ScoreOnHost(args, listed, metric, queries, pool);
    error(cudaMemcpyAsync(resolved_.data(), host_resolved_.data(), count * sizeof(PairKey),
                          cudaMemcpyHostToDevice, stream),
          "copying scores");
    error(ScatterKeys(args, listed, resolved_.data(), stream), "storing scores");
    // The pinned scores are written again in the next round.
    if (found > listed) error(cudaStreamSynchronize(stream), "copying scores");
    if (!error.ok()) return error.Take();
    if (found == listed) return absl::OkStatus();
    args.only_unscored = true;
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
