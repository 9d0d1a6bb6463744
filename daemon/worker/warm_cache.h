// Docs kept from one job for the next: which, how many bytes, and when they have to go.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/matrix/dtype.h"
#include "core/search/engine.h"
#include "core/search/planner.h"
#include "core/search/search.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/worker/file_version.h"

namespace tiny_knn {

// The same key, the same prepared docs: which file it was, byte for byte as far as the file system
// can tell, and what it was prepared for.
struct WarmKey {
  FileVersion file;
  std::optional<std::pair<int64_t, int64_t>> range = {};  // [first, second) of its rows; else all
  std::optional<DType> input_dtype;
  DType compute_dtype = DType::kFloat32;
  Metric metric = Metric::kInnerProduct;
  std::string engine;                            // "cpu", "cuda:0"
  ScreenKind screen = ScreenKind::kFloat32Gemm;  // what it makes of docs is of no use to another
  bool operator==(const WarmKey&) const = default;
};

// Least recently used docs go first. Thread-compatible.
class WarmCache {
 public:
  // So many are kept, however small: what is kept is reported in one message.
  static constexpr size_t kMostEntries = 32;

  // What was kept under `key`, or null. Marks it as used.
  WarmDocs* Find(const WarmKey& key);

  // Whether anything is kept of that version of that file. Marks nothing as used.
  bool HasFile(const FileVersion& file) const;

  // Takes docs to be filled by the job about to run, in place of what was kept under `key`. The
  // pointer stays valid until they are evicted or dropped. `docs_path`: as Describe gives it.
  WarmDocs* Add(const WarmKey& key, std::string docs_path, std::unique_ptr<WarmDocs> docs);

  // Evicts the least recently used ones, never `keep` (may be null), until at most `bytes` are
  // kept. Whether that was possible.
  bool EvictTo(int64_t bytes, const WarmDocs* keep);

  void Drop(const WarmDocs* docs);
  void DropAll();
  // Everything that no search has filled.
  void DropUnfilled();
  // What can never be found again now that `file` is at `docs_path`: other versions of that file,
  // and other files that were there.
  void DropOutdated(const FileVersion& file, const std::string& docs_path);
  // What belongs to an engine that is about to be closed.
  void DropOfEngine(std::string_view engine);

  int64_t bytes() const;  // of all that is kept, unfilled ones as they will be
  std::vector<WarmDocsStats> Describe() const;  // most recently used first

 private:
  struct Entry {
    WarmKey key;
    std::string docs_path;
    std::unique_ptr<WarmDocs> docs;
  };
  std::list<Entry> entries_;  // most recently used first
};

}  // namespace tiny_knn
