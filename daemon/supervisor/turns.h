// Whose request is answered next: one of each user in turn, however many one of them sends. Pure.
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>

namespace tiny_knn {

class Connection;

// First come, first served among the requests of one user; the users take turns. Thread-compatible.
class Turns {
 public:
  using Answer = std::function<void()>;

  // `answer` answers a request of `connection`, whose peer is `user`.
  void Add(uid_t user, std::shared_ptr<Connection> connection, Answer answer);
  // The one whose turn it is, not held any more; nothing if nobody waits.
  std::optional<Answer> Next();
  // The connection is gone, and its requests with it. Costs the number of those of `user`.
  void Forget(uid_t user, const std::shared_ptr<Connection>& connection);

 private:
  struct Waiting {
    std::shared_ptr<Connection> connection;
    Answer answer;
  };

  std::map<uid_t, std::deque<Waiting>> waiting_;  // no empty ones
  // Whose turn was last; the next is that of the next greater uid that waits, or of the least.
  std::optional<uid_t> last_;
};

}  // namespace tiny_knn
