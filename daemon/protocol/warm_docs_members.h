// The members of WarmDocsStats, which a worker reports and the supervisor passes on.
#pragma once

#include <cstddef>

#include "daemon/protocol/json_members.h"

namespace tiny_knn {

// As many fit a line, however long their paths.
inline constexpr size_t kMostWarmDocs = 32;

// REQUIRES: `docs` is a WarmDocsStats.
template <typename V, typename Docs>
void WarmDocsMembers(V& v, Docs& docs) {
  v.Text("docs_path", docs.docs_path, kPathText);
  v.Text("dtype", docs.dtype, kNameText);
  v.Text("metric", docs.metric, kNameText);
  v.Int("bytes", docs.bytes, kAnyCount);
}

}  // namespace tiny_knn
