// What the tests of the journal and of the queue share: folders and jobs.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "daemon/queue/job.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {

// A new, empty folder of mode 0700 for the running test, in place of one of that name.
inline std::string PrivateFolder(const std::string& name) {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  std::string folder =
      fmt::format("{}{}_{}_{}", testing::TempDir(), test.test_suite_name(), test.name(), name);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(mkdir(folder.c_str(), 0700), 0) << folder;
  return folder;
}

// Every field, to compare by.
inline std::string Describe(const Job& job) {
  const auto number = [](const std::optional<double>& value) {
    return value ? fmt::format("{}", *value) : "none";
  };
  const JobShape& shape = job.shape;
  return fmt::format(
      "{}|{}|{}|{}|{}|{}|{} {} {} {} {}|{}|{}|{}|{}|{} {} {}|{} {} {} {}|{}|{}|{}|{}|{}|{}", job.id,
      job.uid, job.key, job.priority, job.timeout_seconds, job.spec_json, shape.num_queries,
      shape.num_docs, shape.dim, shape.k, shape.docs_bytes, job.queries_path, job.docs_path,
      job.output_path, JobStateName(job.state), job.attempt, job.crashes, job.leftover_attempt,
      job.submitted_at, number(job.started_at), number(job.finished_at), number(job.ran_seconds),
      job.error_code, job.error, job.device, job.docs, job.report_json, job.search_seconds);
}

}  // namespace tiny_knn
