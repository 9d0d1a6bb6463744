// Jobs as clients see them: what the queue knows, joined with how far the running one is, what
// comes before the waiting ones, and how long all that will take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "daemon/protocol/job_view.h"
#include "daemon/supervisor/dispatcher.h"

namespace tiny_knn {

// Event loop only. A reference to a dispatcher that outlives it.
class JobViews {
 public:
  explicit JobViews(const Dispatcher& dispatcher) : dispatcher_(dispatcher) {}

  // In the order asked for; unknown jobs are left out. The order of the queue is worked out once
  // for all of them, and only if one of them waits.
  std::vector<JobView> Describe(const std::vector<int64_t>& jobs) const;

  // One job, with a reason and an ETA when the queue is short, so that it costs the same whatever
  // waits.
  std::optional<JobView> Brief(int64_t id) const;

 private:
  // What is before a waiting job.
  struct Before {
    int64_t jobs = 0;
    std::optional<double> seconds;  // until they are done; nothing once one is unknown
  };
  JobView WithoutOrder(const Job& job) const;
  void AddOrder(const Job& job, const Before& before, JobView& view) const;
  std::optional<double> Estimate(const Job& job) const;  // seconds that it will run
  std::optional<double> SecondsLeftOfRunning() const;

  const Dispatcher& dispatcher_;
};

}  // namespace tiny_knn
