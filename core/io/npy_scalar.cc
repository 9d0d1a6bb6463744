#include "core/io/npy_scalar.h"

#include <algorithm>

#include "absl/status/status.h"
#include "core/io/python_literal.h"
#include "core/io/python_string.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr std::string_view kMagic("\x93NUMPY\x01\x00", 8);
constexpr size_t kStart = 10;  // magic, version, and two bytes of the header's length
constexpr size_t kAlignment = 64;
constexpr uint32_t kLargestCodePoint = 0x10FFFF;

void AppendNumber(uint64_t value, int bytes, std::string& out) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

uint64_t NumberAt(std::span<const uint8_t> bytes, size_t offset, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; --i) {
    value = value << 8 | bytes[offset + static_cast<size_t>(i)];
  }
  return value;
}

// The code points of what FileNameToPythonUtf8 gives: UTF-8 in which surrogates may stand.
std::u32string CodePoints(std::string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    const auto first = static_cast<uint8_t>(text[i]);
    const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    uint32_t point = length == 1 ? first : first & (0x7FU >> length);
    for (size_t j = 1; j < length; ++j)
      point = point << 6 | (static_cast<uint8_t>(text[i + j]) & 0x3F);
    out += static_cast<char32_t>(point);
    i += length;
  }
  return out;
}

void AppendUtf8(uint32_t point, std::string& out) {
  if (point < 0x80) {
    out += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  const uint32_t lead = more == 1 ? 0xC0 : more == 2 ? 0xE0 : 0xF0;
  out += static_cast<char>(lead | point >> (6 * more));
  for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | (point >> (6 * i) & 0x3F));
}

struct Scalar {
  std::string descr;
  std::span<const uint8_t> data;
};

absl::StatusOr<Scalar> ParseScalar(std::span<const uint8_t> file) {
  const absl::Status not_npy = absl::InvalidArgumentError("is no .npy file of version 1");
  if (file.size() < kStart) return not_npy;
  if (!std::equal(kMagic.begin(), kMagic.end(), file.begin(),
                  [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; })) {
    return not_npy;
  }
  const size_t header_bytes = NumberAt(file, kMagic.size(), 2);
  if (header_bytes > file.size() - kStart) return not_npy;
  const absl::StatusOr<PythonLiteral> header =
      ParsePythonLiteral({reinterpret_cast<const char*>(file.data()) + kStart, header_bytes});
  if (!header.ok()) return header.status();
  Scalar scalar;
  bool without_dimensions = false;
  if (header->kind == PythonLiteral::Kind::kDict) {
    for (size_t i = 0; i + 1 < header->items.size(); i += 2) {
      const PythonLiteral& key = header->items[i];
      const PythonLiteral& value = header->items[i + 1];
      if (key.kind != PythonLiteral::Kind::kString) continue;
      if (key.text == "descr" && value.kind == PythonLiteral::Kind::kString) {
        scalar.descr = value.text;
      }
      if (key.text == "shape") {
        without_dimensions = value.kind == PythonLiteral::Kind::kTuple && value.items.empty();
      }
    }
  }
  if (!without_dimensions) {
    return absl::InvalidArgumentError("has dimensions; expected one value");
  }
  scalar.data = file.subspan(kStart + header_bytes);
  return scalar;
}

}  // namespace

std::string NpyHead(std::string_view descr, std::string_view shape) {
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", descr, shape);
  const size_t bytes = (kStart + header.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  header.resize(bytes - kStart - 1, ' ');
  header += '\n';
  std::string out(kMagic);
  AppendNumber(header.size(), 2, out);
  return out + header;
}

std::string NpyInt(int64_t value) {
  std::string out = NpyHead("<i8", "()");
  AppendNumber(static_cast<uint64_t>(value), 8, out);
  return out;
}

std::string NpyBool(bool value) { return NpyHead("|b1", "()") + (value ? '\x01' : '\x00'); }

std::string NpyText(std::string_view text) {
  const std::u32string points = CodePoints(FileNameToPythonUtf8(text));
  // numpy has no text of no characters: it fills up with zeros, and takes them away again.
  const size_t count = std::max<size_t>(1, points.size());
  std::string out = NpyHead(fmt::format("<U{}", count), "()");
  for (const char32_t point : points) AppendNumber(point, 4, out);
  if (points.empty()) AppendNumber(0, 4, out);
  return out;
}

absl::StatusOr<int64_t> ParseNpyInt(std::span<const uint8_t> file) {
  const absl::StatusOr<Scalar> scalar = ParseScalar(file);
  if (!scalar.ok()) return scalar.status();
  if (scalar->descr != "<i8" || scalar->data.size() != 8) {
    return absl::InvalidArgumentError("is not one int64");
  }
  return static_cast<int64_t>(NumberAt(scalar->data, 0, 8));
}

absl::StatusOr<bool> ParseNpyBool(std::span<const uint8_t> file) {
  const absl::StatusOr<Scalar> scalar = ParseScalar(file);
  if (!scalar.ok()) return scalar.status();
  if (scalar->descr != "|b1" || scalar->data.size() != 1 || scalar->data[0] > 1) {
    return absl::InvalidArgumentError("is not one bool");
  }
  return scalar->data[0] != 0;
}

absl::StatusOr<std::string> ParseNpyText(std::span<const uint8_t> file) {
  const absl::StatusOr<Scalar> scalar = ParseScalar(file);
  if (!scalar.ok()) return scalar.status();
  const std::span<const uint8_t> data = scalar->data;
  if (scalar->descr != fmt::format("<U{}", data.size() / 4) || data.size() % 4 != 0) {
    return absl::InvalidArgumentError("is not one text");
  }
  size_t count = data.size() / 4;
  while (count > 0 && NumberAt(data, 4 * (count - 1), 4) == 0) --count;
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t point = NumberAt(data, 4 * i, 4);
    if (point > kLargestCodePoint || point == 0) {
      return absl::InvalidArgumentError(
          fmt::format("has the character {:#x}, which is none", point));
    }
    AppendUtf8(static_cast<uint32_t>(point), text);
  }
  return PythonUtf8ToFileName(text);
}

}  // namespace tiny_knn
