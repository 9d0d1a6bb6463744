#include "core/job/job_checkpoint.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "core/io/file_version.h"
#include "core/job/job_paths.h"
#include "core/job/one_line.h"
#include "core/job/version.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// What a search has to have in common with one whose checkpoint it goes on from: all that its
// result depends on. The device's number may change when the machine starts again, so that a file
// is known by the rest.
std::vector<std::pair<std::string, std::string>> IdentityOf(const JobSpec& spec,
                                                            const PreparedJob& job) {
  const auto version_text = [](const FileVersion& version) {
    return fmt::format("a file of {} bytes, inode {}, modified {}.{:09}, changed {}.{:09}",
                       version.size, version.inode, version.mtime_ns / 1'000'000'000,
                       version.mtime_ns % 1'000'000'000, version.ctime_ns / 1'000'000'000,
                       version.ctime_ns % 1'000'000'000);
  };
  std::vector<std::pair<std::string, std::string>> identity = {
      {"tiny-knn", std::string(kTinyKnnVersion)},
      {"k", fmt::to_string(job.k_of_all())},
      {"metric", std::string(MetricName(spec.metric))},
      {"dtype", std::string(DTypeName(spec.compute_dtype))},
      {"input dtype", spec.input_dtype ? std::string(DTypeName(*spec.input_dtype)) : ""},
      {"exclude-self", spec.exclude_self ? "on" : "off"},
      {"docs range",
       job.part ? fmt::format("{}:{}", job.part->docs_begin, job.part->docs_end) : "all"},
      {"queries", version_text(job.queries_version)},
      {"number of docs files", fmt::to_string(job.docs_files.size())}};
  for (const DocsFile& file : job.docs_files) {
    const bool only = job.docs_files.size() == 1;
    identity.emplace_back(only ? "docs" : OneLine(file.name), version_text(file.version));
  }
  return identity;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenJobCheckpoint(const JobSpec& spec,
                                                              PreparedJob& job) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint =
      Checkpoint::Open({.path = ResolvePath(spec, spec.checkpoint_path),
                        .interval = std::chrono::seconds(spec.checkpoint_seconds),
                        .identity = IdentityOf(spec, job),
                        .num_queries = job.queries->rows(),
                        .num_docs = job.docs->rows(),
                        .params = job.params});
  if (checkpoint.ok()) job.share_done_before = (*checkpoint)->share_done();
  return checkpoint;
}

}  // namespace tiny_knn
