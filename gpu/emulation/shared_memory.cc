#include "gpu/emulation/shared_memory.h"

#include <algorithm>
#include <cstring>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint32_t kManyWarps = ~uint32_t{0};

}  // namespace

void BlockOrder::BeginBlock(uint32_t threads) {
  first_epoch_ = ++epoch_;
  seen_.assign(static_cast<size_t>(threads) * 32, 0);
  for (uint32_t thread = 0; thread < threads; ++thread) seen_[thread * 32 + thread % 32] = 1;
  meetings_.assign((threads + 31) / 32, 0);
  last_meeting_.assign(threads, 0);
}

void BlockOrder::WarpBarrier(uint32_t warp, uint32_t lanes) {
  uint32_t joined[32] = {};
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const uint32_t* seen = &seen_[(warp * 32 + static_cast<uint32_t>(__builtin_ctz(rest))) * 32];
    for (int i = 0; i < 32; ++i) joined[i] = std::max(joined[i], seen[i]);
  }
  ++meetings_[warp];
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
    uint32_t* seen = &seen_[(warp * 32 + lane) * 32];
    std::copy(joined, joined + 32, seen);
    ++seen[lane];
    last_meeting_[warp * 32 + lane] = meetings_[warp];
  }
}

void SharedMemory::BeginBlock(uint32_t threads) {
  constexpr uint32_t kManyEpochs = 0xc0000000;
  if (order_.epoch() > kManyEpochs) {
    std::fill(writers_.begin(), writers_.end(), Access{});
    std::fill(readers_.begin(), readers_.end(), Access{});
    order_.Restart();
  }
  order_.BeginBlock(threads);
}

void SharedMemory::SetLayout(std::vector<std::pair<uint32_t, uint32_t>> variables, uint32_t bytes) {
  variables_ = std::move(variables);
  last_begin_ = 1;
  last_end_ = 0;
  if (data_.size() >= bytes) return;
  data_.resize(bytes);
  writers_.resize(bytes);
  readers_.resize(bytes);
}

void SharedMemory::CheckRange(uint32_t thread, uint64_t address, uint32_t bytes) {
  const int lane = static_cast<int>(thread % 32);
  if (address < last_begin_ || address + bytes > last_end_) {
    const auto found =
        std::find_if(variables_.begin(), variables_.end(), [&](const auto& variable) {
          return address >= variable.first && address < variable.first + variable.second;
        });
    if (found == variables_.end()) {
      throw Fault{ViolationKind::kOutOfBounds, "is outside every shared variable", address, lane};
    }
    last_begin_ = found->first;
    last_end_ = found->first + found->second;
    if (address + bytes > last_end_) {
      throw Fault{ViolationKind::kOutOfBounds, "is beyond the end of a shared variable", last_end_,
                  lane};
    }
  }
  if (address % bytes != 0) {
    throw Fault{ViolationKind::kMisaligned, fmt::format("is not aligned to {}", bytes), address,
                lane};
  }
}

// Whether nothing orders `before` and an access by `thread` now.
bool SharedMemory::Races(const Access& before, uint32_t thread, Strength strength) const {
  if (before.epoch != order_.epoch()) return false;
  if (before.strong && strength == Strength::kStrong) return false;
  if (before.several) {
    if (before.clock == kManyWarps || before.thread / 32 != thread / 32) return true;
    return order_.LastMeeting(thread) <= before.clock;
  }
  if (before.thread == thread) return false;
  return before.thread / 32 != thread / 32 || !order_.Ordered(thread, before.thread, before.clock);
}

void SharedMemory::Race(const Access& before, uint64_t address, uint32_t thread, bool it_wrote,
                        bool writes) const {
  throw Fault{ViolationKind::kSharedRace,
              fmt::format("was {} by thread {}{} and is {} by thread {}, with no barrier between",
                          it_wrote ? "written" : "read", before.thread,
                          before.several ? " and others" : "", writes ? "written" : "read", thread),
              address, static_cast<int>(thread % 32)};
}

const std::byte* SharedMemory::Read(uint32_t thread, uint64_t address, uint32_t bytes,
                                    Strength strength) {
  CheckRange(thread, address, bytes);
  const bool strong = strength == Strength::kStrong;
  const Access own{order_.epoch(), order_.Clock(thread), static_cast<uint16_t>(thread), strong};
  for (uint64_t i = address; i < address + bytes; ++i) {
    const Access& writer = writers_[i];
    if (writer.epoch < order_.first_epoch()) {
      throw Fault{ViolationKind::kUninitialised, "was never written by this block", i,
                  static_cast<int>(thread % 32)};
    }
    if (writer.epoch == own.epoch && Races(writer, thread, strength)) {
      Race(writer, i, thread, true, false);
    }
    Access& reader = readers_[i];
    // Strong and weak: a later writer has to be ordered after all of them.
    if (reader.epoch != own.epoch || !Races(reader, thread, Strength::kWeak)) {
      reader = own;
      continue;
    }
    const bool one_warp =
        reader.thread / 32 == thread / 32 && !(reader.several && reader.clock == kManyWarps);
    reader.clock = one_warp ? order_.WarpMeetings(thread / 32) : kManyWarps;
    reader.several = true;
    reader.strong = reader.strong && strong;
  }
  return data_.data() + address;
}

std::byte* SharedMemory::Write(uint32_t thread, uint64_t address, uint32_t bytes, Strength strength,
                               const void* value, uint64_t instruction) {
  CheckRange(thread, address, bytes);
  const Access own{order_.epoch(), order_.Clock(thread), static_cast<uint16_t>(thread),
                   strength == Strength::kStrong};
  for (uint64_t i = address; i < address + bytes; ++i) {
    Access& writer = writers_[i];
    if (writer.epoch == own.epoch && Races(writer, thread, strength)) {
      const bool same_value =
          std::memcmp(&data_[i], static_cast<const std::byte*>(value) + (i - address), 1) == 0;
      const bool at_once = writing_instruction_ == instruction && writer.thread / 32 == thread / 32;
      if (!same_value || !at_once) Race(writer, i, thread, true, true);
    }
    if (readers_[i].epoch == own.epoch && Races(readers_[i], thread, strength)) {
      Race(readers_[i], i, thread, false, true);
    }
    writer = own;
  }
  writing_instruction_ = instruction;
  return data_.data() + address;
}

std::byte* SharedMemory::Update(uint32_t thread, uint64_t address, uint32_t bytes) {
  Read(thread, address, bytes, Strength::kStrong);
  const Access own{order_.epoch(), order_.Clock(thread), static_cast<uint16_t>(thread), true};
  for (uint64_t i = address; i < address + bytes; ++i) {
    if (readers_[i].epoch == own.epoch && Races(readers_[i], thread, Strength::kStrong)) {
      Race(readers_[i], i, thread, false, true);
    }
    writers_[i] = own;
  }
  return data_.data() + address;
}

}  // namespace tiny_knn::emulation
