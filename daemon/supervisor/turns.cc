#include "daemon/supervisor/turns.h"

#include <utility>

namespace tiny_knn {

void Turns::Add(uid_t user, std::shared_ptr<Connection> connection, Answer answer) {
  waiting_[user].push_back({std::move(connection), std::move(answer)});
}

std::optional<Turns::Answer> Turns::Next() {
  if (waiting_.empty()) return std::nullopt;
  auto next = last_ ? waiting_.upper_bound(*last_) : waiting_.begin();
  if (next == waiting_.end()) next = waiting_.begin();
  last_ = next->first;
  Answer answer = std::move(next->second.front().answer);
  next->second.pop_front();
  if (next->second.empty()) waiting_.erase(next);
  return answer;
}

void Turns::Forget(uid_t user, const std::shared_ptr<Connection>& connection) {
  const auto of_user = waiting_.find(user);
  if (of_user == waiting_.end()) return;
  std::erase_if(of_user->second,
                [&](const Waiting& waiting) { return waiting.connection == connection; });
  if (of_user->second.empty()) waiting_.erase(of_user);
}

}  // namespace tiny_knn
