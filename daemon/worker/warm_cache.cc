#include "daemon/worker/warm_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tiny_knn {

WarmDocs* WarmCache::Find(const WarmKey& key) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found);
  return entries_.front().docs.get();
}

bool WarmCache::HasFile(const FileVersion& file) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.key.file == file; });
}

WarmDocs* WarmCache::Add(const WarmKey& key, std::string docs_path,
                         std::unique_ptr<WarmDocs> docs) {
  entries_.remove_if([&](const Entry& entry) { return entry.key == key; });
  entries_.push_front({key, std::move(docs_path), std::move(docs)});
  if (entries_.size() > kMostEntries) entries_.pop_back();
  return entries_.front().docs.get();
}

bool WarmCache::EvictTo(int64_t bytes, const WarmDocs* keep) {
  int64_t kept = this->bytes();
  for (auto entry = entries_.end(); kept > bytes && entry != entries_.begin();) {
    --entry;
    if (entry->docs.get() == keep) continue;
    kept -= entry->docs->bytes();
    entry = entries_.erase(entry);
  }
  return kept <= bytes;
}

void WarmCache::Drop(const WarmDocs* docs) {
  entries_.remove_if([&](const Entry& entry) { return entry.docs.get() == docs; });
}

void WarmCache::DropAll() { entries_.clear(); }

void WarmCache::DropUnfilled() {
  entries_.remove_if([](const Entry& entry) { return !entry.docs->filled(); });
}

void WarmCache::DropOutdated(const FileVersion& file, const std::string& docs_path) {
  entries_.remove_if([&](const Entry& entry) {
    const FileVersion& kept = entry.key.file;
    const bool same_file = kept.device == file.device && kept.inode == file.inode;
    return kept != file && (same_file || entry.docs_path == docs_path);
  });
}

void WarmCache::DropOfEngine(std::string_view engine) {
  entries_.remove_if([&](const Entry& entry) { return entry.key.engine == engine; });
}

int64_t WarmCache::bytes() const {
  int64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.docs->bytes();
  return bytes;
}

std::vector<WarmDocsStats> WarmCache::Describe() const {
  std::vector<WarmDocsStats> described;
  for (const Entry& entry : entries_) {
    described.push_back({.docs_path = entry.docs_path,
                         .dtype = std::string(DTypeName(entry.key.compute_dtype)),
                         .metric = std::string(MetricName(entry.key.metric)),
                         .bytes = entry.docs->bytes()});
  }
  return described;
}

}  // namespace tiny_knn
