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
// those jobs cannot tell apart stays in proportion to a typical machine. Deterministic; holds a few
// kilobytes. Thread-compatible.
class RateModel {
 public:
  // A job that was done in so many seconds, from taking it to its result. What is not a positive
  // number is ignored; a job that took much longer than others of its kind, for whatever reason,
  // counts little.
  void Learn(const std::string& device, const JobShape& shape, bool warm, double seconds);

  // Seconds that the whole job will take; nothing before a first job of that device was learned.
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
    Terms factors{};                       // this machine's seconds per typical second
  };
  static Terms TermsOf(const JobShape& shape, bool warm, bool is_cpu);
  static Terms Fit(const std::deque<Observation>& observations);
  std::map<std::string, Device> devices_;
};

}  // namespace tiny_knn
