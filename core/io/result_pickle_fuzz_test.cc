// Any bytes at all go through the reader of pickled results.
#include "core/io/result_fuzz.h"
#include "core/io/result_pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tiny_knn::FuzzResultParser(tiny_knn::ParseResultPickle, data, size);
  return 0;
}
