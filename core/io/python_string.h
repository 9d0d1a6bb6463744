// File names as Python strings: bytes that are no UTF-8 become lone surrogates (PEP 383).
#pragma once

#include <string>
#include <string_view>

namespace tiny_knn {

// The UTF-8 that Python's pickle stores for os.fsdecode(name): valid UTF-8 stays, every other byte
// b becomes the three bytes of U+DC00 + b, so that os.fsencode of the loaded string gives `name`.
std::string FileNameToPythonUtf8(std::string_view name);

// The way back.
std::string PythonUtf8ToFileName(std::string_view text);

}  // namespace tiny_knn
