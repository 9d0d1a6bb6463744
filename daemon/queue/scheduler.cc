#include "daemon/queue/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tiny_knn {
namespace {

// A century: more than any job runs, little enough that sums stay finite.
constexpr double kMostChargedSeconds = 100 * 365.25 * 24 * 3600;
// What has decayed to less is forgotten, so that users who are gone cost no memory.
constexpr double kLeastUsedSeconds = 1e-6;

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
  std::vector<Rank> ranks;
  ranks.reserve(entries_.size());
  for (const auto& [uid, levels] : waiting_) {
    const double used = UsedSeconds(uid);
    for (const auto& [priority, jobs] : levels) {
      for (const int64_t job : jobs) ranks.emplace_back(-priority, used, job);
    }
  }
  std::sort(ranks.begin(), ranks.end());
  std::vector<int64_t> order;
  order.reserve(ranks.size());
  for (const Rank& rank : ranks) order.push_back(std::get<int64_t>(rank));
  return order;
}

}  // namespace tiny_knn
