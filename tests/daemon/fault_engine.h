// What the fault interposer's wrappers ask before and after every call.
#pragma once

#include <fcntl.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "tests/daemon/fault_rules.h"

namespace tiny_knn {

// What a call is about, as far as rules ask.
struct Seen {
  FaultCall call;
  int descriptor = -1;  // of a file, or of the folder where `path` starts
  const char* path = nullptr;
  const char* other_path = nullptr;  // of a rename: the new name, in `other_folder`
  int other_folder = AT_FDCWD;
  const iovec* pieces = nullptr;
  size_t num_pieces = 0;
  size_t num_bytes = SIZE_MAX;  // of the pieces, what was really transferred
};

// What is left to do for a call's wrapper once the rules have acted.
struct Verdict {
  bool skip = false;  // do not make the call
  int error = 0;      // then: what it failed with, or 0
  size_t most_bytes = SIZE_MAX;
};

// Lets every active rule that matches act. Keeps errno. Does nothing in programs that are neither
// tiny-knnd nor tiny-knn, and without TINY_KNN_TEST_FAULTS. Thread-safe.
Verdict ApplyRules(const Seen& seen, bool after);

// Nanoseconds that the wall clock is to be off.
int64_t ClockOffset();

// Makes the call that `real(most_bytes)` makes, unless a rule says otherwise.
template <typename Result, typename Real>
Result Guard(Seen seen, Result skipped, const Real& real) {
  const Verdict verdict = ApplyRules(seen, false);
  if (verdict.skip) {
    errno = verdict.error;
    return verdict.error != 0 ? static_cast<Result>(-1) : skipped;
  }
  const Result result = real(verdict.most_bytes);
  if (seen.pieces != nullptr) seen.num_bytes = result < 0 ? 0 : static_cast<size_t>(result);
  ApplyRules(seen, true);
  return result;
}

}  // namespace tiny_knn
