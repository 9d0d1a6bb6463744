// Docs for many searches: what the engine's screen makes of them is kept from one to the next.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "core/io/row_source.h"
#include "core/job/search_rows.h"
#include "core/search/engine.h"
#include "core/search/search.h"

namespace tiny_knn {

// What is the same in every search of a corpus.
struct CorpusParams {
  Metric metric = Metric::kInnerProduct;
  DType compute_dtype = DType::kFloat32;
};

// The first search prepares the docs while it reads them, later ones use what was prepared. Nothing
// of it changes what is found. Where memory lacks, docs are read and prepared again by each search.
// Thread-compatible: one search at a time.
class Corpus {
 public:
  // The rows must not change while the corpus lives: a file's change is noticed (DataLoss),
  // memory's is not. InvalidArgument where no search of these docs could work; then they stay the
  // caller's.
  static absl::StatusOr<std::unique_ptr<Corpus>> Make(std::unique_ptr<RowSource>&& docs,
                                                      const CorpusParams& params);

  // As SearchRows of these docs. The limit on memory is of the search and all that is kept, and an
  // engine given to one search of a corpus has to be of the kind given to the others.
  absl::StatusOr<SearchReport> Search(RowSource& queries, int64_t k, bool exclude_self,
                                      const SearchLimits& limits, Engine& engine,
                                      Progress* progress, const TopKView& out);

  const RowSource& docs() const { return *docs_; }
  const CorpusParams& params() const { return params_; }
  // Memory that is kept for later searches now.
  int64_t kept_bytes() const;
  // Gives it back. Later searches prepare the docs again.
  void Forget() { kept_.clear(); }

 private:
  Corpus(std::unique_ptr<RowSource> docs, const CorpusParams& params)
      : docs_(std::move(docs)), params_(params) {}

  // The plan of a search, and what of the docs it uses or fills: null where nothing can be kept.
  struct Chosen {
    SearchPlan plan;
    WarmDocs* warm = nullptr;
  };
  absl::StatusOr<Chosen> Choose(const ProblemShape& shape, const SearchLimits& limits,
                                const Engine& engine);
  void DropOthers(const WarmDocs* wanted);

  const std::unique_ptr<RowSource> docs_;
  const CorpusParams params_;
  // One screen cannot use what another made; which it is depends on the search's k and queries.
  std::map<ScreenKind, std::unique_ptr<WarmDocs>> kept_;
};

}  // namespace tiny_knn
