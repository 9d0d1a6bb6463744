// From a Status, or an exception, to what a C function returns and what tknn_last_error says.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "absl/status/status.h"
#include "capi/tiny_knn.h"

namespace tiny_knn {

// Keeps what was wrong for this thread and returns the code; TKNN_OK keeps what was kept. Never
// throws.
tknn_status Report(const absl::Status& status) noexcept;
tknn_status ReportText(tknn_status code, const char* text) noexcept;

// Calls `work`, which returns a Status. What it throws, where memory ends, becomes one.
template <typename Work>
tknn_status Guarded(Work&& work) noexcept {
  try {
    return Report(work());
  } catch (const std::bad_alloc&) {
    return ReportText(TKNN_RESOURCE_EXHAUSTED, "out of memory; a smaller memory limit may help");
  } catch (const std::length_error&) {  // more than any memory
    return ReportText(TKNN_RESOURCE_EXHAUSTED, "out of memory; a smaller memory limit may help");
  } catch (const std::exception& error) {
    return ReportText(TKNN_INTERNAL, error.what());
  } catch (...) {
    return ReportText(TKNN_INTERNAL, "an unknown error: a bug in tiny-knn");
  }
}

}  // namespace tiny_knn
