// A vector whose data starts on a cache line: vector loads of rows then never straddle two.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace tiny_knn {

inline constexpr size_t kCacheLineBytes = 64;

// Allocates whole cache lines: what one thread writes shares none with what another one does.
// Stateless.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;

  CacheLineAllocator() = default;
  template <typename U>
  explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}

  T* allocate(size_t count) {
    const size_t lines = (count * sizeof(T) + kCacheLineBytes - 1) / kCacheLineBytes;
    return static_cast<T*>(
        ::operator new (lines* kCacheLineBytes, std::align_val_t{kCacheLineBytes}));
  }
  void deallocate(T* data, size_t) { ::operator delete (data, std::align_val_t{kCacheLineBytes}); }
  bool operator==(const CacheLineAllocator&) const { return true; }
};

template <typename T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

}  // namespace tiny_knn
