#include "daemon/supervisor/user_backoff.h"

#include <algorithm>

namespace tiny_knn {

void UserBackoff::OnDeath(int64_t uid, Time now) {
  if (users_.size() >= kMostUsers && !users_.contains(uid)) {
    users_.erase(std::min_element(users_.begin(), users_.end(), [](const auto& a, const auto& b) {
      return a.second.until < b.second.until;
    }));
  }
  User& user = users_[uid];
  ++user.deaths;
  user.until = now;
  // The first to die gets a successor at once.
  if (user.deaths > 1) {
    const int doublings = std::min(user.deaths - 2, 10);
    user.until += std::min(first_ * (1 << doublings), longest_);
  }
}

bool UserBackoff::MayStart(int64_t uid, Time now) const {
  const auto found = users_.find(uid);
  return found == users_.end() || found->second.until <= now;
}

std::optional<UserBackoff::Time> UserBackoff::NextEnd(Time now) const {
  std::optional<Time> next;
  for (const auto& [uid, user] : users_) {
    if (user.until > now && (!next || user.until < *next)) next = user.until;
  }
  return next;
}

}  // namespace tiny_knn
