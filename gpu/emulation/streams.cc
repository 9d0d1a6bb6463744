#include "gpu/emulation/streams.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tiny_knn::emulation {

Streams::Streams(uint64_t seed) : random_(seed), lazy_(seed == 0) {
  constexpr uint64_t kEarly[] = {0, 10, 50, 100};
  if (!lazy_) early_percent_ = kEarly[random_() % 4];
  queues_.resize(1);
  queues_[0].exists = true;
}

uint32_t Streams::Create(bool non_blocking) {
  uint32_t stream = 1;
  while (stream < queues_.size() && (queues_[stream].exists || !queues_[stream].pending.empty())) {
    ++stream;
  }
  if (stream == queues_.size()) queues_.emplace_back();
  queues_[stream].exists = true;
  queues_[stream].non_blocking = non_blocking;
  return stream;
}

void Streams::Destroy(uint32_t stream) { queues_[stream].exists = false; }

bool Streams::Exists(uint32_t stream) const {
  return stream < queues_.size() && queues_[stream].exists;
}

size_t Streams::live() const {
  return static_cast<size_t>(std::count_if(queues_.begin() + 1, queues_.end(),
                                           [](const Queue& queue) { return queue.exists; }));
}

void Streams::Join(VectorClock* clock, const VectorClock& other) const {
  clock->resize(queues_.size());
  for (size_t i = 0; i < other.size(); ++i) (*clock)[i] = std::max((*clock)[i], other[i]);
}

WorkId Streams::Append(uint32_t stream, uint32_t actors,
                       std::function<void(const WorkContext&)> run) {
  Queue& queue = queues_[stream];
  Work work;
  work.sequence = ++queue.appended;
  work.actors = actors;
  work.run = std::move(run);
  Join(&work.clock, host_);
  Join(&work.clock, queue.clock);
  const auto behind = [&](uint32_t other) {
    if (queues_[other].appended == 0) return;
    work.needs.push_back(Last(other));
    Join(&work.clock, queues_[other].clock);
  };
  if (stream == 0) {
    for (uint32_t other = 1; other < queues_.size(); ++other) {
      if (!queues_[other].non_blocking) behind(other);
    }
  } else if (!queue.non_blocking) {
    behind(0);
  }
  work.clock[stream] = work.sequence;
  queue.clock = work.clock;
  queue.pending.push_back(std::move(work));
  const WorkId id{stream, queue.appended};
  DoSomethingEarly();
  return id;
}

void Streams::AppendWait(uint32_t stream, WorkId event) {
  if (event.sequence == 0) return;
  // The clock of a work that is done is no longer there: what is known of it is that it is done,
  // and which works of its own stream are before it. A pending one is found in its queue.
  VectorClock clock(queues_.size());
  clock[event.stream] = event.sequence;
  for (const Work& pending : queues_[event.stream].pending) {
    if (pending.sequence == event.sequence) clock = pending.clock;
  }
  for (const Done& done : queues_[event.stream].history) {
    if (done.sequence == event.sequence) Join(&clock, done.clock);
  }
  Append(stream, 1, [](const WorkContext&) {});
  Queue& queue = queues_[stream];
  // Append may have done it already, if it ran something early; then it was the last of its queue.
  if (queue.pending.empty()) {
    DoUpTo(event);
  } else {
    queue.pending.back().needs.push_back(event);
    Join(&queue.pending.back().clock, clock);
  }
  Join(&queue.clock, clock);
}

bool Streams::IsReady(uint32_t stream) const {
  const Queue& queue = queues_[stream];
  if (queue.pending.empty()) return false;
  const std::vector<WorkId>& needs = queue.pending.front().needs;
  return std::all_of(needs.begin(), needs.end(), [&](WorkId need) { return IsDone(need); });
}

void Streams::DoFirst(uint32_t stream) {
  const Work work = std::move(queues_[stream].pending.front());
  queues_[stream].pending.pop_front();
  std::vector<std::pair<uint32_t, uint32_t>> unordered;
  for (uint32_t other = 0; other < queues_.size(); ++other) {
    const uint64_t known = other < work.clock.size() ? work.clock[other] : 0;
    const std::deque<Done>& history = queues_[other].history;
    for (auto done = history.rbegin(); done != history.rend() && done->sequence > known; ++done) {
      unordered.emplace_back(done->first_actor, done->end_actor);
    }
  }
  const uint32_t first_actor = next_actor_;
  if (work.actors > kLastActor - next_actor_) {
    std::fputs("gpu emulation: too many blocks for one EmulatedGpu; take a fresh one\n", stderr);
    std::abort();
  }
  next_actor_ += work.actors;
  queues_[stream].history.push_back({work.sequence, first_actor, next_actor_, work.clock});
  work.run({.first_actor = first_actor, .unordered = &unordered});
  queues_[stream].done = work.sequence;
}

void Streams::DoUpTo(WorkId work) {
  while (queues_[work.stream].done < work.sequence) {
    // Copies: other work that is done on the way may do this one, too.
    const uint64_t next = queues_[work.stream].pending.front().sequence;
    const std::vector<WorkId> needs = queues_[work.stream].pending.front().needs;
    for (const WorkId need : needs) DoUpTo(need);
    if (queues_[work.stream].done + 1 != next) continue;
    DoFirst(work.stream);
    DoSomethingEarly();
  }
}

void Streams::DoSomethingEarly() {
  if (early_percent_ == 0) return;
  while (random_() % 100 < early_percent_) {
    std::vector<uint32_t> ready;
    for (uint32_t stream = 0; stream < queues_.size(); ++stream) {
      if (IsReady(stream)) ready.push_back(stream);
    }
    if (ready.empty()) return;
    DoFirst(ready[random_() % ready.size()]);
  }
}

void Streams::Finish(WorkId work) {
  VectorClock clock(queues_.size());
  clock[work.stream] = work.sequence;
  for (const Work& pending : queues_[work.stream].pending) {
    if (pending.sequence == work.sequence) clock = pending.clock;
  }
  for (const Done& done : queues_[work.stream].history) {
    if (done.sequence == work.sequence) Join(&clock, done.clock);
  }
  DoUpTo(work);
  Join(&host_, clock);
  ForgetHistory();
}

void Streams::FinishAll() {
  // In any order.
  std::vector<uint32_t> order;
  for (uint32_t stream = 0; stream < queues_.size(); ++stream) order.push_back(stream);
  if (!lazy_) random_.Shuffle(order);
  for (const uint32_t stream : order) FinishStream(stream);
}

bool Streams::HostKnows(WorkId work) const {
  return work.sequence == 0 || (work.stream < host_.size() && host_[work.stream] >= work.sequence);
}

bool Streams::Poll(WorkId work) {
  if (HostKnows(work)) return true;
  // The first answers are "not yet".
  if (++polls_ % 3 != 0) return false;
  Finish(work);
  return true;
}

// What the host is ordered behind is ordered before all that comes, unless work is pending that was
// appended before.
void Streams::ForgetHistory() {
  for (const Queue& queue : queues_) {
    if (!queue.pending.empty()) return;
  }
  for (uint32_t stream = 0; stream < queues_.size(); ++stream) {
    std::deque<Done>& history = queues_[stream].history;
    while (!history.empty() && stream < host_.size() && history.front().sequence <= host_[stream]) {
      history.pop_front();
    }
  }
}

}  // namespace tiny_knn::emulation
