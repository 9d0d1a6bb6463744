#include "gpu/emulation/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint64_t kGuardBytes = 256;
constexpr uint64_t kAlign = 256;
constexpr uint64_t kPage = 4096;

void* Reserve(uint64_t bytes, int protection) {
  void* memory =
      mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("gpu emulation: no address space for device memory");
    std::abort();
  }
  madvise(memory, bytes, MADV_DONTDUMP);
  return memory;
}

// Sets [begin, begin + bytes) of a reservation to zero, and gives its whole pages back.
void Clear(void* begin, uint64_t bytes) {
  const auto address = reinterpret_cast<uint64_t>(begin);
  const uint64_t first = (address + kPage - 1) / kPage * kPage;
  const uint64_t last = (address + bytes) / kPage * kPage;
  if (last < first + 64 * kPage) {
    std::memset(begin, 0, bytes);
    return;
  }
  std::memset(begin, 0, first - address);
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  std::memset(reinterpret_cast<void*>(last), 0, address + bytes - last);
}

bool IsUnordered(const Actor& actor, uint32_t other) {
  if (actor.unordered == nullptr) return false;
  return std::any_of(actor.unordered->begin(), actor.unordered->end(), [&](const auto& range) {
    return other >= range.first && other < range.second;
  });
}

}  // namespace

DeviceMemory::DeviceMemory() {
  const uint64_t all = AddressSpace::kGlobalBytes + 3 * AddressSpace::kWindowBytes;
  space_.global = reinterpret_cast<uint64_t>(Reserve(all, PROT_NONE));
  space_.shared = space_.global + AddressSpace::kGlobalBytes;
  space_.local = space_.shared + AddressSpace::kWindowBytes;
  space_.param = space_.local + AddressSpace::kWindowBytes;
  data_ = static_cast<std::byte*>(Reserve(AddressSpace::kGlobalBytes, PROT_READ | PROT_WRITE));
  writers_ = static_cast<uint32_t*>(
      Reserve(AddressSpace::kGlobalBytes * sizeof(uint32_t), PROT_READ | PROT_WRITE));
  readers_ = static_cast<uint32_t*>(
      Reserve(AddressSpace::kGlobalBytes * sizeof(uint32_t), PROT_READ | PROT_WRITE));
  next_ = space_.global + kAlign;
}

DeviceMemory::~DeviceMemory() {
  munmap(reinterpret_cast<void*>(space_.global),
         AddressSpace::kGlobalBytes + 3 * AddressSpace::kWindowBytes);
  munmap(data_, AddressSpace::kGlobalBytes);
  munmap(writers_, AddressSpace::kGlobalBytes * sizeof(uint32_t));
  munmap(readers_, AddressSpace::kGlobalBytes * sizeof(uint32_t));
}

uint64_t DeviceMemory::Allocate(uint64_t bytes) {
  if (bytes > AddressSpace::kGlobalBytes) return 0;
  const uint64_t room = (std::max<uint64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign + kGuardBytes;
  const uint64_t end = space_.global + AddressSpace::kGlobalBytes;
  // From where the last one ended, then from the beginning.
  for (int round = 0; round < 2; ++round) {
    uint64_t at = round == 0 ? next_ : space_.global + kAlign;
    while (at + room <= end) {
      // The first live one that ends behind `at`.
      auto live = allocations_.upper_bound(at);
      if (live != allocations_.begin()) {
        const auto before = std::prev(live);
        const uint64_t free_from =
            (before->first + before->second + kGuardBytes + kAlign - 1) / kAlign * kAlign;
        if (free_from > at) {
          at = free_from;
          continue;
        }
      }
      if (live != allocations_.end() && live->first < at + room) {
        at = live->first + 1;
        continue;
      }
      allocations_[at] = bytes;
      next_ = at + room;
      return at;
    }
  }
  return 0;
}

bool DeviceMemory::Free(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end()) return false;
  const uint64_t offset = address - space_.global;
  // So that its bytes are uninitialised for whom they are given next.
  Clear(data_ + offset, found->second);
  Forget(address, found->second);
  allocations_.erase(found);
  last_begin_ = 1;
  last_end_ = 0;
  return true;
}

std::vector<uint64_t> DeviceMemory::Allocations() const {
  std::vector<uint64_t> addresses;
  for (const auto& [address, bytes] : allocations_) addresses.push_back(address);
  return addresses;
}

std::optional<std::pair<uint64_t, uint64_t>> DeviceMemory::Find(uint64_t address) const {
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin()) return std::nullopt;
  --found;
  if (address - found->first >= found->second) return std::nullopt;
  return *found;
}

// What lies before an address, for messages.
std::string DeviceMemory::Before(uint64_t address) const {
  auto found = allocations_.upper_bound(address);
  if (found == allocations_.begin()) return "";
  --found;
  return fmt::format(", {} bytes behind the end of the {} bytes from {:#x}",
                     address - (found->first + found->second), found->second, found->first);
}

void DeviceMemory::CheckRange(uint64_t address, uint64_t bytes, uint64_t element) {
  if (address < last_begin_ || address + bytes > last_end_) {
    const auto found = Find(address);
    if (!found) {
      throw Fault{ViolationKind::kOutOfBounds,
                  Contains(address) ? "is outside every allocation" + Before(address)
                                    : "is no device memory",
                  address};
    }
    last_begin_ = found->first;
    last_end_ = found->first + found->second;
    if (address + bytes > last_end_) {
      throw Fault{ViolationKind::kOutOfBounds, "is outside every allocation" + Before(last_end_),
                  last_end_};
    }
  }
  if (address % element != 0) {
    throw Fault{ViolationKind::kMisaligned, fmt::format("is not aligned to {}", element), address};
  }
}

void DeviceMemory::Race(const Actor& actor, uint64_t address, uint32_t other, bool it_wrote,
                        bool writes) const {
  const char* verb = writes ? "written" : "read";
  const char* other_verb = it_wrote ? "written" : "read";
  if (other >= actor.first) {
    throw Fault{
        .kind = ViolationKind::kBlockRace,
        .text = fmt::format("is {} here and {} by {} of this launch, not both atomically", verb,
                            other_verb, other == actor.first ? "other blocks" : "another block"),
        .address = address,
        .other_block = int64_t{other} - actor.first - 1};
  }
  throw Fault{ViolationKind::kStreamRace,
              fmt::format("is {} here and {} by an earlier operation of another stream, which no "
                          "event or synchronisation orders before this one",
                          verb, other_verb),
              address};
}

void DeviceMemory::NoteRead(const Actor& actor, uint64_t address, uint64_t bytes, Strength strength,
                            bool may_be_uninitialised) {
  const uint32_t strong = strength == Strength::kStrong ? 1 : 0;
  const uint32_t own = actor.id << 1;
  const uint32_t first = actor.first << 1;
  const uint64_t offset = address - space_.global;
  const uint32_t* writers = writers_ + offset;
  uint32_t* readers = readers_ + offset;
  const bool all_ordered = actor.unordered == nullptr || actor.unordered->empty();
  // Written, by oneself or by an operation before this one: nothing more to look at.
  uint32_t suspicious = 0;
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint32_t writer = writers[i];
    suspicious |= static_cast<uint32_t>(writer - 2 >= first - 2) &
                  static_cast<uint32_t>((writer & ~1U) != own);
  }
  if (suspicious != 0 || !all_ordered) {
    for (uint64_t i = 0; i < bytes; ++i) {
      const uint32_t writer = writers[i];
      if (writer == 0) {
        if (may_be_uninitialised) continue;
        throw Fault{ViolationKind::kUninitialised, "was never written", address + i};
      }
      const uint32_t id = writer >> 1;
      if (id == actor.id || (writer & strong) != 0) continue;
      if (id >= actor.first || IsUnordered(actor, id)) Race(actor, address + i, id, true, false);
    }
  }
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint32_t reader = readers[i];
    // A second block of this launch: from now on it is "several", weak if any of them is.
    const bool other_block = reader >= first && (reader & ~1U) != own;
    const bool same = (reader & ~1U) == own;
    const uint32_t weakest = strong & reader;
    readers[i] = other_block ? (first | weakest) : (own | (same ? weakest : strong));
  }
}

void DeviceMemory::NoteWrite(const Actor& actor, uint64_t address, uint64_t bytes,
                             Strength strength) {
  const uint32_t strong = strength == Strength::kStrong ? 1 : 0;
  const uint32_t own = actor.id << 1;
  const uint32_t first = actor.first << 1;
  const uint64_t offset = address - space_.global;
  uint32_t* writers = writers_ + offset;
  const uint32_t* readers = readers_ + offset;
  const bool all_ordered = actor.unordered == nullptr || actor.unordered->empty();
  uint32_t suspicious = 0;
  for (uint64_t i = 0; i < bytes; ++i) {
    suspicious |= static_cast<uint32_t>(writers[i] >= first) &
                  static_cast<uint32_t>((writers[i] & ~1U) != own);
    suspicious |= static_cast<uint32_t>(readers[i] >= first) &
                  static_cast<uint32_t>((readers[i] & ~1U) != own);
  }
  if (suspicious != 0 || !all_ordered) {
    for (uint64_t i = 0; i < bytes; ++i) {
      for (const uint32_t tag : {writers[i], readers[i]}) {
        const uint32_t id = tag >> 1;
        if (tag == 0 || id == actor.id || (tag & strong) != 0) continue;
        if (id >= actor.first || IsUnordered(actor, id)) {
          Race(actor, address + i, id, tag == writers[i], true);
        }
      }
    }
  }
  std::fill(writers, writers + bytes, own | strong);
}

const std::byte* DeviceMemory::Read(const Actor& actor, uint64_t address, uint64_t bytes,
                                    uint64_t element, Strength strength) {
  CheckRange(address, bytes, element);
  NoteRead(actor, address, bytes, strength, false);
  return At(address);
}

std::byte* DeviceMemory::Write(const Actor& actor, uint64_t address, uint64_t bytes,
                               uint64_t element, Strength strength) {
  CheckRange(address, bytes, element);
  NoteWrite(actor, address, bytes, strength);
  return At(address);
}

std::byte* DeviceMemory::Update(const Actor& actor, uint64_t address, uint64_t bytes) {
  CheckRange(address, bytes, bytes);
  NoteRead(actor, address, bytes, Strength::kStrong, false);
  NoteWrite(actor, address, bytes, Strength::kStrong);
  return At(address);
}

void DeviceMemory::Forget(uint64_t address, uint64_t bytes) {
  Clear(writers_ + (address - space_.global), bytes * sizeof(uint32_t));
  Clear(readers_ + (address - space_.global), bytes * sizeof(uint32_t));
}

void DeviceMemory::Copy(const Actor& actor, uint64_t to, uint64_t from, uint64_t bytes) {
  if (bytes == 0) return;
  std::vector<bool> written;
  const std::byte* source = Peek(actor, from, bytes, &written);
  std::memmove(Write(actor, to, bytes, 1, Strength::kWeak), source, bytes);
  for (uint64_t i = 0; i < bytes; ++i) {
    if (!written[i]) writers_[to - space_.global + i] = 0;
  }
}

const std::byte* DeviceMemory::Peek(const Actor& actor, uint64_t address, uint64_t bytes,
                                    std::vector<bool>* written) {
  CheckRange(address, bytes, 1);
  NoteRead(actor, address, bytes, Strength::kWeak, true);
  written->resize(bytes);
  for (uint64_t i = 0; i < bytes; ++i) (*written)[i] = writers_[address - space_.global + i] != 0;
  return At(address);
}

}  // namespace tiny_knn::emulation
