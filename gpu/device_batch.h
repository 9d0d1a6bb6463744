// One batch of queries against all docs on a device: screen, select, rescore. The CUDA engine's
// inner loop.
//
//   for each chunk of docs that fits the device's memory
//     for each slice of the chunk                 staged while the one before is computed
//       prepare                                   to the compute dtype, bounds
//       for each tile                             docs outer, queries inner
//         GEMM -> filter -> settle                approximate scores, survivors, thresholds
//       queries whose lists are full: rescore, and the rest of the slice again
//     rescore survivors, merge                    float64 sums; pairs in doubt by the host
//   sort, hand out
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/cpu/thread_pool.h"
#include "core/io/row_source.h"
#include "core/search/search.h"
#include "core/search/search_state.h"
#include "gpu/cuda_raii.h"
#include "gpu/device_context.h"
#include "gpu/device_docs.h"
#include "gpu/device_plan.h"
#include "gpu/device_types.h"
#include "gpu/doc_uploader.h"
#include "gpu/doubt_resolver.h"
#include "gpu/filter_kernels.h"
#include "gpu/rank_kernels.h"
#include "gpu/rescore_kernels.h"
#include "gpu/select_kernels.h"

namespace tiny_knn {

// What batches share, so that it is allocated once. Thread-compatible.
struct BatchResources {
  explicit BatchResources(const DeviceContext& device) : context(device), uploader(device) {}

  const DeviceContext& context;
  DocUploader uploader;
  DoubtResolver doubts;
};

// Thread-compatible; used for one batch.
class DeviceBatch {
 public:
  // All references outlive this. Queries are rows [first_query, first_query + num_queries) of their
  // file; num_queries is at most plan.query_batch.
  DeviceBatch(BatchResources& resources, ThreadPool& pool, const SearchParams& params,
              const DevicePlan& plan, const RowFormat& format, int64_t first_query,
              int64_t num_queries, int64_t dim, Progress& progress);

  // Device memory for all but the docs. ResourceExhausted.
  absl::Status Allocate();

  // Converts, counts, and copies to the device.
  absl::Status LoadQueries(RowSource& queries, SearchReport& report);

  // Between two chunks: all docs before `docs_done` are rescored, `tally` is of those of this pass.
  using AtBorder = std::function<absl::Status(int64_t docs_done, const PrepareTally& tally)>;

  // One pass over `docs` from the doc `begin` on, in chunks of plan.doc_chunk, each prepared into
  // `chunk`. `tally`: what was noticed of all. `at_border` may be empty; its errors end the search.
  absl::Status SearchDocs(RowSource& docs, int64_t begin, DocChunk& chunk, PrepareTally& tally,
                          const AtBorder& at_border);
  // The same with all docs in `chunk` and prepared.
  absl::Status SearchPreparedDocs(RowSource& docs, const DocChunk& chunk);

  // Before SearchDocs: the best docs that another process found for these queries, which are those
  // from `first_row` of the saver's batch on, and the thresholds that they make.
  absl::Status RestoreBest(const BatchSaver& saver, int64_t first_row);
  // At a border: the best docs so far.
  absl::StatusOr<SearchSpan> ReadBest();
  // Adds the work done so far to the report, as Finish does at the end.
  absl::Status AddWork(SearchReport& report);

  // The results; adds to the report.
  absl::Status Finish(int64_t num_docs, const TopKView& out, SearchReport& report);

 private:
  absl::Status UploadQueries(const float* values);
  // Queries [first, first + count), at most plan.group: their best docs in order, to host_sorted_.
  absl::Status SortGroup(int64_t first, int64_t count);
  absl::Status SearchChunk(RowSource& docs, DocChunk& chunk, int64_t begin, int64_t end);
  absl::Status StartChunk(int64_t begin);
  // Docs [begin, end) of the chunk for all queries.
  absl::Status ScreenSlice(const DocChunk& chunk, int64_t begin, int64_t end);
  void ScreenTile(const DocChunk& chunk, int64_t first_query, int64_t num_queries,
                  int64_t first_doc, int64_t num_docs, FirstError& error);
  // Until every query has been through the docs before `end`.
  absl::Status Unstick(const DocChunk& chunk, int64_t begin, int64_t end);
  absl::Status FindStuckQueries(int64_t end);
  absl::Status FinishChunk(const DocChunk& chunk);
  // Of the queries selected[0, count), in device memory, or where null of [first, first + count);
  // at most plan.group.
  absl::Status RescoreGroup(const DocChunk& chunk, const int32_t* selected, int64_t first,
                            int64_t count);
  SettleArgs Settle(const DocChunk& chunk, int64_t first_query, int64_t num_queries) const;
  // The error that the file's numbers are: an integer of docs [begin, end) that the compute dtype
  // cannot hold.
  absl::Status FindOutOfRange(RowSource& docs, int64_t begin, int64_t end) const;
  absl::Status Cancelled() const;
  CandidateLists Lists() const;
  BestPairs Best() const;

  BatchResources& resources_;
  const DeviceContext& context_;
  cudaStream_t stream_;
  ThreadPool& pool_;
  const SearchParams& params_;
  const DevicePlan plan_;
  const RowFormat format_;
  const int64_t first_query_;
  const int64_t num_queries_;
  const int64_t dim_;
  Progress& progress_;

  std::vector<float>
      query_values_;  // [num_queries, dim] working values, for the host's share of rescoring
  std::vector<QueryUnits> units_;  // [num_queries], as on the device
  // On the device, [num_queries, ...].
  DeviceBuffer<std::byte> query_rows_;
  DeviceBuffer<float> query_rounded_;
  DeviceBuffer<QueryScreen> query_screens_;
  DeviceBuffer<QueryUnits> query_units_;
  DeviceBuffer<QueryNorms> query_norms_;
  DeviceBuffer<RowSums> query_sums_;
  DeviceBuffer<float> lowers_;
  DeviceBuffer<int32_t> docs_;
  DeviceBuffer<int32_t> counts_;
  DeviceBuffer<int32_t> settled_;
  DeviceBuffer<int32_t> done_;
  DeviceBuffer<float> thresholds_;
  DeviceBuffer<PairKey> best_keys_;
  DeviceBuffer<int32_t> best_counts_;
  DeviceBuffer<int32_t> stuck_;
  DeviceBuffer<int32_t> num_stuck_;
  DeviceBuffer<PrepareTally> tally_;
  DeviceBuffer<uint64_t> rescored_;
  DeviceBuffer<std::byte> tile_;  // [query_tile, doc_tile] scores
  DeviceBuffer<PairKey> keys_;    // [group, capacity], or sorted pairs [group, k + 1]
  PinnedBuffer<int32_t> host_stuck_;
  PinnedBuffer<int32_t> host_num_stuck_;
  PinnedBuffer<PrepareTally> host_tally_;
  PinnedBuffer<PairKey> host_sorted_;  // [group, k + 1]

  int64_t chunk_begin_ = 0;  // index of the chunk's first doc in the file
  int64_t seen_docs_ = 0;    // of this pass, by all queries
};

}  // namespace tiny_knn
