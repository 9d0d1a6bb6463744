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
constexpr double kPriorWeight = 0.02;
constexpr int kRounds = 4;    // of weighting
constexpr int kSweeps = 200;  // of coordinate descent

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

// Least squares of estimate / seconds - 1, with factors that are not negative. A ratio is what an
// estimate is judged by, and it lets a job of a second say as much as one of an hour.
RateModel::Terms RateModel::Fit(const std::deque<Observation>& observations) {
  // By how much this machine is slower than the typical one, on the whole.
  std::vector<double> ratios;
  for (const Observation& seen : observations) {
    double typical = 0;
    for (const double term : seen.terms) typical += term;
    ratios.push_back(seen.seconds / typical);
  }
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<int64_t>(ratios.size() / 2),
                   ratios.end());
  const double scale = ratios[ratios.size() / 2];
  Terms factors;
  factors.fill(scale);
  for (int round = 0; round < kRounds; ++round) {
    // In units of `scale`: gram * x = target, and x is near 1 where nothing else is known.
    std::array<Terms, kTerms> gram{};
    Terms target{};
    for (size_t i = 0; i < kTerms; ++i) {
      gram[i][i] = kPriorWeight;
      target[i] = kPriorWeight;
    }
    for (const Observation& seen : observations) {
      // The further off, the less it says: another process may have had the device.
      const double off = std::abs(std::log2(Dot(seen.terms, factors) / seen.seconds));
      const double weight = 1 / std::max(1.0, off * off);
      for (size_t i = 0; i < kTerms; ++i) {
        const double a = seen.terms[i] * scale / seen.seconds;
        target[i] += weight * a;
        for (size_t j = 0; j < kTerms; ++j) {
          gram[i][j] += weight * a * seen.terms[j] * scale / seen.seconds;
        }
      }
    }
    Terms x;
    x.fill(1);
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      for (size_t i = 0; i < kTerms; ++i) {
        const double rest = target[i] - Dot(gram[i], x) + gram[i][i] * x[i];
        x[i] = std::max(rest / gram[i][i], 0.0);
      }
    }
    for (size_t i = 0; i < kTerms; ++i) factors[i] = x[i] * scale;
    // A start takes some time on every machine; so no estimate is nothing.
    factors[0] = std::max(factors[0], scale * 1e-3);
  }
  return factors;
}

void RateModel::Learn(const std::string& device, const JobShape& shape, bool warm, double seconds) {
  if (!(seconds > 0)) return;  // also NaN
  if (!devices_.contains(device) && devices_.size() >= kMostDevices) return;
  Device& learned = devices_[device];
  learned.observations.push_back({.terms = TermsOf(shape, warm, device == "cpu"),
                                  .seconds = std::clamp(seconds, kLeastSeconds, kMostSeconds)});
  if (learned.observations.size() > kMostObservations) learned.observations.pop_front();
  learned.factors = Fit(learned.observations);
}

std::optional<double> RateModel::Estimate(const std::string& device, const JobShape& shape,
                                          bool warm) const {
  const auto found = devices_.find(device);
  if (found == devices_.end()) return std::nullopt;
  const double seconds = Dot(TermsOf(shape, warm, device == "cpu"), found->second.factors);
  return std::clamp(seconds, kLeastSeconds, kMostSeconds);
}

}  // namespace tiny_knn
