// The .npy files within a result's .npz: headers to write, and arrays without dimensions, which are
// how numpy keeps one text or one number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tiny_knn {

// What stands before the data: magic, version 1 and a header whose end is a multiple of 64 bytes.
// `shape`: a Python tuple, "(3, 4)".
std::string NpyHead(std::string_view descr, std::string_view shape);

// A whole file: one int64, one bool, or one text (numpy's U). The text is a file's name, any bytes;
// what is no UTF-8 becomes what os.fsdecode makes of it.
std::string NpyInt(int64_t value);
std::string NpyBool(bool value);
std::string NpyText(std::string_view text);

// The way back, of files without dimensions in little-endian order. InvalidArgument, in one line
// that continues "'metric' ...". Safe on any bytes.
absl::StatusOr<int64_t> ParseNpyInt(std::span<const uint8_t> file);
absl::StatusOr<bool> ParseNpyBool(std::span<const uint8_t> file);
absl::StatusOr<std::string> ParseNpyText(std::span<const uint8_t> file);

}  // namespace tiny_knn
