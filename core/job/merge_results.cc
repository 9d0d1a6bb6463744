#include "core/job/merge_results.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/io/result_file.h"
#include "core/job/version.h"
#include "core/search/ranking.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Rows of all parts that are held at a time.
constexpr int64_t kBlockBytes = int64_t{32} << 20;

using Parts = std::vector<std::unique_ptr<OpenedResult>>;

// Docs of a range that a query can have, of which at most `k` stand in a row.
int64_t DocsOfQuery(const ResultMetadata& data, int64_t docs_begin, int64_t docs_end, int64_t k,
                    int64_t query) {
  const bool loses_one = data.exclude_self && query >= docs_begin && query < docs_end;
  return std::min(k, docs_end - docs_begin - (loses_one ? 1 : 0));
}

absl::Status CheckPart(const OpenedResult& opened) {
  const ResultMetadata& data = opened.metadata();
  if (!data.is_part()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is no part: it was not made with --docs-range, or by a program that knows "
                    "no parts",
                    opened.path()));
  }
  const ResultPart& part = data.part;
  const bool sound = part.docs_begin >= 0 && part.docs_begin < part.docs_end &&
                     part.docs_end <= part.num_docs && part.k_wanted >= 1 &&
                     part.k_wanted <= part.num_docs &&
                     data.k == std::min(part.k_wanted, part.docs_end - part.docs_begin);
  if (sound) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{}: is no part that tiny-knn writes: k={} of {}, docs {}:{} of {}", opened.path(), data.k,
      part.k_wanted, part.docs_begin, part.docs_end, part.num_docs));
}

// What two parts of one search have in common, as texts to compare and to show.
absl::Status CheckBelongs(const OpenedResult& first, const OpenedResult& other) {
  const ResultMetadata& a = first.metadata();
  const ResultMetadata& b = other.metadata();
  const auto yes_no = [](bool value) { return std::string(value ? "yes" : "no"); };
  struct {
    std::string_view what;
    std::string in_first, in_other;
  } const compared[] = {
      {"queries", a.part.queries_fingerprint, b.part.queries_fingerprint},
      {"number of queries", fmt::to_string(a.num_queries), fmt::to_string(b.num_queries)},
      {"number of docs", fmt::to_string(a.part.num_docs), fmt::to_string(b.part.num_docs)},
      {"docs", a.part.docs_fingerprint, b.part.docs_fingerprint},
      {"k", fmt::to_string(a.part.k_wanted), fmt::to_string(b.part.k_wanted)},
      {"metric", a.metric, b.metric},
      {"dtype", a.dtype, b.dtype},
      {"type of scores", std::string(DTypeName(a.score_dtype)),
       std::string(DTypeName(b.score_dtype))},
      {"--exclude-self", yes_no(a.exclude_self), yes_no(b.exclude_self)},
  };
  for (const auto& [what, in_first, in_other] : compared) {
    if (in_first == in_other) continue;
    return absl::InvalidArgumentError(
        fmt::format("{}: does not belong with {}: {} {} there, {} here", other.path(), first.path(),
                    what, in_first, in_other));
  }
  if (a.docs_manifest == b.docs_manifest) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: does not belong with {}: the files of the docs, or their rows, are others",
                  other.path(), first.path()));
}

// REQUIRES: parts in order of their docs.
absl::Status CheckRanges(const Parts& parts, bool partial) {
  const int64_t num_docs = parts.front()->metadata().part.num_docs;
  for (size_t i = 1; i < parts.size(); ++i) {
    const ResultPart& before = parts[i - 1]->metadata().part;
    const ResultPart& here = parts[i]->metadata().part;
    if (here.docs_begin < before.docs_end) {
      return absl::InvalidArgumentError(
          fmt::format("{}: its docs {}:{} overlap the docs {}:{} of {}; give each part once",
                      parts[i]->path(), here.docs_begin, here.docs_end, before.docs_begin,
                      before.docs_end, parts[i - 1]->path()));
    }
    if (here.docs_begin > before.docs_end) {
      return absl::InvalidArgumentError(fmt::format("docs {}:{} are missing, between {} and {}",
                                                    before.docs_end, here.docs_begin,
                                                    parts[i - 1]->path(), parts[i]->path()));
    }
  }
  const int64_t begin = parts.front()->metadata().part.docs_begin;
  const int64_t end = parts.back()->metadata().part.docs_end;
  if (partial || (begin == 0 && end == num_docs)) return absl::OkStatus();
  const std::string missing = begin > 0 && end < num_docs
                                  ? fmt::format("0:{} and {}:{}", begin, end, num_docs)
                              : begin > 0 ? fmt::format("0:{}", begin)
                                          : fmt::format("{}:{}", end, num_docs);
  return absl::InvalidArgumentError(
      fmt::format("docs {} are missing, of {}; --partial makes a larger part of {}:{}", missing,
                  num_docs, begin, end));
}

absl::Status CheckOutputIsNoPart(const std::string& output_path, const Parts& parts) {
  struct stat output, part;
  if (stat(output_path.c_str(), &output) != 0) return absl::OkStatus();
  for (const auto& opened : parts) {
    if (stat(opened->path().c_str(), &part) == 0 && part.st_dev == output.st_dev &&
        part.st_ino == output.st_ino) {
      return absl::InvalidArgumentError(
          fmt::format("{}: the output would overwrite the part {}; choose another", output_path,
                      opened->path()));
    }
  }
  return absl::OkStatus();
}

// A block of rows of one part.
struct BlockOfPart {
  std::vector<int64_t> indices;
  std::vector<double> scores;
};

// Appends what the part's row of `query` holds to `found`. InvalidArgument where no search writes
// such a row: its docs must be of the part, in order, as many as there are, and then nothing.
absl::Status TakeRow(const OpenedResult& part, int64_t query, const int64_t* indices,
                     const double* scores, std::vector<Ranked<double>>& found) {
  const ResultMetadata& data = part.metadata();
  const auto [begin, end] = std::pair(data.part.docs_begin, data.part.docs_end);
  const int64_t docs = DocsOfQuery(data, begin, end, data.k, query);
  bool sound = true;
  for (int64_t rank = 0; rank < docs; ++rank) {
    found.push_back({KeyOfScore(scores[rank]), indices[rank]});
    sound = sound && indices[rank] >= begin && indices[rank] < end &&
            !(data.exclude_self && indices[rank] == query);
    if (rank > 0) sound = sound && found[found.size() - 2] < found.back();
  }
  for (int64_t rank = docs; rank < data.k; ++rank) sound = sound && indices[rank] == -1;
  if (sound) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: is damaged: the row of query {} is none that a search of docs {}:{} writes",
                  part.path(), query, begin, end));
}

template <typename T>
void WriteRow(const std::vector<Ranked<double>>& found, int64_t docs, int64_t k, int64_t* indices,
              T* scores) {
  for (int64_t rank = 0; rank < docs; ++rank) {
    const Ranked<double>& doc = found[static_cast<size_t>(rank)];
    indices[rank] = doc.index;
    // Exact: widened from this type. NaN has one key and one form.
    scores[rank] = doc.key == 0 ? CanonicalNan<T>() : static_cast<T>(ScoreOfKey<double>(doc.key));
  }
  std::fill(indices + docs, indices + k, -1);
  std::fill(scores + docs, scores + k, CanonicalNan<T>());
}

template <typename T>
absl::Status MergeRows(const Parts& parts, const ResultMetadata& merged, int64_t docs_begin,
                       int64_t docs_end, Progress* progress, ResultWriter& writer) {
  int64_t row_bytes = merged.k * 16;
  for (const auto& part : parts) row_bytes += part->metadata().k * 32;
  const int64_t block = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(1, row_bytes), 1,
                                            std::max<int64_t>(1, merged.num_queries));
  std::vector<BlockOfPart> blocks(parts.size());
  std::vector<int64_t> indices(static_cast<size_t>(block * merged.k));
  std::vector<T> scores(indices.size());
  std::vector<Ranked<double>> found;
  for (int64_t first = 0; first < merged.num_queries; first += block) {
    if (progress != nullptr && progress->cancelled()) {
      return absl::CancelledError("interrupted; nothing was written");
    }
    const int64_t count = std::min(block, merged.num_queries - first);
    for (size_t p = 0; p < parts.size(); ++p) {
      blocks[p].indices.resize(static_cast<size_t>(block * parts[p]->metadata().k));
      blocks[p].scores.resize(blocks[p].indices.size());
      parts[p]->CopyRows(first, count, blocks[p].indices.data(), blocks[p].scores.data());
      const absl::Status unchanged = parts[p]->CheckUnchanged();
      if (!unchanged.ok()) return unchanged;
    }
    for (int64_t row = 0; row < count; ++row) {
      const int64_t query = first + row;
      found.clear();
      for (size_t p = 0; p < parts.size(); ++p) {
        const int64_t at = row * parts[p]->metadata().k;
        const absl::Status taken = TakeRow(*parts[p], query, blocks[p].indices.data() + at,
                                           blocks[p].scores.data() + at, found);
        if (!taken.ok()) return taken;
      }
      const int64_t docs = DocsOfQuery(merged, docs_begin, docs_end, merged.k, query);
      std::partial_sort(found.begin(), found.begin() + docs, found.end());
      WriteRow(found, docs, merged.k, indices.data() + row * merged.k,
               scores.data() + row * merged.k);
    }
    const absl::Status written = writer.WriteRows(first, count, indices.data(), scores.data());
    if (!written.ok()) return written;
    if (progress != nullptr) progress->Report(first + count, merged.num_queries);
  }
  return absl::OkStatus();
}

absl::StatusOr<MergeReport> Merge(std::span<const std::string> part_paths,
                                  const std::string& output_path, const MergeOptions& options) {
  if (part_paths.empty()) return absl::InvalidArgumentError("there are no parts to merge");
  Parts parts;
  for (const std::string& path : part_paths) {
    absl::StatusOr<std::unique_ptr<OpenedResult>> part = OpenedResult::Open(path);
    if (!part.ok()) return part.status();
    const absl::Status sound = CheckPart(**part);
    if (!sound.ok()) return sound;
    parts.push_back(*std::move(part));
    const absl::Status belongs = CheckBelongs(*parts.front(), *parts.back());
    if (!belongs.ok()) return belongs;
  }
  std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) {
    return a->metadata().part.docs_begin < b->metadata().part.docs_begin;
  });
  absl::Status status = CheckRanges(parts, options.partial);
  if (status.ok()) status = CheckOutputIsNoPart(output_path, parts);
  if (!status.ok()) return status;

  ResultMetadata merged = parts.front()->metadata();
  const int64_t num_docs = merged.part.num_docs;
  const int64_t docs_begin = merged.part.docs_begin;
  const int64_t docs_end = parts.back()->metadata().part.docs_end;
  merged.k = std::min(merged.part.k_wanted, docs_end - docs_begin);
  merged.part.docs_end = docs_end;
  merged.tiny_knn_version = std::string(kTinyKnnVersion);
  if (docs_begin == 0 && docs_end == num_docs) {
    merged.part = {};
    if (merged.exclude_self && merged.k == num_docs) {
      return absl::InvalidArgumentError(
          fmt::format("{}: k={} of {} docs with --exclude-self is more than a query has",
                      parts.front()->path(), merged.k, num_docs));
    }
  }
  absl::StatusOr<std::unique_ptr<ResultWriter>> writer = CreateResultWriter(output_path, merged);
  if (!writer.ok()) return writer.status();
  status = merged.score_dtype == DType::kFloat64
               ? MergeRows<double>(parts, merged, docs_begin, docs_end, options.progress, **writer)
               : MergeRows<float>(parts, merged, docs_begin, docs_end, options.progress, **writer);
  if (status.ok()) status = (*writer)->Commit();
  if (!status.ok()) return status;
  return MergeReport{.num_parts = static_cast<int64_t>(parts.size()),
                     .num_queries = merged.num_queries,
                     .k = merged.k,
                     .docs_begin = docs_begin,
                     .docs_end = docs_end,
                     .num_docs = num_docs};
}

}  // namespace

absl::StatusOr<MergeReport> MergeResults(std::span<const std::string> part_paths,
                                         const std::string& output_path,
                                         const MergeOptions& options) {
  try {
    return Merge(part_paths, output_path, options);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "no memory to merge so many parts; merge some of them "
        "first, with --partial");
  }
}

}  // namespace tiny_knn
