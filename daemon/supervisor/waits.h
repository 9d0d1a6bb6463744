// Who waits for which jobs to be finished. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace tiny_knn {

class Connection;

// Holds what it is given until it is over or forgotten. Everything costs at most the number of ids
// that are concerned, times the logarithm of those that are waited for. Thread-compatible.
class Waits {
 public:
  struct Wait {
    std::shared_ptr<Connection> connection;
    uid_t uid = 0;  // of the connection's peer
    int64_t request = 0;
    std::vector<int64_t> jobs;  // as asked for: what the reply tells about
  };

  // A user's waits name at most so many jobs together.
  explicit Waits(int64_t most_ids_per_uid) : most_ids_(most_ids_per_uid) {}

  // Whether `ids` more may be waited for by `uid`.
  bool HasRoom(uid_t uid, int64_t ids) const;

  // Until all of `unfinished`, which are among wait.jobs, are finished. REQUIRES: there is one, and
  // there is room for wait.jobs.
  void Add(Wait wait, const std::vector<int64_t>& unfinished);

  // The job is finished: the waits that are over by that, which are not held any more.
  std::vector<Wait> Finish(int64_t job);

  // The connection is gone, and its waits with it.
  void Forget(const std::shared_ptr<Connection>& connection);

 private:
  struct Held {
    Wait wait;
    std::set<int64_t> unfinished;
  };
  using Number = int64_t;  // counts up, so that waits are answered in the order in which they came
  void Release(std::map<Number, Held>::iterator held);

  const int64_t most_ids_;
  Number next_ = 0;
  std::map<Number, Held> held_;
  std::map<int64_t, std::set<Number>> by_job_;
  std::map<std::shared_ptr<Connection>, std::set<Number>> by_connection_;
  std::map<uid_t, int64_t> ids_by_uid_;
};

}  // namespace tiny_knn
