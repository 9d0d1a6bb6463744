// Scores of a tile, all of them, and the comparison of one.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/cpu/index_range.h"
#include "core/cpu/screen.h"
#include "core/cpu/screen_kernels.h"

namespace tiny_knn {

// As Screen::ScoreTile with bounds that nothing is below; `bounds`: of the block's docs.
template <typename T>
void ScoreWholeTile(const Screen<T>& screen, IndexRange queries, IndexRange docs,
                    const DocBoundArrays& bounds, float* scores, int64_t stride) {
  std::vector<QueryBounds> query_bounds;
  for (int64_t query = queries.begin; query < queries.end; ++query) {
    query_bounds.push_back(screen.InitialBounds(query));
    query_bounds.back().threshold = -std::numeric_limits<float>::infinity();
  }
  std::vector<uint64_t> groups(query_bounds.size());
  screen.ScoreTile(queries, docs, {query_bounds.data(), bounds.At(docs.begin)},
                   {scores, stride, groups.data()});
}

// FilterScores of `count` scores, at most kMostTileDocs, from the first one on.
inline FilterResult FilterAll(const float* scores, int64_t count, const QueryBounds& query,
                              const DocBounds& docs, float* lower, int32_t* doc, int64_t room) {
  return FilterScores({scores, count, AllGroups(count)}, 0, query, docs, 0, lower, doc, room);
}

}  // namespace tiny_knn
