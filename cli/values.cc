#include "cli/values.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

bool AllDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Nothing when it does not fit.
std::optional<int64_t> DigitsToInt(std::string_view digits) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Bytes of a unit, or nothing if it is none.
std::optional<int64_t> UnitBytes(std::string_view unit) {
  const std::string name = Lower(unit);
  if (name.empty() || name == "b") return 1;
  const size_t power = std::string_view("kmgt").find(name[0]);
  if (power == std::string_view::npos) return std::nullopt;
  const std::string_view rest = std::string_view(name).substr(1);
  int64_t base = 0;
  if (rest.empty() || rest == "ib") base = 1024;
  if (rest == "b") base = 1000;
  if (base == 0) return std::nullopt;
  int64_t bytes = base;
  for (size_t i = 0; i < power; ++i) bytes *= base;
  return bytes;
}

}  // namespace

absl::StatusOr<int64_t> ParseCount(std::string_view flag, std::string_view text, int64_t min,
                                   int64_t max) {
  const bool bounded = max != std::numeric_limits<int64_t>::max();
  const std::string accepted = bounded ? fmt::format("a whole number from {} to {}", min, max)
                                       : fmt::format("a whole number of at least {}", min);
  if (AllDigits(text)) {
    const std::optional<int64_t> value = DigitsToInt(text);
    if (value && *value >= min && *value <= max) return *value;
  }
  return absl::InvalidArgumentError(
      fmt::format("{} expects {}, found '{}'", flag, accepted, OneLine(text)));
}

absl::StatusOr<int64_t> ParseSize(std::string_view flag, std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        fmt::format("{} expects a size such as 4G, 512M, 1.5GiB or a number of bytes, found '{}'{}",
                    flag, OneLine(text), why));
  };
  const size_t whole_end = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string_view whole = text.substr(0, whole_end);
  std::string_view rest = text.substr(whole_end);
  std::string_view fraction;
  if (!rest.empty() && rest[0] == '.') {
    rest.remove_prefix(1);
    const size_t fraction_end = std::min(rest.find_first_not_of("0123456789"), rest.size());
    fraction = rest.substr(0, fraction_end);
    rest.remove_prefix(fraction_end);
    if (fraction.empty()) return refuse("");
  }
  const std::optional<int64_t> unit = UnitBytes(rest);
  if (whole.empty() || !unit) return refuse("");
  if (!fraction.empty() && *unit == 1) return refuse(" (a fraction needs a unit)");

  const std::optional<int64_t> count = DigitsToInt(whole);
  int64_t bytes = 0;
  if (!count || __builtin_mul_overflow(*count, *unit, &bytes)) return refuse(" (too large)");
  // floor(0.fraction * unit), exactly: long multiplication, digit by digit from the right.
  int64_t fraction_bytes = 0;
  if (!fraction.empty()) {
    __extension__ unsigned __int128 numerator = 0, denominator = 1;
    // 18 digits decide every byte of a unit of at most 2^40.
    for (char digit : fraction.substr(0, 18)) {
      numerator = numerator * 10 + static_cast<unsigned>(digit - '0');
      denominator *= 10;
    }
    fraction_bytes = static_cast<int64_t>(numerator * static_cast<uint64_t>(*unit) / denominator);
  }
  if (__builtin_add_overflow(bytes, fraction_bytes, &bytes)) return refuse(" (too large)");
  if (bytes < 1) return refuse(" (less than a byte)");
  return bytes;
}

absl::StatusOr<int64_t> ParseDuration(std::string_view flag, std::string_view text) {
  const size_t digits_end = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string unit = Lower(text.substr(digits_end));
  int64_t unit_seconds = 0;
  if (unit.empty() || unit == "s") unit_seconds = 1;
  if (unit == "m") unit_seconds = 60;
  if (unit == "h") unit_seconds = 3600;
  if (unit == "d") unit_seconds = 86400;
  const std::optional<int64_t> count = DigitsToInt(text.substr(0, digits_end));
  int64_t seconds = 0;
  // Three years: the most that a job may ask for, and in the range of any clock.
  constexpr int64_t kMostSeconds = 100'000'000;
  if (digits_end == 0 || unit_seconds == 0 || !count ||
      __builtin_mul_overflow(*count, unit_seconds, &seconds) || seconds > kMostSeconds) {
    return absl::InvalidArgumentError(
        fmt::format("{} expects a duration such as 30s, 10m, 1h or a number of seconds, found '{}'",
                    flag, OneLine(text)));
  }
  return seconds;
}

absl::Status CheckDevice(std::string_view flag, std::string_view text) {
  constexpr std::string_view kIndexed = "cuda:";
  constexpr size_t kMostDigits = 3;
  const bool has_index = text.starts_with(kIndexed) &&
                         text.size() <= kIndexed.size() + kMostDigits &&
                         AllDigits(text.substr(kIndexed.size()));
  if (text == "auto" || text == "cpu" || text == "cuda" || has_index) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} expects auto, cpu, cuda or cuda:N (N = 0, 1, ...), found '{}'", flag, OneLine(text)));
}

absl::StatusOr<int64_t> ParseInteger(std::string_view flag, std::string_view text, int64_t min,
                                     int64_t max) {
  const bool negative = text.starts_with('-');
  const std::string_view digits = text.substr(negative ? 1 : 0);
  const std::optional<int64_t> size = AllDigits(digits) ? DigitsToInt(digits) : std::nullopt;
  const int64_t value = negative ? -size.value_or(0) : size.value_or(0);
  if (!size || value < min || value > max) {
    return absl::InvalidArgumentError(fmt::format(
        "{} expects a whole number from {} to {}, found '{}'", flag, min, max, OneLine(text)));
  }
  return value;
}

absl::StatusOr<IndexRange> ParseRange(std::string_view flag, std::string_view text, int64_t size) {
  const size_t colon = text.find(':');
  const std::string_view begin_text = text.substr(0, colon);
  const bool single = colon == std::string_view::npos;
  const std::string_view end_text = single ? std::string_view() : text.substr(colon + 1);
  std::optional<int64_t> begin = begin_text.empty() && !single ? std::optional<int64_t>(0)
                                 : AllDigits(begin_text)       ? DigitsToInt(begin_text)
                                                               : std::nullopt;
  std::optional<int64_t> end;
  if (single) {
    if (begin && *begin < std::numeric_limits<int64_t>::max()) end = *begin + 1;
  } else {
    end = end_text.empty() ? std::optional<int64_t>(size)
                           : (AllDigits(end_text) ? DigitsToInt(end_text) : std::nullopt);
  }
  if (!begin || !end) {
    return absl::InvalidArgumentError(fmt::format(
        "{} expects a range such as 0:5, 7: or a single number, found '{}'", flag, OneLine(text)));
  }
  if (*begin >= size) {
    return absl::InvalidArgumentError(fmt::format(
        "{} {} begins after the last one: there are {} (0 to {})", flag, text, size, size - 1));
  }
  if (*end <= *begin) {
    return absl::InvalidArgumentError(
        fmt::format("{} {} is empty: the end must be greater than the begin", flag, text));
  }
  return IndexRange{*begin, std::min(*end, size)};
}

}  // namespace tiny_knn
