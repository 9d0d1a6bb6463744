// Matrices and results of the worker's tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "core/job/run_job.h"
#include "fmt/format.h"
#include "gpu/open_engine.h"
#include "gtest/gtest.h"

namespace tiny_knn {

// An empty folder of this test's own.
inline std::string MakeTestFolder() {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  const std::string folder =
      fmt::format("{}{}.{}", testing::TempDir(), test.test_suite_name(), test.name());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

inline std::vector<float> RandomValues(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> any(-1, 1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = any(generator);
  return values;
}

// float32 [rows, values / rows], C order; written in place.
inline void WriteNpy(const std::string& path, int64_t rows, const std::vector<float>& values) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows,
                  static_cast<int64_t>(values.size()) / rows);
  header.resize(117, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file << std::string("\x93NUMPY\x01\x00", 8) << static_cast<char>(header.size()) << '\0' << header;
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(float)));
}

inline std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The bytes that a new engine writes of that job, without anything kept.
inline std::string BytesOfDirectRun(JobSpec spec, const std::string& scratch_path) {
  spec.output_path = scratch_path;
  spec.device = "cpu";
  absl::StatusOr<OpenedEngine> opened = OpenEngine({"cpu"});
  absl::StatusOr<PreparedJob> job = PrepareJob(spec);
  EXPECT_TRUE(job.ok()) << job.status();
  if (!job.ok()) return "";
  const absl::StatusOr<JobResult> result = RunJob(spec, *job, *opened->engine, {});
  EXPECT_TRUE(result.ok()) << result.status();
  std::string bytes = ReadAll(scratch_path);
  std::filesystem::remove(scratch_path);
  return bytes;
}

}  // namespace tiny_knn
