#include "core/job/job_spec_json.h"

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;
using testing::Not;

JobSpec SpecOf(const std::string& queries, const std::string& docs) {
  JobSpec spec;
  spec.queries_path = queries;
  spec.docs_path = docs;
  return spec;
}

std::string Written(const JobSpec& spec) {
  const absl::StatusOr<std::string> json = JobSpecToJson(spec);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.value_or("");
}

JobSpec Read(std::string_view json) {
  const absl::StatusOr<JobSpec> spec = JobSpecFromJson(json);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.value_or(JobSpec());
}

// The message of a refusal; "accepted" otherwise.
std::string Refusal(std::string_view json) {
  const absl::Status status = JobSpecFromJson(json).status();
  if (status.ok()) return "accepted";
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  const std::string message(status.message());
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  EXPECT_LT(message.size(), 400u) << message;
  return message;
}

// A spec with one member more.
std::string With(std::string_view member) {
  return fmt::format(R"({{"queries":"q.npy","docs":"d.npy",{}}})", member);
}

TEST(JobSpecJson, DefaultsAreLeftOut) {
  EXPECT_EQ(Written(SpecOf("q.npy", "d.npy")), R"({"queries":"q.npy","docs":"d.npy"})");
}

TEST(JobSpecJson, EveryMemberIsWrittenAndReadBack) {
  JobSpec spec;
  spec.queries_path = "q \"1\"\n\xC3\xA9.npy";
  spec.docs_path = "/data/d.npy";
  spec.output_path = "out.pkl";
  spec.working_folder = "/home/ann";
  spec.k = 7;
  spec.metric = Metric::kL2;
  spec.compute_dtype = DType::kFloat16;
  spec.input_dtype = DType::kBFloat16;
  spec.batch_size = 64;
  spec.exclude_self = true;
  spec.device = "cuda:1";
  spec.gpu_memory_bytes = std::numeric_limits<int64_t>::max();
  spec.threads = 4096;
  spec.memory_limit_bytes = 1;
  spec.verify_queries = 9;
  spec.docs_range = DocsRange{5, 700};
  spec.checkpoint_path = "run.ckpt";
  spec.checkpoint_seconds = 0;
  spec.umask = 0;
  const std::string json = Written(spec);
  EXPECT_EQ(json,
            "{\"queries\":\"q \\\"1\\\"\\n\xC3\xA9.npy\",\"docs\":\"/data/d.npy\","
            "\"output\":\"out.pkl\",\"working_folder\":\"/home/ann\",\"k\":7,\"metric\":\"l2\","
            "\"dtype\":\"float16\",\"input_dtype\":\"bfloat16\",\"batch_size\":64,"
            "\"exclude_self\":true,\"docs_range\":\"5:700\",\"device\":\"cuda:1\","
            "\"gpu_memory\":9223372036854775807,"
            "\"threads\":4096,\"memory_limit\":1,\"verify\":9,\"checkpoint\":\"run.ckpt\","
            "\"checkpoint_seconds\":0,\"umask\":0}");
  const JobSpec read = Read(json);
  EXPECT_EQ(read.queries_path, spec.queries_path);
  EXPECT_EQ(read.docs_path, spec.docs_path);
  EXPECT_EQ(read.output_path, spec.output_path);
  EXPECT_EQ(read.working_folder, spec.working_folder);
  EXPECT_EQ(read.k, spec.k);
  EXPECT_EQ(read.metric, spec.metric);
  EXPECT_EQ(read.compute_dtype, spec.compute_dtype);
  EXPECT_EQ(read.input_dtype, spec.input_dtype);
  EXPECT_EQ(read.batch_size, spec.batch_size);
  EXPECT_EQ(read.exclude_self, spec.exclude_self);
  EXPECT_EQ(read.docs_range, spec.docs_range);
  EXPECT_EQ(read.checkpoint_path, spec.checkpoint_path);
  EXPECT_EQ(read.checkpoint_seconds, spec.checkpoint_seconds);
  EXPECT_EQ(read.device, spec.device);
  EXPECT_EQ(read.gpu_memory_bytes, spec.gpu_memory_bytes);
  EXPECT_EQ(read.threads, spec.threads);
  EXPECT_EQ(read.memory_limit_bytes, spec.memory_limit_bytes);
  EXPECT_EQ(read.verify_queries, spec.verify_queries);
  EXPECT_EQ(read.umask, spec.umask);
  EXPECT_EQ(Written(read), json);
}

TEST(JobSpecJson, ValuesThatMeanTheDefaultAreAccepted) {
  const JobSpec spec = Read(
      R"( {"docs":"d","queries":"q","threads":0,"memory_limit":0,"gpu_memory":0,"verify":0,
           "metric":"ip","dtype":"float32","device":"auto","exclude_self":false} )");
  EXPECT_EQ(Written(spec), R"({"queries":"q","docs":"d"})");
}

TEST(JobSpecJson, PathsThatAreNotUtf8CannotBeWritten) {
  for (const char* member : {"queries", "docs", "output", "working_folder"}) {
    JobSpec spec = SpecOf("q", "d");
    const std::string name = member;
    (name == "queries"  ? spec.queries_path
     : name == "docs"   ? spec.docs_path
     : name == "output" ? spec.output_path
                        : spec.working_folder) = "/a\xFF.npy";
    const absl::Status status = JobSpecToJson(spec).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr(fmt::format("'{}' is not UTF-8", member)));
  }
}

TEST(JobSpecJson, UnknownMembersNameTheNearestKnownOne) {
  EXPECT_EQ(Refusal(With(R"("metrik":"ip")")),
            "job spec: unknown member \"metrik\"; did you mean 'metric'?");
  EXPECT_EQ(Refusal(With(R"("output_path":"x")")),
            "job spec: unknown member \"output_path\"; did you mean 'output'?");
  EXPECT_EQ(Refusal(With(R"("K":1)")), "job spec: unknown member \"K\"; did you mean 'k'?");
  EXPECT_THAT(Refusal(With(R"("a\u0000\n\u001b":1)")),
              HasSubstr(R"(unknown member "a\u0000\n\u001b")"));
  EXPECT_THAT(Refusal(With(fmt::format("\"{}\":1", std::string(100000, 'k')))),
              HasSubstr("unknown member"));
}

TEST(JobSpecJson, MembersGivenTwiceAreRefused) {
  EXPECT_EQ(Refusal(With(R"("k":1,"k":1)")), "job spec: 'k' is given twice; give it once");
  EXPECT_EQ(Refusal(With(R"("queries":"other")")),
            "job spec: 'queries' is given twice; give it once");
  EXPECT_EQ(Refusal(With(R"("k":1,"\u006b":1)")), "job spec: 'k' is given twice; give it once");
}

TEST(JobSpecJson, QueriesAndDocsAreNeeded) {
  EXPECT_EQ(Refusal("{}"), "job spec: 'queries' is missing; give an .npy file");
  EXPECT_EQ(Refusal(R"({"queries":"q"})"), "job spec: 'docs' is missing; give an .npy file");
  EXPECT_EQ(Refusal(R"({"queries":"","docs":"d"})"),
            "job spec: 'queries' expects an .npy file, found an empty name");
  EXPECT_EQ(Refusal(R"({"queries":"q","docs":""})"),
            "job spec: 'docs' expects an .npy file, found an empty name");
}

TEST(JobSpecJson, PathsAreChecked) {
  EXPECT_EQ(Refusal(With(R"("output":"")")),
            "job spec: 'output' expects a file name, found an empty name");
  EXPECT_EQ(Refusal(With(R"("output":"a\u0000b")")),
            "job spec: 'output' expects a file name, found a name with a NUL in it");
  EXPECT_EQ(Refusal(R"({"queries":"q\u0000","docs":"d"})"),
            "job spec: 'queries' expects an .npy file, found a name with a NUL in it");
  EXPECT_EQ(Refusal(With(R"("working_folder":"home")")),
            "job spec: 'working_folder' expects an absolute path, found \"home\"");
  EXPECT_EQ(Refusal(With(R"("working_folder":"")")),
            "job spec: 'working_folder' expects an absolute path, found \"\"");
  EXPECT_EQ(Refusal(With(R"("working_folder":"/a\u0000")")),
            "job spec: 'working_folder' expects an absolute path, found a name with a NUL in it");
}

TEST(JobSpecJson, WrongTypesNameTheMember) {
  EXPECT_EQ(Refusal(R"({"queries":1})"),
            "job spec: 'queries' expects the path of an .npy file, found 1");
  EXPECT_EQ(Refusal(With(R"("k":"5")")),
            "job spec: 'k' expects a whole number of at least 1, found \"5\"");
  EXPECT_EQ(Refusal(With(R"("k":null)")),
            "job spec: 'k' expects a whole number of at least 1, found null");
  EXPECT_EQ(Refusal(With(R"("k":[1])")),
            "job spec: 'k' expects a whole number of at least 1, found an array");
  EXPECT_EQ(Refusal(With(R"("k":true)")),
            "job spec: 'k' expects a whole number of at least 1, found true");
  EXPECT_EQ(Refusal(With(R"("docs_":{})")),
            "job spec: unknown member \"docs_\"; did you mean 'docs'?");
  EXPECT_EQ(Refusal(R"({"docs":{"a":1}})"),
            "job spec: 'docs' expects the path of an .npy file, found an object");
  EXPECT_EQ(Refusal(With(R"("docs_range":"5")")),
            "job spec: 'docs_range' expects a range of docs such as \"0:1000\" or \"1000:\", found "
            "\"5\"");
  EXPECT_EQ(Refusal(With(R"("checkpoint_seconds":94608001)")),
            "job spec: 'checkpoint_seconds' expects a whole number from 0 to 94608000, found "
            "94608001");
  EXPECT_EQ(Refusal(With(R"("checkpoint":"")")),
            "job spec: 'checkpoint' expects a file name, found an empty name");
  EXPECT_EQ(Refusal(With(R"("exclude_self":1)")),
            "job spec: 'exclude_self' expects true or false, found 1");
  EXPECT_EQ(Refusal(With(R"("output":false)")),
            "job spec: 'output' expects the path of a file, found false");
  EXPECT_EQ(Refusal(With(R"("working_folder":1)")),
            "job spec: 'working_folder' expects an absolute path, found 1");
  EXPECT_EQ(Refusal(With(R"("metric":2)")),
            "job spec: 'metric' expects \"ip\", \"cosine\" or \"l2\", found 2");
}

TEST(JobSpecJson, NumbersAreWholeAndInRange) {
  const std::string at_least_one = "expects a whole number of at least 1, found ";
  EXPECT_THAT(Refusal(With(R"("k":0)")), HasSubstr("'k' " + at_least_one + "0"));
  EXPECT_THAT(Refusal(With(R"("k":-3)")), HasSubstr("'k' " + at_least_one + "-3"));
  EXPECT_THAT(Refusal(With(R"("k":5.0)")), HasSubstr("'k' " + at_least_one + "5.0"));
  EXPECT_THAT(Refusal(With(R"("k":1e3)")), HasSubstr("'k' " + at_least_one + "1e3"));
  EXPECT_THAT(Refusal(With(R"("k":9223372036854775808)")),
              HasSubstr("'k' " + at_least_one + "9223372036854775808"));
  EXPECT_THAT(Refusal(With(R"("k":18446744073709551616)")), HasSubstr("'k' " + at_least_one));
  EXPECT_THAT(Refusal(With(R"("k":1e999)")), HasSubstr("job spec: "));
  EXPECT_THAT(Refusal(With(R"("batch_size":0)")), HasSubstr("'batch_size' " + at_least_one + "0"));
  EXPECT_THAT(Refusal(With(R"("threads":4097)")),
              HasSubstr("'threads' expects a whole number from 0 to 4096, found 4097"));
  EXPECT_THAT(Refusal(With(R"("threads":-1)")), HasSubstr("'threads' expects"));
  EXPECT_THAT(Refusal(With(R"("umask":512)")),
              HasSubstr("'umask' expects a whole number from 0 to 511, found 512"));
  EXPECT_THAT(Refusal(With(R"("umask":-1)")), HasSubstr("'umask' expects"));
  for (const char* member : {"gpu_memory", "memory_limit", "verify"}) {
    EXPECT_THAT(
        Refusal(With(fmt::format("\"{}\":-1", member))),
        HasSubstr(fmt::format("'{}' expects a whole number of at least 0, found -1", member)));
    EXPECT_EQ(Refusal(With(fmt::format("\"{}\":9223372036854775807", member))), "accepted");
  }
}

TEST(JobSpecJson, NamesAreChecked) {
  EXPECT_THAT(Refusal(With(R"("metric":"dot")")),
              HasSubstr("'metric' expects \"ip\", \"cosine\" or \"l2\", found \"dot\""));
  EXPECT_THAT(Refusal(With(R"("dtype":"bool")")), HasSubstr("'dtype' expects one of "));
  EXPECT_THAT(Refusal(With(R"("dtype":"float8")")), HasSubstr("found \"float8\""));
  EXPECT_THAT(Refusal(With(R"("input_dtype":"f4")")), HasSubstr("'input_dtype' expects one of "));
  EXPECT_EQ(Refusal(With(R"("input_dtype":"bool")")), "accepted");
}

TEST(JobSpecJson, DeviceIsCheckedForItsShape) {
  for (const char* device : {"auto", "cpu", "cuda", "cuda:0", "cuda:999"}) {
    EXPECT_EQ(Read(With(fmt::format("\"device\":\"{}\"", device))).device, device);
  }
  for (const char* device : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1000", "CPU"}) {
    EXPECT_EQ(Refusal(With(fmt::format("\"device\":\"{}\"", device))),
              fmt::format("job spec: 'device' expects \"auto\", \"cpu\", \"cuda\" or \"cuda:N\", "
                          "found \"{}\"",
                          device));
  }
}

TEST(JobSpecJson, WhatIsNotOneObjectIsRefused) {
  for (const char* json : {"1", "[]", "null", "\"q\"", "true", "1.5"}) {
    EXPECT_THAT(Refusal(json), HasSubstr("expected one JSON object, found "));
  }
  const std::string good = R"({"queries":"q","docs":"d"})";
  EXPECT_EQ(Refusal(good), "accepted");
  for (const std::string& json :
       {std::string(), std::string("{"), good + good, good + "x", good + std::string(1, '\0'),
        std::string(1, '\0') + good, "/* */" + good, good.substr(0, good.size() - 1),
        std::string(R"({"queries":"q","docs":"d",})"), std::string("{'queries':1}"),
        std::string("{\"queries\":\"\xFF\"}"), std::string("{\"queries\":\"\xED\xA0\x80\"}"),
        std::string("{\"queries\":\"a\nb\"}"), std::string(R"({"queries":"\ud800"})")}) {
    EXPECT_THAT(Refusal(json), HasSubstr("no valid JSON at byte ")) << json;
  }
}

TEST(JobSpecJson, NestingNeverCostsStack) {
  EXPECT_THAT(Refusal(std::string(1 << 20, '[')), HasSubstr("expected one JSON object"));
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += R"({"docs":)";
  EXPECT_THAT(Refusal(objects), HasSubstr("'docs' expects"));
}

TEST(JobSpecJson, EveryPrefixAndEveryChangedByteIsReadOrRefused) {
  const std::string good =
      With(R"("k":5,"metric":"l2","dtype":"float16","exclude_self":true,"umask":18)");
  for (size_t end = 0; end < good.size(); ++end) {
    EXPECT_NE(Refusal(std::string_view(good).substr(0, end)), "accepted");
  }
  for (size_t at = 0; at < good.size(); ++at) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = good;
      changed[at] = static_cast<char>(byte);
      const absl::StatusOr<JobSpec> spec = JobSpecFromJson(changed);
      if (!spec.ok()) continue;
      EXPECT_TRUE(JobSpecToJson(*spec).ok()) << changed;
    }
  }
}

}  // namespace
}  // namespace tiny_knn
