#include "core/search/screen_cost.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace tiny_knn {
namespace {

// Fitted to a grid of shapes searched with all screens in turn (bench/screen_choice.cc).
struct ScreenRates {
  double start;  // of a search
  double query;  // its codes, its first threshold
  double query_dim;
  double product;  // per query, doc and dim
  double pair;     // per query and doc: compared
  double doc_dim;  // read, and its norm or its code
  double doc;
  double prepared_doc_dim;  // in the place of both where docs only come from memory
  double result;            // selected, rescored, sorted
  double result_dim;
};
// The float32 screen's for few queries, in the place of those of products, pairs and docs: bound by
// what comes from memory or by what is multiplied, whichever takes longer.
struct OnePassRates {
  double read_doc_dim;
  double product;
  double pair;
};
// Per query and doc.
struct RefineRates {
  double pair;  // refined while its row is in cache
  double pair_dim;
  double later_pair;  // the same when the row is not
  double later_pair_dim;
  double waiting;        // kept until then
  double waiting_query;  // per query: memory for those
};
struct MachineRates {
  ScreenRates float32;
  OnePassRates one_pass;
  ScreenRates codes;
  ScreenRates two_digits;
  RefineRates refined;
};
// AMD EPYC (Zen 5). Codes of two digits are not for it.
constexpr MachineRates kWithoutTiles = {
    .float32 = {.start = 0,
                .query = 0,
                .query_dim = 0,
                .product = 9.3e-3,
                .pair = 0.3,
                .doc_dim = 0.4,
                .doc = 22,
                .prepared_doc_dim = 0.27,
                .result = 30,
                .result_dim = 0.04},
    // Not measured with more than 16 queries.
    .one_pass = {.read_doc_dim = 0.27, .product = 0.0095, .pair = 2},
    .codes = {.start = 0,
              .query = 0,
              .query_dim = 0,
              .product = 2.95e-3,
              .pair = 0.24,
              .doc_dim = 0.66,
              .doc = 61,
              .prepared_doc_dim = 0.07,
              .result = 24,
              .result_dim = 0.031},
    .two_digits = {},
    // Not measured: what is refined later costs twice as much, memory as much as elsewhere.
    .refined = {.pair = 5.6,
                .pair_dim = 0.043,
                .later_pair = 11,
                .later_pair_dim = 0.086,
                .waiting = 10,
                .waiting_query = 3500}};
// An Intel Xeon with AMX.
constexpr MachineRates kWithTiles = {
    .float32 = {.start = 1.03e5,
                .query = 0,
                .query_dim = 0,
                .product = 1.42e-2,
                .pair = 0.654,
                .doc_dim = 0.248,
                .doc = 15.2,
                .prepared_doc_dim = 0.27,
                .result = 46.3,
                .result_dim = 0.108},
    .one_pass = {.read_doc_dim = 0.212, .product = 0.0166, .pair = 1.85},
    .codes = {.start = 2.42e5,
              .query = 1640,
              .query_dim = 1.76,
              .product = 9.39e-4,
              .pair = 0.247,
              .doc_dim = 0.384,
              .doc = 45.4,
              .prepared_doc_dim = 0.07,
              .result = 0,  // in what is refined
              .result_dim = 0},
    .two_digits = {.start = 1.71e5,
                   .query = 3880,
                   .query_dim = 9.31,
                   .product = 1.79e-3,
                   .pair = 0.387,
                   .doc_dim = 0.552,
                   .doc = 45.1,
                   .prepared_doc_dim = 0.14,
                   .result = 59.2,
                   .result_dim = 0.0797},
    .refined = {.pair = 47.4,
                .pair_dim = 0.113,
                .later_pair = 95.1,
                .later_pair_dim = 0.291,
                .waiting = 1.88,
                .waiting_query = 4140}};

const MachineRates& RatesOf(bool has_int8_tiles) {
  return has_int8_tiles ? kWithTiles : kWithoutTiles;
}

// What codes of a row with 768 Gaussian dims leave of a score, to both sides together, in standard
// deviations of the scores: grows with the root of dim, since a score's deviation does.
constexpr double kCodedWidth = 0.43;
constexpr double kCodedWidthDim = 768;
// A threshold is this share of a list's room beyond its rank behind what it could be: lists are
// thinned when they are full.
constexpr double kThinningLag = 0.4;

// Candidates beyond one and a half times the rank that lists hold.
constexpr int64_t kExtraCodedCandidates = 16;

// The share of a normal distribution above `deviations`, and its inverse.
double ShareAbove(double deviations) { return 0.5 * std::erfc(deviations / std::numbers::sqrt2); }

double DeviationsOf(double share) {
  double low = -10;
  double high = 10;
  for (int i = 0; i < 50; ++i) {
    const double middle = (low + high) / 2;
    (ShareAbove(middle) > share ? low : high) = middle;
  }
  return low;
}

// In standard deviations; half of it is what queries leave, half what docs do.
double WidthOf(const PassShape& pass) {
  const double halves = (pass.docs_are_codes ? 0 : 0.5) + (pass.queries_are_codes ? 0 : 0.5);
  return halves * kCodedWidth * std::sqrt(static_cast<double>(pass.dim) / kCodedWidthDim);
}

// Docs that stream by a list of so many candidates, whose threshold starts where `least_share` of
// the docs are above it, and is then what ranks `rank`th of those so far.
struct Stream {
  int64_t docs;
  int64_t rank;
  int64_t candidates;
  double least_share;
};

// How many of them codes keep: while m have gone by, about rank / m are above the threshold.
double RefinedOfStream(const Stream& stream, double width) {
  const double docs = static_cast<double>(stream.docs);
  const double candidates = static_cast<double>(stream.candidates);
  const double rank = static_cast<double>(stream.rank);
  // Without a threshold to start with, the first ones all are kept.
  const double first = stream.least_share >= 1 ? candidates : 1;
  if (docs <= first) return docs;
  double refined = first;
  constexpr int kSteps = 24;
  const double ratio = std::pow(docs / first, 1.0 / kSteps);
  const double behind = rank + kThinningLag * (candidates - rank);
  double from = first;
  for (int i = 0; i < kSteps; ++i) {
    const double to = from * ratio;
    const double share = std::min({stream.least_share, behind / std::sqrt(from * to), 0.999});
    refined += (to - from) * ShareAbove(DeviationsOf(share) - width);
    from = to;
  }
  return refined;
}

double CostOfResults(const PassShape& pass, const ScreenRates& rates) {
  return static_cast<double>(pass.num_queries) * static_cast<double>(pass.k) *
         (rates.result + rates.result_dim * static_cast<double>(pass.dim));
}

double CostWithoutRefining(const PassShape& pass, const ScreenRates& rates) {
  const double queries = static_cast<double>(pass.num_queries);
  const double docs = static_cast<double>(pass.num_docs);
  const double dim = static_cast<double>(pass.dim);
  const double per_doc =
      pass.docs_are_prepared ? rates.prepared_doc_dim * dim : rates.doc_dim * dim + rates.doc;
  return rates.start + queries * (rates.query + rates.query_dim * dim) +
         docs * (queries * (rates.product * dim + rates.pair) + per_doc) +
         CostOfResults(pass, rates);
}

double CostInOnePass(const PassShape& pass, const MachineRates& rates) {
  const double queries = static_cast<double>(pass.num_queries);
  const double dim = static_cast<double>(pass.dim);
  const double reading = rates.one_pass.read_doc_dim * dim;
  const double scoring = queries * (rates.one_pass.product * dim + rates.one_pass.pair);
  return rates.float32.start + static_cast<double>(pass.num_docs) * std::max(reading, scoring) +
         CostOfResults(pass, rates.float32);
}

}  // namespace

int64_t CodedCandidates(int64_t k, int64_t num_docs) {
  return std::min(k + k / 2, num_docs) + kExtraCodedCandidates;
}

double ExpectedSurvivors(const PassShape& pass) {
  const double guessed_share = pass.sample_docs == 0 ? 1
                                                     : static_cast<double>(pass.sample_rank) /
                                                           static_cast<double>(pass.sample_docs);
  return RefinedOfStream(
      {.docs = pass.num_docs,
       .rank = pass.k,
       .candidates = pass.waiting_capacity > 0 ? std::min(pass.waiting_capacity, pass.num_docs)
                                               : CodedCandidates(pass.k, pass.num_docs),
       .least_share = guessed_share},
      WidthOf(pass));
}

double ExpectedRefined(const PassShape& pass) {
  const double survivors = ExpectedSurvivors(pass);
  if (pass.waiting_capacity == 0) return survivors;
  // The best k first, and then those that the last threshold leaves.
  const double docs = static_cast<double>(pass.num_docs);
  const double share = std::min(static_cast<double>(pass.k) / docs, 0.999);
  return std::min(survivors, docs * ShareAbove(DeviationsOf(share) - WidthOf(pass)));
}

double Float32GemmCost(const PassShape& pass) {
  const MachineRates& rates = RatesOf(pass.has_int8_tiles);
  return pass.scored_in_one_pass ? CostInOnePass(pass, rates)
                                 : CostWithoutRefining(pass, rates.float32);
}

double Int8CodesCost(const PassShape& pass) {
  const MachineRates& rates = RatesOf(pass.has_int8_tiles);
  const RefineRates& refined = rates.refined;
  const double dim = static_cast<double>(pass.dim);
  const double per_query =
      pass.waiting_capacity == 0
          ? ExpectedRefined(pass) * (refined.pair + refined.pair_dim * dim)
          : ExpectedRefined(pass) * (refined.later_pair + refined.later_pair_dim * dim) +
                ExpectedSurvivors(pass) * refined.waiting + refined.waiting_query;
  return CostWithoutRefining(pass, rates.codes) + static_cast<double>(pass.num_queries) * per_query;
}

double Int16CodesCost(const PassShape& pass) {
  return CostWithoutRefining(pass, RatesOf(true).two_digits);
}

double BreakEvenRefinedShare(int64_t dim, bool has_int8_tiles) {
  const MachineRates& rates = RatesOf(has_int8_tiles);
  const ScreenRates& instead = has_int8_tiles ? rates.two_digits : rates.float32;
  const double d = static_cast<double>(dim);
  const double saved =
      (instead.product - rates.codes.product) * d + (instead.pair - rates.codes.pair);
  return saved / (rates.refined.pair + rates.refined.pair_dim * d);
}

}  // namespace tiny_knn
