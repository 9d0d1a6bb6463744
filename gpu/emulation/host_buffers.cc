#include "gpu/emulation/host_buffers.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace tiny_knn::emulation {
namespace {

constexpr size_t kAlign = 4096;

bool Overlap(const Region& a, const Region& b) {
  return a.address < b.address + b.span() && b.address < a.address + a.span();
}

uint64_t Digest(const Region& region) {
  uint64_t digest = 0;
  for (uint64_t row = 0; row < region.rows; ++row) {
    const auto* bytes = reinterpret_cast<const char*>(region.address + row * region.pitch);
    const uint64_t hash = std::hash<std::string_view>()({bytes, region.width});
    digest = (digest ^ hash) * 0x9e3779b97f4a7c15;
  }
  return digest;
}

}  // namespace

void* HostBuffers::Allocate(uint64_t bytes) {
  const uint64_t rounded = (std::max<uint64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign;
  void* memory = std::aligned_alloc(kAlign, rounded);
  if (memory == nullptr) return nullptr;
  std::memset(memory, kPoison, bytes);
  allocations_[reinterpret_cast<uint64_t>(memory)] = bytes;
  return memory;
}

bool HostBuffers::Free(void* address, const Streams& streams, bool* pending) {
  const auto found = allocations_.find(reinterpret_cast<uint64_t>(address));
  if (found == allocations_.end()) return false;
  Forget(streams);
  const Region all{.address = found->first, .width = found->second};
  *pending = std::any_of(copies_.begin(), copies_.end(),
                         [&](const Copy& copy) { return Overlap(copy.region, all); });
  // What a copy still uses is not given to somebody else.
  if (*pending) {
    abandoned_.push_back(address);
  } else {
    std::free(address);
  }
  allocations_.erase(found);
  return true;
}

void HostBuffers::FreeAll() {
  for (const auto& [address, bytes] : allocations_) std::free(reinterpret_cast<void*>(address));
  for (void* address : abandoned_) std::free(address);
  allocations_.clear();
  abandoned_.clear();
  copies_.clear();
}

bool HostBuffers::IsPinned(const Region& region) const {
  auto found = allocations_.upper_bound(region.address);
  if (found == allocations_.begin()) return false;
  --found;
  return region.address + region.span() <= found->first + found->second;
}

HostBuffers::Copy* HostBuffers::Watch(const Region& region, bool to_host, const Streams& streams) {
  Forget(streams);
  // Bytes that an earlier copy is still to write or read may change, or must not.
  const bool shared = std::any_of(copies_.begin(), copies_.end(), [&](const Copy& copy) {
    return (to_host || copy.to_host) && Overlap(copy.region, region);
  });
  Copy& copy = copies_.emplace_back();
  copy.region = region;
  copy.to_host = to_host;
  copy.checked = !shared;
  if (shared) return &copy;
  for (uint64_t row = 0; to_host && row < region.rows; ++row) {
    std::memset(reinterpret_cast<void*>(region.address + row * region.pitch), kPoison,
                region.width);
  }
  copy.digest = Digest(region);
  return &copy;
}

bool HostBuffers::HasChanged(const Copy& copy) {
  return copy.checked && Digest(copy.region) != copy.digest;
}

void HostBuffers::Forget(const Streams& streams) {
  copies_.remove_if([&](const Copy& copy) { return streams.HostKnows(copy.work); });
}

}  // namespace tiny_knn::emulation
