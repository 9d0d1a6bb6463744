#include "daemon/queue/scheduler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace tiny_knn {
namespace {

// A century: more than any job runs, little enough that sums stay finite.
constexpr double kMostChargedSeconds = 100 * 365.25 * 24 * 3600;
// What has decayed to less is forgotten, so that users who are gone cost no memory.
constexpr double kLeastUsedSeconds = 1e-6;

// What users will have used as time goes on. All uses decay alike, which changes nothing about who
// has used least, so only a common scale does: a charge costs the same however many users there
// are.
class FutureUse {
 public:
  // A user's use at the beginning; returns the number to call him by.
  size_t Add(double used) {
    scaled_.push_back(used);
    return scaled_.size() - 1;
  }
  // To be compared with other users' only.
  double Of(size_t user) const {
    return scaled_[user] * scale_ < kLeastUsedSeconds ? 0 : scaled_[user];
  }

  // Whether all uses are other numbers now, in the same order.
  bool Charge(const std::optional<size_t>& user, double device_seconds) {
    if (!(device_seconds > 0)) return false;
    // Beyond that all that was before is nothing beside it.
    const double seconds = std::min(device_seconds, 32 * Scheduler::kHalfLifeSeconds);
    scale_ *= std::exp2(-seconds / Scheduler::kHalfLifeSeconds);
    const bool rescales = scale_ < 1e-100;
    if (rescales) {
      for (double& used : scaled_) used *= scale_;
      scale_ = 1;
    }
    if (user) scaled_[*user] += seconds / scale_;
    return rescales;
  }

 private:
  std::vector<double> scaled_;  // seconds / scale_
  double scale_ = 1;
};

}  // namespace

double Scheduler::UsedSeconds(int64_t uid) const {
  const auto found = used_seconds_.find(uid);
  return found == used_seconds_.end() ? 0 : found->second;
}

void Scheduler::Add(int64_t job, int64_t uid, int priority) {
  Remove(job);
  entries_[job] = {.uid = uid, .priority = priority};
  std::deque<int64_t>& jobs = waiting_[uid][priority];
  jobs.insert(std::lower_bound(jobs.begin(), jobs.end(), job), job);
}

void Scheduler::Remove(int64_t job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return;
  const auto user = waiting_.find(found->second.uid);
  const auto level = user->second.find(found->second.priority);
  std::deque<int64_t>& jobs = level->second;
  jobs.erase(std::lower_bound(jobs.begin(), jobs.end(), job));
  if (jobs.empty()) user->second.erase(level);
  if (user->second.empty()) waiting_.erase(user);
  entries_.erase(found);
}

void Scheduler::Charge(int64_t uid, double device_seconds) {
  if (!(device_seconds > 0)) return;  // also NaN
  const double seconds = std::min(device_seconds, kMostChargedSeconds);
  const double kept = std::exp2(-seconds / kHalfLifeSeconds);
  for (auto& [user, used] : used_seconds_) used *= kept;
  used_seconds_[uid] += seconds;
  std::erase_if(used_seconds_, [](const auto& used) { return used.second < kLeastUsedSeconds; });
}

std::optional<int64_t> Scheduler::Next() const {
  return Next([](int64_t) { return true; });
}

std::optional<int64_t> Scheduler::Next(const MayRun& may_run) const {
  std::optional<Rank> first;
  for (const auto& [uid, levels] : waiting_) {
    if (!may_run(uid)) continue;
    const auto& [priority, jobs] = *levels.begin();
    const Rank rank(-priority, UsedSeconds(uid), jobs.front());
    if (!first || rank < *first) first = rank;
  }
  if (!first) return std::nullopt;
  return std::get<int64_t>(*first);
}

std::optional<Scheduler::Position> Scheduler::PositionOf(int64_t job) const {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return std::nullopt;
  const Entry& entry = found->second;
  const double used = UsedSeconds(entry.uid);
  Position position;
  for (const auto& [uid, levels] : waiting_) {
    int64_t before = 0;
    for (const auto& [priority, jobs] : levels) {
      if (priority < entry.priority) break;
      // Ranks of one user and priority differ in the job alone.
      const double theirs = UsedSeconds(uid);
      if (priority > entry.priority || theirs < used) {
        before += static_cast<int64_t>(jobs.size());
      } else if (!(used < theirs)) {
        before += std::lower_bound(jobs.begin(), jobs.end(), job) - jobs.begin();
      }
    }
    if (before == 0) continue;
    position.jobs_before += before;
    position.by_uid[uid] = before;
  }
  return position;
}

std::vector<int64_t> Scheduler::Order() const {
  return Order(std::nullopt, [](int64_t, int64_t) { return 0; });
}

std::vector<int64_t> Scheduler::Order(const std::optional<Running>& running,
                                      const Estimate& estimate) const {
  // One user's jobs of one priority, as far as they have not run yet.
  struct Turn {
    double used = 0;
    size_t user = 0;
    int64_t uid = 0;
    const std::deque<int64_t>* jobs = nullptr;
    size_t next = 0;
    bool operator>(const Turn& other) const {
      return std::tuple(used, (*jobs)[next]) > std::tuple(other.used, (*other.jobs)[other.next]);
    }
  };
  FutureUse use;
  std::map<int, std::vector<Turn>, std::greater<>> levels;
  std::optional<size_t> runs;
  for (const auto& [uid, of_user] : waiting_) {
    const size_t user = use.Add(UsedSeconds(uid));
    if (running && running->uid == uid) runs = user;
    for (const auto& [priority, jobs] : of_user) {
      levels[priority].push_back({.user = user, .uid = uid, .jobs = &jobs});
    }
  }
  if (running) use.Charge(runs, running->seconds);

  std::vector<int64_t> order;
  order.reserve(entries_.size());
  for (auto& [priority, turns] : levels) {
    const auto sort = [&use, &level = turns] {
      for (Turn& turn : level) turn.used = use.Of(turn.user);
      std::make_heap(level.begin(), level.end(), std::greater<>());
    };
    sort();
    while (!turns.empty()) {
      std::pop_heap(turns.begin(), turns.end(), std::greater<>());
      Turn turn = turns.back();
      turns.pop_back();
      const int64_t job = (*turn.jobs)[turn.next++];
      order.push_back(job);
      const bool rescaled = use.Charge(turn.user, estimate(job, turn.uid));
      if (turn.next < turn.jobs->size()) {
        turn.used = use.Of(turn.user);
        turns.push_back(turn);
        std::push_heap(turns.begin(), turns.end(), std::greater<>());
      }
      if (rescaled) sort();
    }
  }
  return order;
}

}  // namespace tiny_knn
