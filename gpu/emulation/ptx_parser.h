// PTX text to a PtxModule.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "gpu/emulation/ptx_program.h"

namespace tiny_knn::emulation {

// Parses the text of one module. What it does not know how to run is no error here, only what it
// cannot read. Errors: InvalidArgument, naming the line.
absl::StatusOr<PtxModule> ParsePtx(const std::string& text);

}  // namespace tiny_knn::emulation
