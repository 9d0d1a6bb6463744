// What a search costs with each screen: the model by which the planner chooses one. Pure functions,
// safe to call from any thread. docs/benchmarking.md says how the numbers were measured and how
// often the model is wrong, by how much.
#pragma once

#include <cstdint>

namespace tiny_knn {

// What a pass over the docs is, for the model.
struct PassShape {
  int64_t num_queries = 0;  // of the batch
  int64_t num_docs = 0;
  int64_t dim = 0;
  int64_t k = 0;
  // Thresholds that are guessed from the docs' `sample_docs`, by what ranks there `sample_rank`th;
  // 0: none.
  int64_t sample_docs = 0;
  int64_t sample_rank = 0;
  // SearchPlan::waiting_capacity, where survivors of codes can wait.
  int64_t waiting_capacity = 0;
  // Rows that are integers are codes as they are, and leave nothing.
  bool docs_are_codes = false;
  bool queries_are_codes = false;
  // What the screen makes of docs is there already.
  bool docs_are_prepared = false;
  // The float32 screen scores docs while they are prepared: few queries.
  bool scored_in_one_pass = false;
  // Of a machine that multiplies codes by tiles (IsaLevel::kAmx).
  bool has_int8_tiles = false;
};

// All in nanoseconds of one thread of the machine that the model was fitted on, one with tiles or
// one without; only ratios of costs for the same kind of machine mean anything elsewhere.
double Float32GemmCost(const PassShape& pass);
// Without tiles: on a machine that multiplies 8-bit integers four times as fast as float32.
double Int8CodesCost(const PassShape& pass);
// Codes of two digits. REQUIRES: has_int8_tiles.
double Int16CodesCost(const PassShape& pass);

// How many docs codes keep for a query: of Gaussian docs, the worst case of data that a screen is
// good for, since no doc stands out.
double ExpectedSurvivors(const PassShape& pass);
// How many of them are refined: all, unless they wait.
double ExpectedRefined(const PassShape& pass);

// The share of pairs refined at which codes of one digit take as long as what goes on in their
// place: codes of two digits where there are tiles, else the float32 screen.
double BreakEvenRefinedShare(int64_t dim, bool has_int8_tiles);

// Candidates that the lists of a screen with codes hold: half of k beyond k, and some. Survivors of
// codes come one by one, and each that a threshold rules out need not be refined: the sooner it
// rises the better, so these lists are shorter than others.
int64_t CodedCandidates(int64_t k, int64_t num_docs);

}  // namespace tiny_knn
