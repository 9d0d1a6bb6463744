// Any bytes at all go through the reader of .npz results.
#include "core/io/result_fuzz.h"
#include "core/io/result_npz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tiny_knn::FuzzResultParser(tiny_knn::ParseResultNpz, data, size);
  return 0;
}
