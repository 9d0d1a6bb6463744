// Short texts that tell whether two runs, on whatever machines and under whatever names, read the
// same rows: what keeps parts of different searches from being merged.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "core/io/row_source.h"

namespace tiny_knn {

// Of all rows, in native byte order: "44x100 float16 crc32 1a2b3c4d". Another storage order of the
// same values gives the same text. Reads everything once. It tells accidents apart, not forgeries.
// Errors are those of reading, or that the source changed meanwhile.
absl::StatusOr<std::string> FingerprintOfRows(RowSource& rows);

// The same of the first and the last row and up to 254 between, evenly spread: reads next to
// nothing of a source that is large. "20000x100 float16 sample crc32 1a2b3c4d"
absl::StatusOr<std::string> FingerprintOfSample(RowSource& rows);

}  // namespace tiny_knn
