// Which waiting job is next, and why the others wait. Pure: no clock, no disk.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace tiny_knn {

// Order: priority, then the user who has used the device least, then the order of submission.
// Thread-compatible; every call costs at most the logarithm of what waits, but for users and their
// priorities, and for Order.
class Scheduler {
 public:
  // What a user has used counts half after the device was busy, for whomever, for so long. Without
  // that, a user who comes back after a month would own the device for as long as the others had
  // it.
  static constexpr double kHalfLifeSeconds = 8 * 3600.0;

  // `job`: greater is later. One that waits already takes the new user and priority.
  void Add(int64_t job, int64_t uid, int priority);
  void Remove(int64_t job);  // one that does not wait is ignored

  // The device was used by that user for so long. What is not a positive number is ignored.
  void Charge(int64_t uid, double device_seconds);

  // The job to run next of users who may run one now; nothing when none waits.
  using MayRun = std::function<bool(int64_t uid)>;
  std::optional<int64_t> Next(const MayRun& may_run) const;
  std::optional<int64_t> Next() const;  // of any user

  // How many jobs are before `job` in Order(), and how many of them are each user's.
  struct Position {
    int64_t jobs_before = 0;
    std::map<int64_t, int64_t> by_uid;  // only users with one or more
  };
  std::optional<Position> PositionOf(int64_t job) const;

  // Every waiting job in the order in which they will run, if each takes the seconds that
  // `estimate` says (asked once for each, in this order) and nothing is submitted or cancelled
  // meanwhile: users are charged as they would be, so that their jobs come in turns. With
  // `running`, its user is charged first. To show many places, call it once.
  struct Running {
    int64_t uid = 0;
    double seconds = 0;  // as it will be charged, from its start to its end
  };
  using Estimate = std::function<double(int64_t job, int64_t uid)>;
  std::vector<int64_t> Order(const std::optional<Running>& running, const Estimate& estimate) const;
  std::vector<int64_t> Order() const;  // if no job took any time

  int64_t size() const { return static_cast<int64_t>(entries_.size()); }

 private:
  struct Entry {
    int64_t uid = 0;
    int priority = 0;
  };
  // One user's waiting jobs: by falling priority, ascending.
  using Levels = std::map<int, std::deque<int64_t>, std::greater<>>;
  // What the order compares: smaller runs earlier.
  using Rank = std::tuple<int, double, int64_t>;
  double UsedSeconds(int64_t uid) const;

  std::unordered_map<int64_t, Entry> entries_;  // by job
  std::map<int64_t, Levels> waiting_;           // by uid; no empty ones
  std::map<int64_t, double> used_seconds_;      // by uid
};

}  // namespace tiny_knn
