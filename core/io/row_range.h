// Some rows of another source, as if there were no others.
#pragma once

#include <cstdint>
#include <memory>

#include "core/io/row_source.h"

namespace tiny_knn {

// Rows [begin, end) of `rows`, which is the range's from now on; row 0 is row `begin` there. Reads
// no other rows. REQUIRES: 0 <= begin <= end <= rows->rows().
std::unique_ptr<RowSource> MakeRowRange(std::unique_ptr<RowSource> rows, int64_t begin,
                                        int64_t end);

}  // namespace tiny_knn
