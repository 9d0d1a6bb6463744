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
  // A block of `threads` begins. Epochs of all blocks differ, until Restart.
  void BeginBlock(uint32_t threads);
  void Restart() { epoch_ = 0; }
  void BlockBarrier() { ++epoch_; }
  // The lanes `lanes` of warp `warp` have met at a bar.warp.sync.
  void WarpBarrier(uint32_t warp, uint32_t lanes);

  uint32_t epoch() const { return epoch_; }
  uint32_t first_epoch() const { return first_epoch_; }
  // How often `thread` has synchronised within its warp.
  uint32_t Clock(uint32_t thread) const { return Seen(thread, thread % 32); }
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

  uint32_t epoch_ = 0, first_epoch_ = 0;
  std::vector<uint32_t>
      seen_;  // [threads, 32]: the clock of each lane of the warp that one has seen
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

  // Pointer to bytes [address, address + bytes) after the checks. Throw Fault.
  const std::byte* Read(uint32_t thread, uint64_t address, uint32_t bytes, Strength strength);
  // `value`: what is about to be written. Lanes that write the same in one instruction do not race;
  // `instruction` is the number of the instruction's execution.
  std::byte* Write(uint32_t thread, uint64_t address, uint32_t bytes, Strength strength,
                   const void* value, uint64_t instruction);
  std::byte* Update(uint32_t thread, uint64_t address, uint32_t bytes);

 private:
  // The last access of a byte. Zero: none.
  struct Access {
    uint32_t epoch = 0;
    uint32_t clock = 0;
    uint16_t thread = 0;  // of several readers one
    bool strong = false;
    bool several = false;  // readers; `clock` is then the warp's meetings, kManyWarps if of several
  };
  void CheckRange(uint32_t thread, uint64_t address, uint32_t bytes);
  bool Races(const Access& before, uint32_t thread, Strength strength) const;
  [[noreturn]] void Race(const Access& before, uint64_t address, uint32_t thread, bool it_wrote,
                         bool writes) const;

  BlockOrder order_;
  std::vector<std::pair<uint32_t, uint32_t>> variables_;
  std::vector<std::byte> data_;
  std::vector<Access> writers_, readers_;
  // The execution of an instruction that wrote last, and whom it let pass for writing the same.
  uint64_t writing_instruction_ = 0;
  uint32_t last_begin_ = 1, last_end_ = 0;
};

}  // namespace tiny_knn::emulation
