// A vector whose data starts on a cache line: vector loads of rows then never straddle two.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace tiny_knn {

inline constexpr size_t kCacheLineBytes = 64;

// Allocates on cache lines. Stateless.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;

  CacheLineAllocator() = default;
  template <typename U>
  explicit CacheLineAllocator(const CacheLineAllocator<U>&) {}

  T* allocate(size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{kCacheLineBytes}));
  }
  void deallocate(T* data, size_t) { ::operator delete (data, std::align_val_t{kCacheLineBytes}); }
  bool operator==(const CacheLineAllocator&) const { return true; }
};

template <typename T>
using AlignedVector = std::vector<T, CacheLineAllocator<T>>;

}  // namespace tiny_knn
