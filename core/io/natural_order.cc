#include "core/io/natural_order.h"

#include <algorithm>
#include <cstddef>

namespace tiny_knn {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// The run of digits that starts at `at`, which is moved behind it, without leading zeros.
std::string_view TakeNumber(std::string_view text, size_t& at) {
  while (at < text.size() && text[at] == '0') ++at;
  const size_t begin = at;
  while (at < text.size() && IsDigit(text[at])) ++at;
  return text.substr(begin, at - begin);
}

int Sign(int difference) { return difference < 0 ? -1 : difference > 0 ? 1 : 0; }

}  // namespace

int CompareNaturally(std::string_view a, std::string_view b) {
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    const bool digit_a = IsDigit(a[i]);
    const bool digit_b = IsDigit(b[j]);
    if (digit_a != digit_b) return digit_a ? -1 : 1;
    if (!digit_a) {
      const int difference =
          static_cast<unsigned char>(a[i++]) - static_cast<unsigned char>(b[j++]);
      if (difference != 0) return Sign(difference);
      continue;
    }
    const std::string_view number_a = TakeNumber(a, i);
    const std::string_view number_b = TakeNumber(b, j);
    if (number_a.size() != number_b.size()) return number_a.size() < number_b.size() ? -1 : 1;
    const int difference = number_a.compare(number_b);
    if (difference != 0) return Sign(difference);
  }
  return (i < a.size() ? 1 : 0) - (j < b.size() ? 1 : 0);
}

std::string WithoutNumbers(std::string_view name) {
  std::string text;
  for (const char c : name) {
    if (!IsDigit(c)) {
      text += c;
    } else if (text.empty() || text.back() != '#') {
      text += '#';
    }
  }
  return text;
}

}  // namespace tiny_knn
