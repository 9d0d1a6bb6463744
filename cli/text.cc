#include "cli/text.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "core/job/one_line.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

struct CodeRange {
  char32_t first, last;
};

bool InRanges(char32_t code, std::span<const CodeRange> ranges) {
  return std::any_of(ranges.begin(), ranges.end(), [&](const CodeRange& range) {
    return code >= range.first && code <= range.last;
  });
}

int CodeWidth(char32_t code) {
  static constexpr CodeRange kZero[] = {{0x300, 0x36F},   {0x483, 0x489},   {0x591, 0x5BD},
                                        {0x610, 0x61A},   {0x64B, 0x65F},   {0x1AB0, 0x1AFF},
                                        {0x1DC0, 0x1DFF}, {0x200B, 0x200F}, {0x20D0, 0x20FF},
                                        {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};
  static constexpr CodeRange kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},   {0x3041, 0xA4CF},
                                        {0xA960, 0xA97F},   {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
                                        {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},
                                        {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF}, {0x1F900, 0x1FAFF},
                                        {0x20000, 0x3FFFD}};
  if (code < 0x300) return 1;
  if (InRanges(code, kZero)) return 0;
  return InRanges(code, kWide) ? 2 : 1;
}

}  // namespace

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const auto [code, length] = DecodeUtf8(text);
    width += CodeWidth(code);
    text.remove_prefix(length);
  }
  return width;
}

std::string TruncateToWidth(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  std::string cut;
  int used = 0;
  while (!text.empty()) {
    const auto [code, length] = DecodeUtf8(text);
    used += CodeWidth(code);
    if (used > width - 1) break;
    cut += text.substr(0, length);
    text.remove_prefix(length);
  }
  return cut + "…";
}

std::string PadRight(std::string_view text, int width) {
  return std::string(text) + std::string(std::max(0, width - DisplayWidth(text)), ' ');
}

std::string PadLeft(std::string_view text, int width) {
  return std::string(std::max(0, width - DisplayWidth(text)), ' ') + std::string(text);
}

std::string FormatBytes(int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB", "PiB"}) {
    if (value < 1023.95) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string FormatRate(double per_second) {
  const char* unit = "";
  for (const char* next : {" k", " M", " G", " T", " P"}) {
    if (per_second < 999.5) break;
    per_second /= 1000;
    unit = next;
  }
  if (*unit == '\0') return fmt::format("{:.0f}", per_second);
  const int decimals = per_second < 9.995 ? 2 : per_second < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", per_second, decimals, unit);
}

std::string FormatSeconds(double seconds) {
  if (seconds < 59.995) return fmt::format("{:.2f} s", seconds);
  const int64_t whole = std::llround(std::min(seconds, 1e15));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string Plural(int64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::vector<std::string> FormatScores(std::span<const double> scores) {
  bool fixed = true;
  for (double score : scores) {
    const double size = std::fabs(score);
    if (std::isfinite(score) && size != 0 && (size >= 1e7 || size < 1e-3)) fixed = false;
  }
  std::vector<std::string> texts;
  texts.reserve(scores.size());
  for (double score : scores) {
    texts.push_back(std::isnan(score) ? "nan"
                    : fixed           ? fmt::format("{:.6f}", score)
                                      : fmt::format("{:.6e}", score));
  }
  return texts;
}

std::string Histogram(std::span<const double> scores, int bins, bool unicode) {
  double least = std::numeric_limits<double>::infinity();
  double greatest = -least;
  for (double score : scores) {
    if (!std::isfinite(score)) continue;
    least = std::min(least, score);
    greatest = std::max(greatest, score);
  }
  if (!(least < greatest) || bins < 1) return "";
  // Halves where the width of the range overflows, and only there: half of the least positive
  // number is no number of its own.
  const double scale = std::isfinite(greatest - least) ? 1 : 0.5;
  const double width = greatest * scale - least * scale;
  if (!(width > 0)) return "";
  std::vector<int64_t> counts(static_cast<size_t>(bins), 0);
  for (double score : scores) {
    if (!std::isfinite(score)) continue;
    const double part = (score * scale - least * scale) / width;
    ++counts[static_cast<size_t>(std::clamp(static_cast<int>(part * bins), 0, bins - 1))];
  }
  static constexpr const char* kBlocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  static constexpr const char* kAscii[] = {" ", ".", ":", "-", "=", "+", "*", "%", "#"};
  constexpr int64_t kTallest = 8;
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  std::string line;
  for (int64_t count : counts) {
    // Rounded up: a part that is not empty shows at least the lowest mark.
    const int64_t level = (count * kTallest + most - 1) / most;
    line += unicode ? kBlocks[level] : kAscii[level];
  }
  return line;
}

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::vector<std::string> NearestWords(std::string_view word,
                                      std::span<const std::string> candidates, size_t count) {
  const int furthest = std::clamp(static_cast<int>(word.size()) / 3, 1, 3);
  std::vector<std::pair<int, size_t>> near;
  for (size_t i = 0; i < candidates.size(); ++i) {
    // The list gives values; of two arguments, minmax would keep references to what is gone.
    const auto lengths = std::minmax({word.size(), candidates[i].size()});
    if (lengths.second - lengths.first > static_cast<size_t>(furthest)) continue;
    const int distance = EditDistance(word, candidates[i]);
    if (distance <= furthest) near.emplace_back(distance, i);
  }
  std::sort(near.begin(), near.end());
  near.resize(std::min(near.size(), count));
  std::vector<std::string> words;
  std::transform(near.begin(), near.end(), std::back_inserter(words),
                 [&](const auto& entry) { return candidates[entry.second]; });
  return words;
}

}  // namespace tiny_knn
