// A small machine that reads pickles of plain data and numpy arrays, and nothing else.
//
// It knows the opcodes that Python emits for dicts of such values in protocols 2 to 5, and these
// callables, by name only: numpy's _reconstruct, _frombuffer, ndarray and dtype, and the two that
// stand for bytes in protocol 2 (_codecs.encode to latin1, bytes()). Whatever else a pickle asks
// for is refused; no code of the pickle's choice ever runs. Work and memory are linear in the size
// of the input, whatever it holds, and nothing recurses.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "core/io/pickle_value.h"

namespace tiny_knn {

// Most opcodes that are executed; a result file has about 100.
inline constexpr int kMaxPickleOpcodes = 100'000;

// Reads the pickle at the start of `input`, which must outlive the result; bytes after its end are
// ignored. Every kArray in the result is complete: shape, dtype and data agree. Errors are
// InvalidArgument: what was found, and where.
absl::StatusOr<PickleDocument> ParsePickle(std::span<const uint8_t> input);

}  // namespace tiny_knn
