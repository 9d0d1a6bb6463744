// Which waiting job is next, and why the others wait. Pure: no clock, no disk.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace tiny_knn {

// Order: priority, then the user who has used the device least, then the order of submission.
// Thread-compatible; every call costs at most the logarithm of what waits, but for users.
class Scheduler {
 public:
  void Add(int64_t job, int64_t uid, int priority);
  void Remove(int64_t job);  // one that does not wait is ignored

  // The device was used by that user for so long.
  void Charge(int64_t uid, double device_seconds);

  // The job to run next; nothing when none waits.
  std::optional<int64_t> Next() const;

  // How many jobs will run before `job` if nothing changes, and how many of them are each user's.
  struct Position {
    int64_t jobs_before = 0;
    std::map<int64_t, int64_t> by_uid;
  };
  std::optional<Position> PositionOf(int64_t job) const;

  // Every waiting job in the order in which they will run.
  std::vector<int64_t> Order() const;

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Entry {
    int64_t uid = 0;
    int priority = 0;
  };
  std::map<int64_t, Entry> entries_;  // by job
  // (-priority, job) of each user's waiting jobs.
  std::map<int64_t, std::set<std::pair<int, int64_t>>> waiting_;
  std::map<int64_t, double> used_seconds_;  // by uid
};

}  // namespace tiny_knn
