#include "daemon/queue/rate_model.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace tiny_knn {
namespace {

constexpr size_t kMostObservations = 64;  // of a device
constexpr size_t kMostDevices = 16;       // a worker may call its device anything
constexpr double kLeastSeconds = 1e-3;
constexpr double kMostSeconds = 100 * 365.25 * 24 * 3600;

// How strongly the rates are held to the proportions of a typical machine, compared to one
// observation: enough to decide what the observations leave open, too little to argue with them.
constexpr double kPriorWeight = 0.05;
// Of the logarithm of a ratio: what is noise, and from where on more is not much worse.
constexpr double kNoise = 0.2;

double AtLeast0(int64_t value) { return static_cast<double>(std::max<int64_t>(value, 0)); }

double Dot(const auto& a, const auto& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

RateModel::Terms RateModel::TermsOf(const JobShape& shape, bool warm, bool is_cpu) {
  const double pairs = AtLeast0(shape.num_queries) * AtLeast0(shape.num_docs);
  // Rates of a workstation of sixteen cores, and of its GPU.
  return {is_cpu ? 0.05 : 0.3, warm ? 0 : AtLeast0(shape.docs_bytes) / 1e9,
          pairs * AtLeast0(shape.dim) / (is_cpu ? 3e11 : 1e13), pairs / (is_cpu ? 1e10 : 2e11),
          AtLeast0(shape.num_queries) * AtLeast0(shape.k) / 2e7};
}

// What is wrong with `factors`: how far every estimate is off, as the logarithm of a factor, since
// that is what an estimate is judged by. Grows no faster than that logarithm, so that jobs that
// were held up, or whose shape was a lie, do not outvote the others.
double RateModel::Loss(const std::deque<Observation>& observations, double scale,
                       const Terms& factors) {
  // Not std::hypot, which took most of the time: nothing here overflows.
  const auto off = [](double ratio) {
    const double logarithm = std::log(ratio);
    return std::sqrt(logarithm * logarithm + kNoise * kNoise);
  };
  double loss = 0;
  for (const Observation& seen : observations) {
    loss += off(Dot(seen.terms, factors) / seen.seconds);
  }
  for (const double factor : factors) loss += kPriorWeight * off(factor / scale);
  return loss;
}

// Goes downhill from `factors` in steps that get smaller: one factor at a time, and all together.
RateModel::Terms RateModel::Improve(const std::deque<Observation>& observations, double scale,
                                    Terms factors) {
  double loss = Loss(observations, scale, factors);
  for (double step = 4; step > 1.01; step = std::sqrt(step)) {
    constexpr int kMostSweeps = 20;
    bool better = true;
    for (int sweep = 0; better && sweep < kMostSweeps; ++sweep) {
      better = false;
      for (size_t which = 0; which <= kTerms; ++which) {
        for (const double by : {step, 1 / step}) {
          Terms tried = factors;
          for (size_t i = 0; i < kTerms; ++i) {
            if (i != which && which != kTerms) continue;
            tried[i] = std::clamp(tried[i] * by, scale * 1e-4, scale * 1e4);
          }
          const double tried_loss = Loss(observations, scale, tried);
          if (!(tried_loss < loss)) continue;
          loss = tried_loss;
          factors = tried;
          better = true;
        }
      }
    }
  }
  return factors;
}

RateModel::Terms RateModel::FactorsFor(const std::deque<Observation>& observations) {
  // By how much this machine is slower than the typical one, on the whole.
  std::vector<double> ratios;
  for (const Observation& seen : observations) {
    double typical = 0;
    for (const double term : seen.terms) typical += term;
    ratios.push_back(seen.seconds / typical);
  }
  const auto middle = ratios.begin() + static_cast<int64_t>(ratios.size() / 2);
  std::nth_element(ratios.begin(), middle, ratios.end());
  const double scale = *middle;
  // There may be more than one valley: besides the typical machine, start at ones on which one
  // thing takes much longer than the rest.
  Terms best;
  best.fill(scale);
  best = Improve(observations, scale, best);
  double least = Loss(observations, scale, best);
  for (size_t slow = 0; slow < kTerms; ++slow) {
    Terms start;
    start.fill(scale / 10);
    start[slow] = scale * 10;
    const Terms found = Improve(observations, scale, start);
    const double loss = Loss(observations, scale, found);
    if (loss < least) {
      least = loss;
      best = found;
    }
  }
  return best;
}

void RateModel::Learn(const std::string& device, const JobShape& shape, bool warm, double seconds) {
  if (!(seconds > 0)) return;  // also NaN
  if (!devices_.contains(device) && devices_.size() >= kMostDevices) return;
  Device& learned = devices_[device];
  learned.observations.push_back({.terms = TermsOf(shape, warm, device == "cpu"),
                                  .seconds = std::clamp(seconds, kLeastSeconds, kMostSeconds)});
  if (learned.observations.size() > kMostObservations) learned.observations.pop_front();
  learned.fitted = false;
}

bool RateModel::fitted() const {
  return std::all_of(devices_.begin(), devices_.end(),
                     [](const auto& device) { return device.second.fitted; });
}

void RateModel::Fit() {
  for (auto& [name, device] : devices_) {
    if (device.fitted) continue;
    device.factors = FactorsFor(device.observations);
    device.fitted = true;
  }
}

std::optional<double> RateModel::Estimate(const std::string& device, const JobShape& shape,
                                          bool warm) const {
  const auto found = devices_.find(device);
  if (found == devices_.end() || !found->second.factors) return std::nullopt;
  const double seconds = Dot(TermsOf(shape, warm, device == "cpu"), *found->second.factors);
  return std::clamp(seconds, kLeastSeconds, kMostSeconds);
}

}  // namespace tiny_knn
