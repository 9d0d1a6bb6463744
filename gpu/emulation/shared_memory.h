// The shared memory of the block that runs: its bytes, and for every byte which thread wrote and
// read it last, so that uninitialised reads and races between barriers are seen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "gpu/emulation/device_memory.h"

namespace tiny_knn::emulation {

// What orders accesses of a block's threads: block-wide barriers, which begin a new epoch, and
// bar.warp.sync among the lanes that take part. Nothing else does: shuffles and votes order no
// memory.
class BlockOrder {
 public:
  // A thread's clock is less than this.
  static constexpr uint32_t kClocks = 1U << 20;

  // A block of `threads` begins. Epochs of all blocks differ, until Restart.
  void BeginBlock(uint32_t threads);
  void Restart() { epoch_ = 0; }
  void BlockBarrier() { ++epoch_; }
  // The lanes `lanes` of warp `warp` have met at a bar.warp.sync. Throws Fault where they have met
  // too often for their clocks.
  void WarpBarrier(uint32_t warp, uint32_t lanes);

  uint32_t epoch() const { return epoch_; }
  uint32_t first_epoch() const { return first_epoch_; }
  // How often `thread` has synchronised within its warp.
  uint32_t Clock(uint32_t thread) const { return clocks_[thread]; }
  // Whether what thread `other` of the same warp did at its clock `clock` is ordered before
  // `thread`.
  bool Ordered(uint32_t thread, uint32_t other, uint32_t clock) const {
    return Seen(thread, other % 32) >= clock;
  }
  // Number of the warp's last bar.warp.sync, and of the last that `thread` took part in.
  uint32_t WarpMeetings(uint32_t warp) const { return meetings_[warp]; }
  uint32_t LastMeeting(uint32_t thread) const { return last_meeting_[thread]; }

 private:
  uint32_t Seen(uint32_t thread, uint32_t lane) const { return seen_[thread * 32 + lane]; }

  // What `warp` knows before any meeting.
  void Reset(uint32_t warp);

  uint32_t epoch_ = 0, first_epoch_ = 0;
  // Those of warps that have met stay as they are until a block of as many threads begins.
  std::vector<uint32_t>
      seen_;  // [threads, 32]: the clock of each lane of the warp that one has seen
  std::vector<uint32_t> clocks_;        // [threads]: of its own lane
  std::vector<uint32_t> meetings_;      // [warps]
  std::vector<uint32_t> last_meeting_;  // [threads]
};

// Not thread-safe.
class SharedMemory {
 public:
  // The variables: beginning and bytes, ascending, not adjoining; `bytes` is the end of the last.
  void SetLayout(std::vector<std::pair<uint32_t, uint32_t>> variables, uint32_t bytes);
  // A block begins: whatever an earlier one left is uninitialised.
  void BeginBlock(uint32_t threads);
  BlockOrder& order() { return order_; }

  // Accesses by the lanes `lanes` of warp `warp` in one instruction, in the order of lanes: lane i
  // to bytes [addresses[i], addresses[i] + bytes), `bytes` being a power of two up to 64. Throw
  // Fault. Read returns what address 0 is at. `values`: what lane i writes, from i * bytes on.
  // Lanes that write the same here do not race.
  const std::byte* Read(uint32_t warp, uint32_t lanes, const uint64_t* addresses, uint32_t bytes,
                        Strength strength);
  void Write(uint32_t warp, uint32_t lanes, const uint64_t* addresses, uint32_t bytes,
             Strength strength, const std::byte* values);
  // An atomic operation of one thread: pointer to the bytes after the checks.
  std::byte* Update(uint32_t thread, uint64_t address, uint32_t bytes);

 private:
  // The last access of a byte, or none (0): the epoch in the upper half, below it the thread's
  // clock (20 bits), whether it was strong, whether it stands for several readers, and the thread
  // (10 bits; of several readers one). Of several readers the clock is the warp's meetings,
  // kManyWarps if they are of several warps.
  using Tag = uint64_t;

  Tag TagOf(uint32_t thread, Strength strength) const;
  void CheckRange(uint32_t thread, uint64_t address, uint32_t bytes);
  // Whether all of them lie in the variable that was accessed last, aligned.
  bool AreInside(uint32_t lanes, const uint64_t* addresses, uint32_t bytes) const;
  template <uint32_t kBytes>
  void NoteReads(uint32_t warp, uint32_t lanes, const uint64_t* addresses, Strength strength);
  template <uint32_t kBytes>
  void WriteAll(uint32_t warp, uint32_t lanes, const uint64_t* addresses, Strength strength,
                const std::byte* values);
  void NoteRead(uint32_t thread, uint64_t address, uint32_t bytes, Strength strength);
  // `lanes` have written before it in the same instruction, to `addresses`.
  void NoteWrite(uint32_t thread, uint32_t lanes, const uint64_t* addresses, uint32_t bytes,
                 Strength strength, const std::byte* value);
  bool Races(Tag before, uint32_t thread, Strength strength) const;
  [[noreturn]] static void Race(Tag before, uint64_t address, uint32_t thread, bool it_wrote,
                                bool writes);

  BlockOrder order_;
  std::vector<std::pair<uint32_t, uint32_t>> variables_;
  std::vector<std::byte> data_;
  std::vector<Tag> writers_, readers_;
  uint32_t last_begin_ = 1, last_end_ = 0;
};

}  // namespace tiny_knn::emulation
