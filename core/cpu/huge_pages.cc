#include "core/cpu/huge_pages.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace tiny_knn {

bool HugePages::Allocate(int64_t bytes) {
  Release();
  // One page more, so that there is an aligned start; the ends go back at once.
  const int64_t wanted = RoundUp(bytes);
  if (wanted > PTRDIFF_MAX - kPageBytes) return false;
  const size_t mapped = static_cast<size_t>(wanted + kPageBytes);
  void* const start =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return false;
  std::byte* const first = static_cast<std::byte*>(start);
  const auto misaligned = static_cast<int64_t>(reinterpret_cast<uintptr_t>(start) % kPageBytes);
  const int64_t before = misaligned == 0 ? 0 : kPageBytes - misaligned;
  if (before > 0) munmap(first, static_cast<size_t>(before));
  if (before < kPageBytes) {
    munmap(first + before + wanted, static_cast<size_t>(kPageBytes - before));
  }
  data_ = first + before;
  bytes_ = wanted;
  // Advice: small pages work as well.
  static_cast<void>(madvise(data_, static_cast<size_t>(bytes_), MADV_HUGEPAGE));
  return true;
}

void HugePages::Release() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace tiny_knn
