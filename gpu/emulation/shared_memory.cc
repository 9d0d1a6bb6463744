#include "gpu/emulation/shared_memory.h"

#include <algorithm>
#include <cstring>

#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

// The parts of a tag.
constexpr uint32_t kThreads = 1U << 10;
constexpr uint64_t kSeveral = 1U << 10;
constexpr uint64_t kStrong = 1U << 11;
constexpr int kClockShift = 12;
constexpr int kEpochShift = 32;
constexpr uint64_t kClockMask = uint64_t{BlockOrder::kClocks - 1} << kClockShift;
constexpr uint32_t kManyWarps = BlockOrder::kClocks - 1;

uint32_t EpochOf(uint64_t tag) { return static_cast<uint32_t>(tag >> kEpochShift); }
uint32_t ClockOf(uint64_t tag) { return static_cast<uint32_t>((tag & kClockMask) >> kClockShift); }
uint32_t ThreadOf(uint64_t tag) { return static_cast<uint32_t>(tag) & (kThreads - 1); }

// Calls f.operator()<bytes>(), so that what it does byte by byte is unrolled.
template <typename F>
void WithBytes(uint32_t bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f.template operator()<1>();
    case 2:
      return f.template operator()<2>();
    case 4:
      return f.template operator()<4>();
    case 8:
      return f.template operator()<8>();
    case 16:
      return f.template operator()<16>();
    case 32:
      return f.template operator()<32>();
    case 64:
      return f.template operator()<64>();
    default:
      throw Fault{ViolationKind::kUnsupported, fmt::format("an access of {} bytes", bytes)};
  }
}

}  // namespace

void BlockOrder::Reset(uint32_t warp) {
  const uint32_t first = warp * 32;
  const uint32_t last = std::min(first + 32, static_cast<uint32_t>(clocks_.size()));
  std::fill(&seen_[first * 32], &seen_[first * 32] + (last - first) * 32, 0);
  for (uint32_t thread = first; thread < last; ++thread) {
    seen_[thread * 32 + thread % 32] = 1;
    clocks_[thread] = 1;
    last_meeting_[thread] = 0;
  }
  meetings_[warp] = 0;
}

void BlockOrder::BeginBlock(uint32_t threads) {
  first_epoch_ = ++epoch_;
  const bool is_new = clocks_.size() != threads;
  if (is_new) {
    seen_.resize(static_cast<size_t>(threads) * 32);
    clocks_.resize(threads);
    meetings_.resize((threads + 31) / 32);
    last_meeting_.resize(threads);
  }
  for (uint32_t warp = 0; warp < meetings_.size(); ++warp) {
    if (is_new || meetings_[warp] != 0) Reset(warp);
  }
}

void BlockOrder::WarpBarrier(uint32_t warp, uint32_t lanes) {
  uint32_t joined[32] = {};
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const uint32_t* seen = &seen_[(warp * 32 + static_cast<uint32_t>(__builtin_ctz(rest))) * 32];
    for (int i = 0; i < 32; ++i) joined[i] = std::max(joined[i], seen[i]);
  }
  // Clocks are never ahead of meetings by more than one.
  if (++meetings_[warp] >= kManyWarps - 1) {
    throw Fault{ViolationKind::kUnsupported,
                "a warp of one block meets too often at bar.warp.sync"};
  }
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
    uint32_t* seen = &seen_[(warp * 32 + lane) * 32];
    std::copy(joined, joined + 32, seen);
    clocks_[warp * 32 + lane] = ++seen[lane];
    last_meeting_[warp * 32 + lane] = meetings_[warp];
  }
}

void SharedMemory::BeginBlock(uint32_t threads) {
  constexpr uint32_t kManyEpochs = 0xc0000000;
  if (order_.epoch() > kManyEpochs) {
    std::fill(writers_.begin(), writers_.end(), Tag{0});
    std::fill(readers_.begin(), readers_.end(), Tag{0});
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

SharedMemory::Tag SharedMemory::TagOf(uint32_t thread, Strength strength) const {
  return Tag{order_.epoch()} << kEpochShift | Tag{order_.Clock(thread)} << kClockShift |
         (strength == Strength::kStrong ? kStrong : 0) | thread;
}

void SharedMemory::CheckRange(uint32_t thread, uint64_t address, uint32_t bytes) {
  const int lane = static_cast<int>(thread % 32);
  if (address < last_begin_ || address >= last_end_ || bytes > last_end_ - address) {
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

bool SharedMemory::AreInside(uint32_t lanes, const uint64_t* addresses, uint32_t bytes) const {
  const uint64_t begin = last_begin_;
  if (last_end_ < begin + bytes) return false;
  const uint64_t room = last_end_ - bytes - begin;
  uint64_t outside = 0;
  uint64_t bits = 0;
  const auto look = [&](uint64_t address) {
    outside |= static_cast<uint64_t>(address - begin > room);
    bits |= address;
  };
  if (lanes == ~0U) {
    for (int lane = 0; lane < 32; ++lane) look(addresses[lane]);
  } else {
    for (; lanes != 0; lanes &= lanes - 1) look(addresses[__builtin_ctz(lanes)]);
  }
  return outside == 0 && (bits & (bytes - 1)) == 0;
}

// Whether nothing orders `before`, of this epoch, and an access by `thread` now.
bool SharedMemory::Races(Tag before, uint32_t thread, Strength strength) const {
  if ((before & kStrong) != 0 && strength == Strength::kStrong) return false;
  const uint32_t other = ThreadOf(before);
  if ((before & kSeveral) != 0) {
    if (ClockOf(before) == kManyWarps || other / 32 != thread / 32) return true;
    return order_.LastMeeting(thread) <= ClockOf(before);
  }
  if (other == thread) return false;
  return other / 32 != thread / 32 || !order_.Ordered(thread, other, ClockOf(before));
}

void SharedMemory::Race(Tag before, uint64_t address, uint32_t thread, bool it_wrote, bool writes) {
  throw Fault{ViolationKind::kSharedRace,
              fmt::format("was {} by thread {}{} and is {} by thread {}, with no barrier between",
                          it_wrote ? "written" : "read", ThreadOf(before),
                          (before & kSeveral) != 0 ? " and others" : "",
                          writes ? "written" : "read", thread),
              address, static_cast<int>(thread % 32)};
}

void SharedMemory::NoteRead(uint32_t thread, uint64_t address, uint32_t bytes, Strength strength) {
  const Tag own = TagOf(thread, strength);
  for (uint64_t i = address; i < address + bytes; ++i) {
    const Tag writer = writers_[i];
    if (EpochOf(writer) < order_.first_epoch()) {
      throw Fault{ViolationKind::kUninitialised, "was never written by this block", i,
                  static_cast<int>(thread % 32)};
    }
    if (EpochOf(writer) == EpochOf(own) && Races(writer, thread, strength)) {
      Race(writer, i, thread, true, false);
    }
    Tag& reader = readers_[i];
    // Strong and weak: a later writer has to be ordered after all of them.
    if (EpochOf(reader) != EpochOf(own) || !Races(reader, thread, Strength::kWeak)) {
      reader = own;
      continue;
    }
    const bool one_warp = ThreadOf(reader) / 32 == thread / 32 &&
                          !((reader & kSeveral) != 0 && ClockOf(reader) == kManyWarps);
    const Tag clock = one_warp ? order_.WarpMeetings(thread / 32) : kManyWarps;
    reader = (reader & ~kClockMask) | clock << kClockShift | kSeveral;
    if (strength == Strength::kWeak) reader &= ~kStrong;
  }
}

void SharedMemory::NoteWrite(uint32_t thread, uint32_t lanes, const uint64_t* addresses,
                             uint32_t bytes, Strength strength, const std::byte* value) {
  const Tag own = TagOf(thread, strength);
  const uint64_t address = addresses[thread % 32];
  for (uint64_t i = address; i < address + bytes; ++i) {
    Tag& writer = writers_[i];
    if (EpochOf(writer) == EpochOf(own) && Races(writer, thread, strength)) {
      const uint32_t lane = ThreadOf(writer) % 32;
      const bool at_once = ThreadOf(writer) / 32 == thread / 32 && ((lanes >> lane) & 1) != 0 &&
                           i - addresses[lane] < bytes;
      if (!at_once || data_[i] != value[i - address]) Race(writer, i, thread, true, true);
    }
    const Tag reader = readers_[i];
    if (EpochOf(reader) == EpochOf(own) && Races(reader, thread, strength)) {
      Race(reader, i, thread, false, true);
    }
    writer = own;
  }
}

// Nearly always all bytes of an access were last written before the last barrier or by the thread
// itself, and read before it or by nobody else: that is seen at once.
template <uint32_t kBytes>
void SharedMemory::NoteReads(uint32_t warp, uint32_t lanes, const uint64_t* addresses,
                             Strength strength) {
  const Tag now = Tag{order_.epoch()} << kEpochShift;
  const Tag first = Tag{order_.first_epoch()} << kEpochShift;
  // A reader that already stands for this one: several of this warp since its last meeting, or of
  // several warps; and weak, if this one is.
  const Tag ignored = strength == Strength::kStrong ? kStrong : 0;
  const Tag of_warp = now | Tag{order_.WarpMeetings(warp)} << kClockShift | kSeveral | warp * 32;
  const Tag of_many = now | Tag{kManyWarps} << kClockShift | kSeveral;
  constexpr Tag kLaneMask = 31;
  constexpr Tag kThreadMask = kThreads - 1;
  for (; lanes != 0; lanes &= lanes - 1) {
    const uint32_t thread = warp * 32 + static_cast<uint32_t>(__builtin_ctz(lanes));
    const uint64_t address = addresses[thread % 32];
    const Tag* writers = &writers_[address];
    Tag* readers = &readers_[address];
    const Tag writer = writers[0];
    const Tag reader = readers[0];
    Tag different = 0;
    for (uint32_t i = 1; i < kBytes; ++i) {
      different |= (writers[i] ^ writer) | (readers[i] ^ reader);
    }
    const bool is_written = writer >= first && (writer < now || ThreadOf(writer) == thread);
    if (different == 0 && is_written) {
      if (reader < now || ((reader & kSeveral) == 0 && ThreadOf(reader) == thread)) {
        const Tag own = TagOf(thread, strength);
        for (uint32_t i = 0; i < kBytes; ++i) readers[i] = own;
        continue;
      }
      const Tag other = reader & ~ignored;
      if ((other & ~kLaneMask) == of_warp || (other & ~kThreadMask) == of_many) continue;
    }
    NoteRead(thread, address, kBytes, strength);
  }
}

template <uint32_t kBytes>
void SharedMemory::WriteAll(uint32_t warp, uint32_t lanes, const uint64_t* addresses,
                            Strength strength, const std::byte* values) {
  const Tag now = Tag{order_.epoch()} << kEpochShift;
  for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
    const uint32_t thread = warp * 32 + static_cast<uint32_t>(__builtin_ctz(rest));
    const uint64_t address = addresses[thread % 32];
    const std::byte* value = values + static_cast<size_t>(thread % 32) * kBytes;
    Tag* writers = &writers_[address];
    const Tag* readers = &readers_[address];
    const Tag writer = writers[0];
    const Tag reader = readers[0];
    Tag different = 0;
    for (uint32_t i = 1; i < kBytes; ++i) {
      different |= (writers[i] ^ writer) | (readers[i] ^ reader);
    }
    const bool after_writer = writer < now || ThreadOf(writer) == thread;
    const bool after_reader =
        reader < now || ((reader & kSeveral) == 0 && ThreadOf(reader) == thread);
    if (different == 0 && after_writer && after_reader) {
      const Tag own = TagOf(thread, strength);
      for (uint32_t i = 0; i < kBytes; ++i) writers[i] = own;
    } else {
      NoteWrite(thread, lanes & ~rest, addresses, kBytes, strength, value);
    }
    std::memcpy(&data_[address], value, kBytes);
  }
}

const std::byte* SharedMemory::Read(uint32_t warp, uint32_t lanes, const uint64_t* addresses,
                                    uint32_t bytes, Strength strength) {
  if (!AreInside(lanes, addresses, bytes)) {
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      CheckRange(warp * 32 + static_cast<uint32_t>(lane), addresses[lane], bytes);
    }
  }
  WithBytes(bytes, [&]<uint32_t kBytes>() { NoteReads<kBytes>(warp, lanes, addresses, strength); });
  return data_.data();
}

void SharedMemory::Write(uint32_t warp, uint32_t lanes, const uint64_t* addresses, uint32_t bytes,
                         Strength strength, const std::byte* values) {
  if (!AreInside(lanes, addresses, bytes)) {
    for (uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      CheckRange(warp * 32 + static_cast<uint32_t>(lane), addresses[lane], bytes);
    }
  }
  WithBytes(bytes,
            [&]<uint32_t kBytes>() { WriteAll<kBytes>(warp, lanes, addresses, strength, values); });
}

std::byte* SharedMemory::Update(uint32_t thread, uint64_t address, uint32_t bytes) {
  CheckRange(thread, address, bytes);
  NoteRead(thread, address, bytes, Strength::kStrong);
  const Tag own = TagOf(thread, Strength::kStrong);
  for (uint64_t i = address; i < address + bytes; ++i) {
    const Tag reader = readers_[i];
    if (EpochOf(reader) == EpochOf(own) && Races(reader, thread, Strength::kStrong)) {
      Race(reader, i, thread, false, true);
    }
    writers_[i] = own;
  }
  return data_.data() + address;
}

}  // namespace tiny_knn::emulation
