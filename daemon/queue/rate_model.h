// How long a job will take, learned from those before it. Pure.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// A job's time is modelled as the sum of what it has to read (docs_bytes, unless they are warm) and
// what it has to compute (Q * D * dim multiply-adds plus a cost per result), each at a rate
// measured on earlier jobs of the same device. Thread-compatible.
class RateModel {
 public:
  void Learn(const std::string& device, const JobShape& shape, bool warm, double seconds);

  // Seconds that the whole job will take; nothing before a first job of that device was learned.
  std::optional<double> Estimate(const std::string& device, const JobShape& shape, bool warm) const;

 private:
  struct Rates;
  struct Observation {
    JobShape shape;
    bool warm = false;
    double seconds = 0;
  };
  std::map<std::string, std::vector<Observation>>
      observations_;  // by device, the last few, oldest first
};

}  // namespace tiny_knn
