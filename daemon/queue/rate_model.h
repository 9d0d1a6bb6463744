// How long a job will take, learned from those before it. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// A job's time is modelled as the sum of a start, what it has to read (docs_bytes, unless they are
// warm) and what it has to compute (Q * D * dim multiply-adds, Q * D comparisons, a cost per
// result), each at a rate of its own that is measured on earlier jobs of the same device. What
// those jobs cannot tell apart stays in proportion to a typical machine.
//
// How good that is, on made-up machines from a laptop to a large GPU whose times vary by 20%:
// within a factor of 2 after five jobs against the same docs (500 to 5,000 queries, 1,000,000 docs
// of dim 768, cold or warm); after twenty jobs of all kinds (100 to 10,000 queries, 10,000 to
// 3,000,000 docs, dim 64 to 1,024), for 99 of 100 other such shapes.
//
// Deterministic; holds a few kilobytes for each of at most 16 devices. Thread-compatible.
class RateModel {
 public:
  // A job that was done in so many seconds, from taking it to its result. What is not a positive
  // number is ignored; a job that took much longer than others of its kind, for whatever reason,
  // counts little.
  void Learn(const std::string& device, const JobShape& shape, bool warm, double seconds);

  // Whether Fit has seen all that was learned.
  bool fitted() const;

  // Makes what was learned count. Apart from Learn, because it takes about a millisecond, which
  // nobody should wait for.
  void Fit();

  // Seconds that the whole job will take; nothing before the first job of that device was fitted.
  // Always positive and finite, whatever the shape.
  std::optional<double> Estimate(const std::string& device, const JobShape& shape, bool warm) const;

 private:
  static constexpr size_t kTerms = 5;
  using Terms = std::array<double, kTerms>;
  struct Observation {
    Terms terms{};  // what the job did, in seconds of a typical machine
    double seconds = 0;
  };
  struct Device {
    std::deque<Observation> observations;  // the last few, oldest first
    std::optional<Terms> factors;          // this machine's seconds per typical second
    bool fitted = false;                   // whether they come from all observations
  };
  static Terms TermsOf(const JobShape& shape, bool warm, bool is_cpu);
  static double Loss(const std::deque<Observation>& observations, double scale,
                     const Terms& factors);
  static Terms Improve(const std::deque<Observation>& observations, double scale, Terms factors);
  static Terms FactorsFor(const std::deque<Observation>& observations);
  std::map<std::string, Device> devices_;
};

}  // namespace tiny_knn
