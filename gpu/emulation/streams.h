// The device's streams: queues of work that is done as late as the API allows, in any order it
// allows, and who is ordered before whom.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "gpu/emulation/random.h"

namespace tiny_knn::emulation {

// For each stream up to which of its works one is ordered behind it.
using VectorClock = std::vector<uint64_t>;

// The `sequence`-th work of a stream; 0: none, which is done.
struct WorkId {
  uint32_t stream = 0;
  uint64_t sequence = 0;
};

// Actors are numbered from here on, by 31 bits; those before are of what is there from the
// beginning.
constexpr uint32_t kFirstActor = 2;
constexpr uint32_t kLastActor = 0x7fffffff;

// What a work is told when it is done.
struct WorkContext {
  uint32_t first_actor = 0;
  // Actors of earlier works that nothing orders before this one.
  const std::vector<std::pair<uint32_t, uint32_t>>* unordered = nullptr;
};

// Not thread-safe. Stream 0 is the legacy default stream: it waits for all blocking streams, and
// they for it.
class Streams {
 public:
  // seed 0: nothing is done before somebody waits for it. Other seeds also do work early, some
  // more, some less, and take streams in different orders.
  explicit Streams(uint64_t seed);

  uint32_t Create(bool non_blocking);
  // Its work is still done. The number may be given out again then.
  void Destroy(uint32_t stream);
  bool Exists(uint32_t stream) const;

  // Appends work to a stream. It takes `actors` numbers, and does no more than that when it runs.
  WorkId Append(uint32_t stream, uint32_t actors, std::function<void(const WorkContext&)> run);
  // Later work of `stream` waits for `event`.
  void AppendWait(uint32_t stream, WorkId event);
  // The last work of a stream.
  WorkId Last(uint32_t stream) const { return {stream, queues_[stream].appended}; }

  bool IsDone(WorkId work) const { return queues_[work.stream].done >= work.sequence; }
  // Does what `work` needs, and it; the host is then ordered behind it.
  void Finish(WorkId work);
  void FinishStream(uint32_t stream) { Finish(Last(stream)); }
  void FinishAll();
  // Whether the host has waited for it.
  bool HostKnows(WorkId work) const;
  // A poll (cudaEventQuery): whether the work is done, which a GPU may answer late. Ends in true.
  bool Poll(WorkId work);
  uint64_t NextRandom() { return random_(); }
  size_t live() const;  // streams, besides the default one

 private:
  struct Work {
    uint64_t sequence = 0;
    std::vector<WorkId> needs;  // of other streams
    VectorClock clock;
    uint32_t actors = 0;
    std::function<void(const WorkContext&)> run;
  };
  // Actors of what has been done.
  struct Done {
    uint64_t sequence = 0;
    uint32_t first_actor = 0, end_actor = 0;
    VectorClock clock;
  };
  struct Queue {
    bool exists = false;
    bool non_blocking = false;
    uint64_t appended = 0, done = 0;
    std::deque<Work> pending;
    VectorClock clock;  // of the last work
    std::deque<Done> history;
  };
  void Join(VectorClock* clock, const VectorClock& other) const;
  void DoUpTo(WorkId work);
  void DoFirst(uint32_t stream);
  bool IsReady(uint32_t stream) const;
  void DoSomethingEarly();
  void ForgetHistory();

  std::vector<Queue> queues_;
  VectorClock host_;
  Random random_;
  uint64_t early_percent_ = 0;
  bool lazy_ = true;
  uint32_t next_actor_ = kFirstActor;
  uint32_t polls_ = 0;
};

}  // namespace tiny_knn::emulation
