// Values of flags as people type them, parsed strictly: the whole text or an error that says what
// is accepted. Pure functions, safe to call from any thread. Every error is InvalidArgument and one
// line that begins with the flag's name.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tiny_knn {

// A whole decimal number in [min, max]: digits only, no sign, blank or fraction.
absl::StatusOr<int64_t> ParseCount(std::string_view flag, std::string_view text, int64_t min,
                                   int64_t max = std::numeric_limits<int64_t>::max());

// A number of bytes, at least 1: digits, an optional fraction where a unit follows, and a unit in
// any case: B, K, M, G, T (also KiB, MiB, ...: powers of 1024) or KB, MB, GB, TB (powers of 1000).
// "4G", "512M", "1.5GiB", "1000000". Fractions of a byte are dropped.
absl::StatusOr<int64_t> ParseSize(std::string_view flag, std::string_view text);

// Seconds, from 0 to three years: digits and a unit (s, m, h or d; seconds without one): "30",
// "10m", "1h".
absl::StatusOr<int64_t> ParseDuration(std::string_view flag, std::string_view text);

// OK for auto, cpu, cuda and cuda:N.
absl::Status CheckDevice(std::string_view flag, std::string_view text);

// A whole decimal number in [min, max], which may be negative.
absl::StatusOr<int64_t> ParseInteger(std::string_view flag, std::string_view text, int64_t min,
                                     int64_t max);

// Half-open: [begin, end).
struct IndexRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// "A:B", "A:" (to `size`), ":B", "A" (just that one). `size` is how many there are: an end beyond
// it is cut to it, a begin at or beyond it is an error, as is an empty range.
absl::StatusOr<IndexRange> ParseRange(std::string_view flag, std::string_view text, int64_t size);

}  // namespace tiny_knn
