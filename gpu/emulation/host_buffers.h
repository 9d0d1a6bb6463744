// Pinned host memory, and the copies from and to it that the host may not yet rely on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <vector>

#include "gpu/emulation/streams.h"

namespace tiny_knn::emulation {

// Rows of equal width, `pitch` bytes apart. A plain range is one row.
struct Region {
  uint64_t address = 0;
  uint64_t width = 0;  // bytes
  uint64_t pitch = 0;
  uint64_t rows = 1;
  // The bytes from the first to behind the last.
  uint64_t span() const { return rows == 0 || width == 0 ? 0 : (rows - 1) * pitch + width; }
};

// What uninitialised and pending bytes hold where the host can see them.
constexpr unsigned char kPoison = 0xCD;

// Not thread-safe.
class HostBuffers {
 public:
  // Pinned memory, poisoned; null if there is none.
  void* Allocate(uint64_t bytes);
  // False if it is no beginning of pinned memory. `pending`: whether a copy still uses it.
  bool Free(void* address, const Streams& streams, bool* pending);
  void FreeAll();
  bool IsPinned(const Region& region) const;
  size_t live() const { return allocations_.size(); }

  // A copy between the device and pinned memory: what the host must leave alone until it has
  // waited.
  struct Copy {
    WorkId work;
    Region region;
    bool to_host = false;
    bool checked = false;  // `digest` is of the bytes as they have to stay until the copy is done
    uint64_t digest = 0;
  };
  // Begins to watch; to the host, the destination is poisoned. The result stays valid until the
  // host has waited for `work`, which is filled in by the caller.
  Copy* Watch(const Region& region, bool to_host, const Streams& streams);
  // Whether the host has changed the bytes meanwhile.
  static bool HasChanged(const Copy& copy);

 private:
  void Forget(const Streams& streams);

  std::map<uint64_t, uint64_t> allocations_;  // address -> bytes
  std::vector<void*> abandoned_;              // freed while a copy was pending
  std::list<Copy> copies_;
};

}  // namespace tiny_knn::emulation
