// Docs kept from one job for the next: which, how many bytes, and when they have to go.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/search/engine.h"
#include "core/search/search.h"
#include "daemon/protocol/client_messages.h"

namespace tiny_knn {

// The same key, the same prepared docs: which file it was, byte for byte as far as the file system
// can tell, and what it was prepared for.
struct WarmKey {
  uint64_t device = 0;
  uint64_t inode = 0;
  int64_t size = 0;
  int64_t mtime_ns = 0;
  int64_t ctime_ns = 0;
  std::optional<DType> input_dtype;
  DType compute_dtype = DType::kFloat32;
  Metric metric = Metric::kInnerProduct;
  std::string engine;  // "cpu", "cuda:0"
  bool operator==(const WarmKey&) const = default;
};

// Least recently used docs go first. Thread-compatible.
class WarmCache {
 public:
  // What was kept under `key`, or null. Marks it as used.
  WarmDocs* Find(const WarmKey& key);

  // Takes docs to be filled by the job about to run. The pointer stays valid until they are
  // evicted.
  WarmDocs* Add(const WarmKey& key, std::string docs_path, std::unique_ptr<WarmDocs> docs);

  // Evicts the least recently used ones, never `keep` (may be null), until at most `bytes` are
  // kept. Whether that was possible.
  bool EvictTo(int64_t bytes, const WarmDocs* keep);

  // Drops everything that no search has filled, and every version of the file of `key` but `key`'s.
  void DropUnfilled();
  void DropOtherVersions(const WarmKey& key);

  int64_t bytes() const;  // of all that is kept, unfilled ones as they will be
  std::vector<WarmDocsStats> Describe() const;

 private:
  struct Entry {
    WarmKey key;
    std::string docs_path;
    std::unique_ptr<WarmDocs> docs;
  };
  std::list<Entry> entries_;  // most recently used first
};

}  // namespace tiny_knn
