#include "gpu/device_batch.h"

#include <algorithm>
#include <limits>

#include "core/cpu/index_range.h"
#include "core/matrix/convert.h"
#include "core/matrix/finite.h"
#include "core/search/ranking.h"
#include "gpu/prepare_kernels.h"
#include "gpu/query_bounds.h"

namespace tiny_knn {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
// Integers of up to 16 bits: sums of this many products of differences stay below 2^53.
constexpr int64_t kMostExactDim = int64_t{1} << 19;

bool HasExactSums(DType compute_dtype, int64_t dim) {
  return dim <= kMostExactDim && (compute_dtype == DType::kInt8 || compute_dtype == DType::kUInt8 ||
                                  compute_dtype == DType::kInt16);
}

}  // namespace

DeviceBatch::DeviceBatch(BatchResources& resources, ThreadPool& pool, const SearchParams& params,
                         const DevicePlan& plan, const RowFormat& format, int64_t first_query,
                         int64_t num_queries, int64_t dim, Progress& progress)
    : resources_(resources),
      context_(resources.context),
      stream_(resources.context.compute()),
      pool_(pool),
      params_(params),
      plan_(plan),
      format_(format),
      first_query_(first_query),
      num_queries_(num_queries),
      dim_(dim),
      progress_(progress) {}

absl::Status DeviceBatch::Allocate() {
  FirstError error;
  error(query_rows_.Allocate(num_queries_ * plan_.stride * format_.row_item_bytes()));
  if (format_.has_rounded_copy()) error(query_rounded_.Allocate(num_queries_ * plan_.stride));
  error(query_screens_.Allocate(num_queries_));
  error(query_units_.Allocate(num_queries_));
  error(query_norms_.Allocate(num_queries_));
  error(query_sums_.Allocate(num_queries_));
  error(lowers_.Allocate(num_queries_ * plan_.capacity));
  error(docs_.Allocate(num_queries_ * plan_.capacity));
  error(counts_.Allocate(num_queries_));
  error(settled_.Allocate(num_queries_));
  error(done_.Allocate(num_queries_));
  error(thresholds_.Allocate(num_queries_));
  error(best_keys_.Allocate(num_queries_ * (params_.k + 1)));
  error(best_counts_.Allocate(num_queries_));
  error(stuck_.Allocate(num_queries_));
  error(num_stuck_.Allocate(1));
  error(tally_.Allocate(1));
  error(rescored_.Allocate(1));
  error(tile_.Allocate(plan_.query_tile * plan_.doc_tile * static_cast<int64_t>(sizeof(float))));
  error(keys_.Allocate(plan_.group * std::max(plan_.capacity, params_.k + 1)));
  error(host_stuck_.Allocate(num_queries_));
  error(host_num_stuck_.Allocate(1));
  error(host_tally_.Allocate(1));
  error(host_sorted_.Allocate(plan_.group * (params_.k + 1)));
  error(resources_.doubts.Reserve(plan_.doubts, dim_));
  return error.Take();
}

absl::Status DeviceBatch::LoadQueries(RowSource& queries, SearchReport& report) {
  auto view = queries.Rows(first_query_, first_query_ + num_queries_);
  if (!view.ok()) return view.status();
  query_values_.resize(static_cast<size_t>(num_queries_ * dim_));
  ConvertCounts counts;
  const absl::Status converted = ConvertRows<float>(*view, params_.compute_dtype, first_query_,
                                                    query_values_.data(), dim_, counts);
  queries.Release();
  if (!converted.ok()) return converted;
  report.infs_made_in_queries += counts.infs_made;
  for (int64_t i = 0; i < num_queries_; ++i) {
    if (!IsFiniteRow(query_values_.data() + i * dim_, dim_)) ++report.nonfinite_query_rows;
  }
  return UploadQueries(query_values_.data());
}

absl::Status DeviceBatch::UploadQueries(const float* values) {
  // Small beside everything else, and once a batch: pageable copies, which end when they return.
  DeviceBuffer<float> source;
  absl::Status status = source.Allocate(num_queries_ * dim_);
  if (!status.ok()) return status;
  FirstError error;
  error(cudaMemcpyAsync(source.data(), values, query_values_.size() * sizeof(float),
                        cudaMemcpyHostToDevice, stream_),
        "copying queries to the device");
  PrepareRowsArgs args;
  args.source = source.data();
  args.compute_dtype = params_.compute_dtype;
  args.num_rows = num_queries_;
  args.dim = static_cast<int32_t>(dim_);
  args.stride = static_cast<int32_t>(plan_.stride);
  args.row_type = format_.row_type;
  args.rows = query_rows_.data();
  args.rounded_rows = format_.has_rounded_copy() ? query_rounded_.data() : nullptr;
  args.sums = query_sums_.data();
  error(PrepareRows(args, stream_), "preparing queries");
  error(cudaStreamSynchronize(stream_), "preparing queries");
  if (!error.ok()) return error.Take();  // nothing was written that could be copied
  std::vector<RowSums> sums(static_cast<size_t>(num_queries_));
  error(cudaMemcpyAsync(sums.data(), query_sums_.data(), sums.size() * sizeof(RowSums),
                        cudaMemcpyDeviceToHost, stream_),
        "copying norms from the device");
  error(cudaStreamSynchronize(stream_), "preparing queries");
  if (!error.ok()) return error.Take();
  std::vector<QueryScreen> screens;
  std::vector<QueryUnits> units;
  std::vector<QueryNorms> norms;
  for (const RowSums& row : sums) {
    const QueryBounds query = BoundsOfQuery(row, params_.metric, format_.gemm, dim_);
    screens.push_back(query.screen);
    units.push_back(query.units);
    norms.push_back(query.norms);
  }
  const std::vector<float> thresholds(static_cast<size_t>(num_queries_), kMinusInfinity);
  const auto upload = [&](auto& buffer, const auto& from) {
    error(cudaMemcpyAsync(buffer.data(), from.data(), from.size() * sizeof(from[0]),
                          cudaMemcpyHostToDevice, stream_),
          "copying queries to the device");
  };
  upload(query_screens_, screens);
  upload(query_units_, units);
  units_ = units;
  upload(query_norms_, norms);
  upload(thresholds_, thresholds);
  const auto clear = [&](auto& buffer) {
    error(cudaMemsetAsync(buffer.data(), 0,
                          static_cast<size_t>(buffer.count()) * sizeof(*buffer.data()), stream_),
          "clearing device memory");
  };
  clear(counts_);
  clear(settled_);
  clear(best_counts_);
  clear(tally_);
  clear(rescored_);
  error(cudaStreamSynchronize(stream_), "copying queries to the device");
  return error.Take();
}

absl::Status DeviceBatch::Cancelled() const {
  return progress_.cancelled() ? absl::CancelledError("the search was interrupted")
                               : absl::OkStatus();
}

CandidateLists DeviceBatch::Lists() const {
  CandidateLists lists;
  lists.lower = lowers_.data();
  lists.doc = docs_.data();
  lists.count = counts_.data();
  lists.settled = settled_.data();
  lists.done = done_.data();
  lists.threshold = thresholds_.data();
  lists.capacity = static_cast<int32_t>(plan_.capacity);
  return lists;
}

BestPairs DeviceBatch::Best() const {
  return {best_keys_.data(), best_counts_.data(), static_cast<int32_t>(params_.k + 1)};
}

SettleArgs DeviceBatch::Settle(const DocChunk& chunk, int64_t first_query,
                               int64_t num_queries) const {
  SettleArgs args;
  args.screens = chunk.screens();
  args.tails = chunk.tails();
  args.queries = query_screens_.data();
  args.units = query_units_.data();
  args.lists = Lists();
  args.first_query = static_cast<int32_t>(first_query);
  args.num_queries = static_cast<int32_t>(num_queries);
  args.k = params_.k;
  args.thin_above = static_cast<int32_t>(plan_.capacity / 2);
  return args;
}

void DeviceBatch::ScreenTile(const DocChunk& chunk, int64_t first_query, int64_t num_queries,
                             int64_t first_doc, int64_t num_docs, FirstError& error) {
  GemmArgs gemm;
  gemm.kind = format_.gemm;
  const int64_t row_bytes = plan_.stride * format_.row_item_bytes();
  gemm.queries = format_.has_rounded_copy()
                     ? static_cast<const void*>(query_rounded_.data() + first_query * plan_.stride)
                     : query_rows_.data() + first_query * row_bytes;
  gemm.docs = chunk.GemmRows(first_doc);
  gemm.num_queries = static_cast<int32_t>(num_queries);
  gemm.num_docs = static_cast<int32_t>(num_docs);
  gemm.stride = static_cast<int32_t>(plan_.stride);
  gemm.scores = tile_.data();
  gemm.score_stride = static_cast<int32_t>(plan_.doc_tile);
  error(context_.Multiply(gemm));
  if (!error.ok()) return;  // there are no scores
  FilterArgs filter;
  filter.tile.scores = tile_.data();
  filter.tile.are_integers = format_.gemm == GemmKind::kInt8;
  filter.tile.stride = plan_.doc_tile;
  filter.tile.first_query = static_cast<int32_t>(first_query);
  filter.tile.num_queries = static_cast<int32_t>(num_queries);
  filter.tile.first_doc = static_cast<int32_t>(first_doc);
  filter.tile.num_docs = static_cast<int32_t>(num_docs);
  filter.screens = chunk.screens();
  filter.tails = chunk.tails();
  filter.queries = query_screens_.data();
  filter.lists = Lists();
  if (params_.exclude_self) {
    filter.first_self = first_query_ - params_.first_doc - chunk_begin_;
  }
  error(FilterTile(filter, stream_), "filtering a tile");
  SettleArgs settle = Settle(chunk, first_query, num_queries);
  settle.first_doc = filter.tile.first_doc;
  settle.end_doc = filter.tile.first_doc + filter.tile.num_docs;
  error(SettleLists(settle, stream_), "selecting candidates");
}

absl::Status DeviceBatch::ScreenSlice(const DocChunk& chunk, int64_t begin, int64_t end) {
  FirstError error;
  for (int64_t doc = begin; doc < end;) {
    // All docs survive until there is a threshold. A tile as wide as what was seen before it brings
    // about k new ones.
    const int64_t fitting = std::max({int64_t{1}, plan_.capacity / 2, seen_docs_});
    const int64_t width = std::min({plan_.doc_tile, end - doc, fitting});
    for (int64_t query = 0; query < num_queries_; query += plan_.query_tile) {
      ScreenTile(chunk, query, std::min(plan_.query_tile, num_queries_ - query), doc, width, error);
    }
    if (!error.ok()) return error.Take();
    const absl::Status cancelled = Cancelled();
    if (!cancelled.ok()) return cancelled;
    doc += width;
    seen_docs_ += width;
  }
  return absl::OkStatus();
}

absl::Status DeviceBatch::FindStuckQueries(int64_t end) {
  FirstError error;
  error(FindStuck(Lists(), static_cast<int32_t>(num_queries_), static_cast<int32_t>(end),
                  stuck_.data(), num_stuck_.data(), stream_),
        "looking for full lists");
  error(cudaMemcpyAsync(host_num_stuck_.data(), num_stuck_.data(), sizeof(int32_t),
                        cudaMemcpyDeviceToHost, stream_),
        "copying a counter");
  error(cudaMemcpyAsync(host_tally_.data(), tally_.data(), sizeof(PrepareTally),
                        cudaMemcpyDeviceToHost, stream_),
        "copying counters");
  error(cudaStreamSynchronize(stream_), "screening docs");
  if (!error.ok() || *host_num_stuck_.data() == 0) return error.Take();
  error(cudaMemcpyAsync(host_stuck_.data(), stuck_.data(),
                        static_cast<size_t>(*host_num_stuck_.data()) * sizeof(int32_t),
                        cudaMemcpyDeviceToHost, stream_),
        "copying full lists");
  error(cudaStreamSynchronize(stream_), "copying full lists");
  return error.Take();
}

absl::Status DeviceBatch::Unstick(const DocChunk& chunk, int64_t begin, int64_t end) {
  while (true) {
    absl::Status status = FindStuckQueries(end);
    if (status.ok()) status = Cancelled();
    if (!status.ok()) return status;
    const int64_t num_stuck = *host_num_stuck_.data();
    if (num_stuck == 0) return absl::OkStatus();
    for (int64_t first = 0; first < num_stuck; first += plan_.group) {
      status =
          RescoreGroup(chunk, stuck_.data() + first, 0, std::min(plan_.group, num_stuck - first));
      if (!status.ok()) return status;
    }
    // Now these lists are empty and take half of their capacity for certain, so each round goes on
    // by one such tile at least. Query tiles that hold none of them are left out, queries that are
    // not stuck take no part.
    std::vector<bool> is_stuck(static_cast<size_t>((num_queries_ - 1) / plan_.query_tile + 1),
                               false);
    for (int64_t i = 0; i < num_stuck; ++i) {
      is_stuck[static_cast<size_t>(host_stuck_.data()[i] / plan_.query_tile)] = true;
    }
    FirstError error;
    const int64_t most = std::max<int64_t>(1, std::min(plan_.doc_tile, plan_.capacity / 2));
    for (int64_t doc = begin; doc < end; doc += most) {
      for (size_t tile = 0; tile < is_stuck.size(); ++tile) {
        if (!is_stuck[tile]) continue;
        const int64_t query = static_cast<int64_t>(tile) * plan_.query_tile;
        ScreenTile(chunk, query, std::min(plan_.query_tile, num_queries_ - query), doc,
                   std::min(most, end - doc), error);
      }
      if (error.ok()) error(Cancelled());
      if (!error.ok()) return error.Take();
    }
  }
}

absl::Status DeviceBatch::RescoreGroup(const DocChunk& chunk, const int32_t* selected,
                                       int64_t first, int64_t count) {
  RescoreArgs args;
  args.row_type = format_.row_type;
  args.query_rows = query_rows_.data();
  args.doc_rows = chunk.Rows(0);
  args.tails = chunk.tails();
  args.queries = query_norms_.data();
  args.lists = Lists();
  args.dim = static_cast<int32_t>(dim_);
  args.stride = static_cast<int32_t>(plan_.stride);
  args.is_cosine = params_.metric == Metric::kCosine;
  args.is_l2 = params_.metric == Metric::kL2;
  args.has_exact_sums = HasExactSums(params_.compute_dtype, dim_);
  args.selected = selected;
  args.first_query = static_cast<int32_t>(first);
  args.num_slots = static_cast<int32_t>(count);
  args.chunk_begin = static_cast<uint32_t>(chunk_begin_);
  args.keys = keys_.data();
  absl::Status status = resources_.doubts.Rescore(args, params_.metric, query_values_.data(), pool_,
                                                  progress_, stream_);
  if (status.ok()) status = Cancelled();
  if (!status.ok()) return status;
  MergeArgs merge;
  merge.units = query_units_.data();
  merge.lists = Lists();
  merge.best = Best();
  merge.keys = keys_.data();
  merge.selected = selected;
  merge.first_query = args.first_query;
  merge.num_slots = args.num_slots;
  merge.rescored = rescored_.data();
  return CudaStatus(MergeScored(merge, stream_), "merging scores");
}

absl::Status DeviceBatch::FinishChunk(const DocChunk& chunk) {
  SettleArgs settle = Settle(chunk, 0, num_queries_);
  settle.thin_above = -1;
  FirstError error;
  error(SettleLists(settle, stream_), "selecting candidates");
  for (int64_t first = 0; first < num_queries_ && error.ok(); first += plan_.group) {
    error(RescoreGroup(chunk, nullptr, first, std::min(plan_.group, num_queries_ - first)));
  }
  return error.Take();
}

absl::Status DeviceBatch::StartChunk(int64_t begin) {
  chunk_begin_ = begin;
  return CudaStatus(cudaMemsetAsync(done_.data(), 0,
                                    static_cast<size_t>(num_queries_) * sizeof(int32_t), stream_),
                    "clearing device memory");
}

absl::Status DeviceBatch::FindOutOfRange(RowSource& docs, int64_t begin, int64_t end) const {
  auto view = docs.Rows(begin, end);
  if (!view.ok()) return view.status();
  std::vector<float> row(static_cast<size_t>(dim_));
  absl::Status status;
  for (int64_t i = 0; i < view->rows && status.ok(); ++i) {
    ConvertCounts ignored;
    status = ConvertRows<float>(view->Slice(i, i + 1), params_.compute_dtype,
                                params_.first_doc + begin + i, row.data(), dim_, ignored);
  }
  docs.Release();
  if (status.ok()) {
    return absl::InternalError("the device counts integers out of range where the host finds none");
  }
  return status;
}

absl::Status DeviceBatch::SearchChunk(RowSource& docs, DocChunk& chunk, int64_t begin,
                                      int64_t end) {
  DocUploader& uploader = resources_.uploader;
  const auto slice_end = [&](int64_t slice) { return std::min(slice + plan_.slice_docs, end); };
  absl::Status status = uploader.Stage(docs, begin, slice_end(begin), pool_);
  if (status.ok()) status = StartChunk(begin);
  for (int64_t slice = begin; slice < end && status.ok(); slice += plan_.slice_docs) {
    const int64_t next = slice_end(slice);
    status = uploader.Prepare(params_, docs.dtype(), dim_, chunk, slice - begin, tally_.data());
    if (status.ok()) status = ScreenSlice(chunk, slice - begin, next - begin);
    // While the device computes.
    if (status.ok() && next < end) status = uploader.Stage(docs, next, slice_end(next), pool_);
    if (status.ok()) status = Unstick(chunk, slice - begin, next - begin);
    if (status.ok() && host_tally_.data()->out_of_range > 0) {
      return FindOutOfRange(docs, slice, next);
    }
    if (status.ok() && next < end) {
      progress_.Report(num_queries_ * next, num_queries_ * docs.rows());
    }
  }
  if (status.ok()) status = FinishChunk(chunk);
  if (status.ok()) progress_.Report(num_queries_ * end, num_queries_ * docs.rows());
  return status;
}

absl::Status DeviceBatch::SearchDocs(RowSource& docs, int64_t begin, DocChunk& chunk,
                                     PrepareTally& tally, const AtBorder& at_border) {
  seen_docs_ = begin;
  absl::Status status =
      resources_.uploader.Reserve(plan_.slice_docs * dim_ * ItemSize(docs.dtype()));
  while (begin < docs.rows() && status.ok()) {
    const int64_t end = std::min(begin + plan_.doc_chunk, docs.rows());
    status = SearchChunk(docs, chunk, begin, end);
    begin = end;
    if (status.ok() && at_border && begin < docs.rows()) {
      status = at_border(begin, *host_tally_.data());
    }
  }
  // Whatever happened, nothing may be under way when buffers go.
  FirstError error;
  error(status);
  error(cudaStreamSynchronize(context_.copies()), "copying docs");
  error(cudaStreamSynchronize(stream_), "searching docs");
  resources_.uploader.Reset();
  if (error.ok()) tally = *host_tally_.data();
  return error.Take();
}

absl::Status DeviceBatch::SearchPreparedDocs(RowSource& docs, const DocChunk& chunk) {
  absl::Status status = StartChunk(0);
  for (int64_t slice = 0; slice < docs.rows() && status.ok(); slice += plan_.slice_docs) {
    const int64_t next = std::min(slice + plan_.slice_docs, docs.rows());
    status = ScreenSlice(chunk, slice, next);
    if (status.ok()) status = Unstick(chunk, slice, next);
    if (status.ok() && next < docs.rows()) {
      progress_.Report(num_queries_ * next, num_queries_ * docs.rows());
    }
  }
  if (status.ok()) status = FinishChunk(chunk);
  FirstError error;
  error(status);
  error(cudaStreamSynchronize(stream_), "searching docs");
  if (error.ok()) progress_.Report(num_queries_ * docs.rows(), num_queries_ * docs.rows());
  return error.Take();
}

absl::Status DeviceBatch::SortGroup(int64_t first, int64_t count) {
  FirstError error;
  const size_t bytes = static_cast<size_t>(count * (params_.k + 1)) * sizeof(PairKey);
  // A query that has no pair of rank k + 1 leaves its place alone.
  error(cudaMemsetAsync(keys_.data(), 0, bytes, stream_), "clearing device memory");
  error(SortBest(Best(), static_cast<int32_t>(first), static_cast<int32_t>(count), keys_.data(),
                 stream_),
        "sorting results");
  error(cudaMemcpyAsync(host_sorted_.data(), keys_.data(), bytes, cudaMemcpyDeviceToHost, stream_),
        "copying results");
  error(cudaStreamSynchronize(stream_), "copying results");
  return error.Take();
}

absl::Status DeviceBatch::AddWork(SearchReport& report) {
  uint64_t rescored = 0;
  FirstError error;
  error(cudaMemcpyAsync(&rescored, rescored_.data(), sizeof(rescored), cudaMemcpyDeviceToHost,
                        stream_),
        "copying a counter");
  error(cudaStreamSynchronize(stream_), "copying a counter");
  if (error.ok()) report.rescored_pairs += static_cast<int64_t>(rescored);
  return error.Take();
}

absl::Status DeviceBatch::Finish(int64_t num_docs, const TopKView& out, SearchReport& report) {
  const int64_t k = params_.k;
  const int64_t stride = k + 1;
  auto* const scores = static_cast<float*>(out.scores);
  for (int64_t first = 0; first < num_queries_; first += plan_.group) {
    const int64_t count = std::min(plan_.group, num_queries_ - first);
    const absl::Status status = SortGroup(first, count);
    if (!status.ok()) return status;
    const auto has_next = [&](int64_t query) {
      const int64_t self = first_query_ + query - params_.first_doc;
      const bool excludes = params_.exclude_self && self >= 0 && self < num_docs;
      return num_docs - (excludes ? 1 : 0) > k;
    };
    std::vector<int64_t> tied(static_cast<size_t>(pool_.threads()), 0);
    pool_.Run([&](int worker) {
      const IndexRange part = PartOf(count, worker, pool_.threads());
      for (int64_t i = part.begin; i < part.end; ++i) {
        const int64_t query = first + i;
        const PairKey* const sorted = host_sorted_.data() + i * stride;
        for (int64_t rank = 0; rank < k; ++rank) {
          scores[query * k + rank] = ScoreOfKey<float>(ScoreKeyOf(sorted[rank]));
          out.indices[query * k + rank] =
              params_.first_doc + static_cast<int64_t>(IndexOf(sorted[rank]));
        }
        if (has_next(query) && ScoreKeyOf(sorted[k]) == ScoreKeyOf(sorted[k - 1])) {
          ++tied[static_cast<size_t>(worker)];
        }
      }
    });
    for (const int64_t queries : tied) report.queries_with_tie_at_k += queries;
  }
  return AddWork(report);
}

}  // namespace tiny_knn
