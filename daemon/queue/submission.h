// What may be asked of the queue, whoever decoded it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "daemon/protocol/client_messages.h"

namespace tiny_knn {

inline constexpr size_t kMostSubmittedPathBytes = 4096;

// kBadRequest for what no client's decoder lets through, or a job without an output path; nothing
// when all is well. `spec_json` is request.spec's. Pure.
std::optional<ErrorReply> CheckSubmission(const SubmitRequest& request,
                                          const std::string& spec_json);

// `path` as seen from `folder`. Pure: no link is followed, nothing is looked up.
std::string AbsolutePath(const std::string& folder, const std::string& path);

}  // namespace tiny_knn
