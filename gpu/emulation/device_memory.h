// The device's global memory: allocations in address space that the host cannot touch, and for
// every byte who wrote and read it last, so that uninitialised reads and races are seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gpu/emulation/violation.h"

namespace tiny_knn::emulation {

// The windows of the address space, one reservation. Generic addresses are told apart by them.
struct AddressSpace {
  static constexpr uint64_t kGlobalBytes = uint64_t{16} << 30;
  static constexpr uint64_t kWindowBytes = uint64_t{1} << 24;
  uint64_t global = 0;  // [global, global + kGlobalBytes)
  uint64_t shared = 0;  // and kWindowBytes from each of these
  uint64_t local = 0;
  uint64_t param = 0;
};

// Who accesses: one block of a launch, or a copy. Every actor has a number of its own, and those of
// one operation (a launch, a copy) follow each other, from `first` on. `first` itself stands for
// "several blocks of the launch".
struct Actor {
  uint32_t first = 0;
  uint32_t id = 0;
  // Earlier operations that nothing orders before this one: their actors, [begin, end), ascending.
  const std::vector<std::pair<uint32_t, uint32_t>>* unordered = nullptr;
};

// How an access takes part in races. Two strong ones (atomic, volatile, relaxed, ...) never race.
enum class Strength : uint8_t { kWeak, kStrong };

// Not thread-safe.
class DeviceMemory {
 public:
  DeviceMemory();
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  const AddressSpace& space() const { return space_; }
  bool Contains(uint64_t address) const {
    return address - space_.global < AddressSpace::kGlobalBytes;
  }

  // Uninitialised bytes, 256-aligned, with at least 256 of nobody behind them; 0 where the address
  // space is full. An address is not given out again before the others have been.
  uint64_t Allocate(uint64_t bytes);
  // False if `address` is the beginning of no allocation.
  bool Free(uint64_t address);
  std::vector<uint64_t> Allocations() const;  // the beginnings of all
  size_t live_allocations() const { return allocations_.size(); }
  // The allocation that holds `address`: its beginning and bytes.
  std::optional<std::pair<uint64_t, uint64_t>> Find(uint64_t address) const;

  // The host's pointer to device bytes [address, address + bytes), after the checks of a read,
  // write, or both. Throw Fault. `element` is the alignment asked for.
  const std::byte* Read(const Actor& actor, uint64_t address, uint64_t bytes, uint64_t element,
                        Strength strength);
  std::byte* Write(const Actor& actor, uint64_t address, uint64_t bytes, uint64_t element,
                   Strength strength);
  std::byte* Update(const Actor& actor, uint64_t address, uint64_t bytes);  // an atomic
  // Makes the bytes of an allocation uninitialised again, as nobody's.
  void Forget(uint64_t address, uint64_t bytes);
  // Copies device to device; what is uninitialised stays so.
  void Copy(const Actor& actor, uint64_t to, uint64_t from, uint64_t bytes);
  // As Read, but for bytes that may be uninitialised: [i] of the answer says which are written.
  const std::byte* Peek(const Actor& actor, uint64_t address, uint64_t bytes,
                        std::vector<bool>* written);

 private:
  std::string Before(uint64_t address) const;
  void CheckRange(uint64_t address, uint64_t bytes, uint64_t element);
  void NoteRead(const Actor& actor, uint64_t address, uint64_t bytes, Strength strength,
                bool may_be_uninitialised);
  void NoteWrite(const Actor& actor, uint64_t address, uint64_t bytes, Strength strength);
  [[noreturn]] void Race(const Actor& actor, uint64_t address, uint32_t other, bool it_wrote,
                         bool writes) const;
  std::byte* At(uint64_t address) const { return data_ + (address - space_.global); }

  AddressSpace space_;
  std::byte* data_ = nullptr;    // [kGlobalBytes], what device addresses stand for
  uint32_t* writers_ = nullptr;  // [kGlobalBytes]: actor << 1 | strong; 0: uninitialised
  uint32_t* readers_ = nullptr;  // likewise; 0: nobody
  std::map<uint64_t, uint64_t> allocations_;  // address -> bytes
  uint64_t next_ = 0;                         // where to look for room
  uint64_t last_begin_ = 1, last_end_ = 0;    // the allocation that was accessed last
};

}  // namespace tiny_knn::emulation
