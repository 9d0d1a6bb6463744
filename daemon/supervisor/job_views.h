// Jobs as clients see them: what the queue knows, joined with how far the running one is, what
// comes before the waiting ones, and how long all that will take.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/protocol/job_view.h"
#include "daemon/supervisor/dispatcher.h"

namespace tiny_knn {

// What may be known of somebody else's job.
JobView RedactedView(const JobView& view);

// Event loop only. A reference to a dispatcher that outlives it.
class JobViews {
 public:
  explicit JobViews(const Dispatcher& dispatcher) : dispatcher_(dispatcher) {}

  // In the order asked for; unknown jobs are left out. What will run when is worked out once for
  // all of them, and only if one of them waits: a few milliseconds for 20,000 jobs that wait.
  std::vector<JobView> Describe(const std::vector<int64_t>& jobs) const;

  // One job, with a reason and an ETA when the queue is short, so that it costs the same whatever
  // waits.
  std::optional<JobView> Brief(int64_t id) const;

 private:
  // What is before a waiting job.
  struct Before {
    std::vector<JobsOfUser> users;
    std::optional<double> seconds;      // until all that is done; nothing once one is unknown
    std::optional<double> own_seconds;  // of the job itself
  };
  using BeforeById = std::unordered_map<int64_t, Before>;
  // Of those of `jobs` that wait.
  BeforeById Foresee(const std::vector<int64_t>& jobs) const;
  JobView WithoutOrder(const Job& job) const;
  void AddOrder(const Job& job, const Before& before, JobView& view) const;
  // Seconds that it will run. `may_be_warm`: the worker of now will still be there.
  std::optional<double> Estimate(const Job& job, bool may_be_warm) const;
  std::optional<double> SecondsLeftOfRunning() const;

  const Dispatcher& dispatcher_;
};

}  // namespace tiny_knn
