#include "daemon/queue/rate_model.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

JobShape ShapeOf(int64_t queries, int64_t docs, int64_t dim, int64_t k) {
  return {.num_queries = queries,
          .num_docs = docs,
          .dim = dim,
          .k = k,
          .docs_bytes = docs * dim * int64_t{4}};
}

// A machine as it might be; not the typical one that the model starts from.
struct Machine {
  std::string name;
  std::string device;
  double start_seconds;
  double bytes_per_second;    // read and converted
  double multiply_adds;       // per second
  double comparisons;         // per second
  double results_per_second;  // written

  double Seconds(const JobShape& shape, bool warm) const {
    const auto q = static_cast<double>(shape.num_queries);
    const auto d = static_cast<double>(shape.num_docs);
    return start_seconds + (warm ? 0 : static_cast<double>(shape.docs_bytes) / bytes_per_second) +
           q * d * static_cast<double>(shape.dim) / multiply_adds + q * d / comparisons +
           q * static_cast<double>(shape.k) / results_per_second;
  }
};

const std::vector<Machine>& Machines() {
  static const auto* const machines = new std::vector<Machine>{
      {"laptop of two cores", "cpu", 0.1, 3e8, 3e10, 1e9, 3e6},
      {"server of 64 cores", "cpu", 0.02, 4e9, 1.5e12, 5e10, 3e7},
      {"server with a slow disk", "cpu", 0.02, 5e7, 1.5e12, 5e10, 3e7},
      {"small GPU", "cuda", 0.4, 5e8, 1.5e12, 2e10, 1e7},
      {"large GPU", "cuda", 1.5, 3e9, 8e13, 1e12, 2e7},
  };
  return *machines;
}

class Jobs {
 public:
  explicit Jobs(unsigned seed) : random_(seed) {}
  double Noise() { return std::uniform_real_distribution<double>(0.8, 1.2)(random_); }
  bool Warm() { return random_() % 2 == 0; }
  // Any shape of 100 to 10,000 queries, 10,000 to 3,000,000 docs, dim 64 to 1,024, k 10 to 1,000.
  JobShape Any() {
    return ShapeOf(Between(100, 1e4), Between(1e4, 3e6), Between(64, 1024), Between(10, 1000));
  }
  // One set of docs, asked by different batches of queries.
  JobShape OfOneCorpus() { return ShapeOf(Between(500, 5000), 1'000'000, 768, Between(50, 500)); }

 private:
  int64_t Between(double least, double most) {
    std::uniform_real_distribution<double> log(std::log(least), std::log(most));
    return static_cast<int64_t>(std::exp(log(random_)));
  }
  std::mt19937 random_;
};

double FactorOff(double estimate, double seconds) {
  return std::max(estimate / seconds, seconds / estimate);
}

TEST(RateModelTest, KnowsNothingBeforeAJobOfThatDevice) {
  RateModel model;
  EXPECT_FALSE(model.Estimate("cpu", ShapeOf(1, 1, 1, 1), false));
  model.Learn("cuda", ShapeOf(100, 1000, 10, 5), false, 1);
  EXPECT_FALSE(model.fitted());
  EXPECT_FALSE(model.Estimate("cuda", ShapeOf(1, 1, 1, 1), false));
  model.Fit();
  EXPECT_TRUE(model.fitted());
  EXPECT_FALSE(model.Estimate("cpu", ShapeOf(1, 1, 1, 1), false));
  EXPECT_TRUE(model.Estimate("cuda", ShapeOf(1, 1, 1, 1), false));
}

TEST(RateModelTest, IsWithinAFactorOfTwoForTheSameDocsAfterFiveJobs) {
  for (const Machine& machine : Machines()) {
    double worst = 0;
    for (unsigned seed = 0; seed < 50; ++seed) {
      Jobs jobs(seed);
      RateModel model;
      // One that reads the docs, and others that find them warm.
      for (const bool warm : {false, true, true, true, true}) {
        const JobShape shape = jobs.OfOneCorpus();
        model.Learn(machine.device, shape, warm, machine.Seconds(shape, warm) * jobs.Noise());
      }
      model.Fit();
      for (int i = 0; i < 20; ++i) {
        const JobShape shape = jobs.OfOneCorpus();
        const bool warm = jobs.Warm();
        worst = std::max(worst, FactorOff(*model.Estimate(machine.device, shape, warm),
                                          machine.Seconds(shape, warm)));
      }
    }
    fmt::print("{}: at most a factor of {:.2f}\n", machine.name, worst);
    EXPECT_LT(worst, 2) << machine.name;
  }
}

TEST(RateModelTest, IsWithinAFactorOfTwoForNinetyNineOfAHundredShapesAfterTwentyJobs) {
  for (const Machine& machine : Machines()) {
    double worst = 0;
    int within = 0;
    int all = 0;
    for (unsigned seed = 0; seed < 20; ++seed) {
      Jobs jobs(seed);
      RateModel model;
      for (int i = 0; i < 20; ++i) {
        const JobShape shape = jobs.Any();
        const bool warm = jobs.Warm();
        model.Learn(machine.device, shape, warm, machine.Seconds(shape, warm) * jobs.Noise());
      }
      model.Fit();
      for (int i = 0; i < 50; ++i) {
        const JobShape shape = jobs.Any();
        const bool warm = jobs.Warm();
        const double off =
            FactorOff(*model.Estimate(machine.device, shape, warm), machine.Seconds(shape, warm));
        worst = std::max(worst, off);
        within += off < 2 ? 1 : 0;
        ++all;
      }
    }
    fmt::print("{}: {} of {} within a factor of 2, at most {:.2f}\n", machine.name, within, all,
               worst);
    EXPECT_GE(within * 100, all * 99) << machine.name;
    EXPECT_LT(worst, 10) << machine.name;
  }
}

TEST(RateModelTest, LearnsThatTheMachineHasChanged) {
  RateModel model;
  Jobs jobs(1);
  const Machine& before = Machines()[0];
  const Machine& after = Machines()[1];
  for (int i = 0; i < 100; ++i) {
    const JobShape shape = jobs.Any();
    model.Learn("cpu", shape, false, before.Seconds(shape, false));
  }
  for (int i = 0; i < 64; ++i) {
    const JobShape shape = jobs.Any();
    model.Learn("cpu", shape, false, after.Seconds(shape, false));
  }
  model.Fit();
  const JobShape shape = jobs.Any();
  EXPECT_LT(FactorOff(*model.Estimate("cpu", shape, false), after.Seconds(shape, false)), 2);
}

TEST(RateModelTest, IsNotMisledByAJobThatWasHeldUp) {
  RateModel model;
  Jobs jobs(2);
  const Machine& machine = Machines()[1];
  for (int i = 0; i < 20; ++i) {
    const JobShape shape = jobs.OfOneCorpus();
    const double held_up = i % 7 == 3 ? 300 : 1;
    model.Learn("cpu", shape, false, machine.Seconds(shape, false) * held_up);
  }
  model.Fit();
  for (int i = 0; i < 50; ++i) {
    const JobShape shape = jobs.OfOneCorpus();
    EXPECT_LT(FactorOff(*model.Estimate("cpu", shape, false), machine.Seconds(shape, false)), 2);
  }
}

TEST(RateModelTest, IsNeverAbsurd) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
  const std::vector<JobShape> shapes = {
      {},
      ShapeOf(1, 1, 1, 1),
      ShapeOf(1000, 1000000, 768, 100),
      {.num_queries = kMost, .num_docs = kMost, .dim = kMost, .k = kMost, .docs_bytes = kMost},
      {.num_queries = kLeast, .num_docs = -1, .dim = kLeast, .k = -5, .docs_bytes = kLeast},
      {.num_queries = -1, .num_docs = 10, .dim = 10, .k = 1, .docs_bytes = kMost}};
  const std::vector<double> seconds = {1e-300,
                                       1e300,
                                       0,
                                       -1,
                                       std::nan(""),
                                       std::numeric_limits<double>::infinity(),
                                       std::numeric_limits<double>::denorm_min(),
                                       1};
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    RateModel model;
    for (int i = 0; i < 1 + round % 10; ++i) {
      model.Learn("cpu", shapes[random() % shapes.size()], random() % 2 == 0,
                  seconds[random() % seconds.size()]);
    }
    model.Fit();
    for (const JobShape& shape : shapes) {
      for (const bool warm : {false, true}) {
        const std::optional<double> estimate = model.Estimate("cpu", shape, warm);
        if (!estimate) continue;
        ASSERT_TRUE(std::isfinite(*estimate)) << round;
        ASSERT_GT(*estimate, 0);
        ASSERT_LT(*estimate, 1e10);
      }
    }
  }
}

TEST(RateModelTest, GivesTheSameAnswerEveryTime) {
  const auto estimate = [] {
    RateModel model;
    Jobs jobs(4);
    for (int i = 0; i < 30; ++i) model.Learn("cpu", jobs.Any(), jobs.Warm(), 0.5 + i);
    model.Fit();
    return *model.Estimate("cpu", jobs.Any(), false);
  };
  EXPECT_EQ(estimate(), estimate());
}

TEST(RateModelTest, HoldsAFewDevicesAtMost) {
  RateModel model;
  const JobShape shape = ShapeOf(100, 1000, 10, 5);
  for (int i = 0; i < 1000; ++i) model.Learn(fmt::format("device {}", i), shape, false, 1);
  model.Fit();
  EXPECT_TRUE(model.Estimate("device 0", shape, false));
  EXPECT_FALSE(model.Estimate("device 999", shape, false));
}

}  // namespace
}  // namespace tiny_knn
