#include "daemon/supervisor/waits.h"

#include <utility>

namespace tiny_knn {

bool Waits::HasRoom(uid_t uid, int64_t ids) const {
  const auto found = ids_by_uid_.find(uid);
  return (found == ids_by_uid_.end() ? 0 : found->second) + ids <= most_ids_;
}

void Waits::Add(Wait wait, const std::vector<int64_t>& unfinished) {
  const Number number = next_++;
  ids_by_uid_[wait.uid] += static_cast<int64_t>(wait.jobs.size());
  by_connection_[wait.connection].insert(number);
  for (const int64_t job : unfinished) by_job_[job].insert(number);
  held_.emplace(number, Held{std::move(wait), {unfinished.begin(), unfinished.end()}});
}

void Waits::Release(std::map<Number, Held>::iterator held) {
  const auto& [number, released] = *held;
  for (const int64_t job : released.unfinished) {
    const auto of_job = by_job_.find(job);
    of_job->second.erase(number);
    if (of_job->second.empty()) by_job_.erase(of_job);
  }
  const auto of_connection = by_connection_.find(released.wait.connection);
  of_connection->second.erase(number);
  if (of_connection->second.empty()) by_connection_.erase(of_connection);
  const auto ids = ids_by_uid_.find(released.wait.uid);
  ids->second -= static_cast<int64_t>(released.wait.jobs.size());
  if (ids->second == 0) ids_by_uid_.erase(ids);
  held_.erase(held);
}

std::vector<Waits::Wait> Waits::Finish(int64_t job) {
  std::vector<Wait> over;
  const auto found = by_job_.find(job);
  if (found == by_job_.end()) return over;
  const std::set<Number> numbers = std::move(found->second);
  by_job_.erase(found);
  for (const Number number : numbers) {
    const auto held = held_.find(number);
    held->second.unfinished.erase(job);
    if (!held->second.unfinished.empty()) continue;
    over.push_back(held->second.wait);
    Release(held);
  }
  return over;
}

void Waits::Forget(const std::shared_ptr<Connection>& connection) {
  const auto found = by_connection_.find(connection);
  if (found == by_connection_.end()) return;
  const std::set<Number> numbers = found->second;
  for (const Number number : numbers) Release(held_.find(number));
}

}  // namespace tiny_knn
