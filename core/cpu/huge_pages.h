// Large anonymous memory in huge pages, for arrays that are read from end to end.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tiny_knn {

// Owns a mapping that starts on 2 MiB and asks for huge pages (MADV_HUGEPAGE). All zeros. A page
// takes memory when it is first written, close to the thread that does. Thread-compatible.
class HugePages {
 public:
  // Huge pages of x86-64; elsewhere whatever the kernel makes of the advice.
  static constexpr int64_t kPageBytes = int64_t{2} << 20;

  HugePages() = default;
  ~HugePages() { Release(); }
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  // `bytes` in whole pages: what Allocate takes. REQUIRES: 0 <= bytes <= INT64_MAX - kPageBytes.
  static int64_t RoundUp(int64_t bytes) {
    return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  }

  // Maps RoundUp(bytes) in place of what it held. False where the system gives no such memory;
  // then it holds nothing. REQUIRES: bytes >= 1.
  bool Allocate(int64_t bytes);
  // Gives all of it back.
  void Release();

  std::byte* data() const { return data_; }  // null when it holds nothing
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace tiny_knn
