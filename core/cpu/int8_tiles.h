// Products of codes by matrix tiles (AMX): for machines at IsaLevel::kAmx (core/search/isa.h).
#pragma once

#include <cstdint>

#include "core/cpu/int8_kernels.h"

namespace tiny_knn {

// As ScoreCodes (core/cpu/int8_kernels.h), and compares scores while they are in registers: those
// of groups without a survivor are not written. REQUIRES: CurrentIsaLevel() == kAmx. Thread-safe;
// the calling thread's tiles are released before it returns.
void ScoreCodesByTiles(const CodedQuery* queries, int64_t num_queries, const CodedDocs& docs,
                       int64_t dim, const TileBounds& bounds, const TileScores& scores);

}  // namespace tiny_knn
