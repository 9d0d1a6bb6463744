#include "cli/submit_flags.h"

#include "cli/daemon_flags.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

std::string SubmitError(const std::vector<std::string>& args) {
  const auto flags = ParseSubmitFlags(args);
  EXPECT_TRUE(absl::IsInvalidArgument(flags.status())) << flags.status();
  return std::string(flags.status().message());
}

TEST(SubmitFlags, DefaultsAskForNothing) {
  const auto flags = ParseSubmitFlags({"q.npy", "d.npy"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->run.spec.queries_path, "q.npy");
  EXPECT_EQ(flags->run.spec.docs_path, "d.npy");
  EXPECT_EQ(flags->run.spec.device, "auto");
  EXPECT_EQ(flags->spec_file, std::nullopt);
  EXPECT_FALSE(flags->wait || flags->follow || flags->json);
  EXPECT_EQ(flags->priority, 0);
  EXPECT_EQ(flags->key, "");
  EXPECT_EQ(flags->timeout_seconds, 0);
  EXPECT_EQ(flags->daemon.socket, std::nullopt);
}

TEST(SubmitFlags, EveryFlagOfTheQueueIsRead) {
  const auto flags =
      ParseSubmitFlags({"q", "--priority", "-5", "--key=nightly-7", "d", "--timeout", "10m",
                        "--json", "--wait", "--socket", "/s", "-k", "3", "--verify", "2"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->priority, -5);
  EXPECT_EQ(flags->key, "nightly-7");
  EXPECT_EQ(flags->timeout_seconds, 600);
  EXPECT_TRUE(flags->json);
  EXPECT_TRUE(flags->wait);
  EXPECT_FALSE(flags->follow);
  EXPECT_EQ(flags->daemon.socket, "/s");
  EXPECT_EQ(flags->run.spec.k, 3);
  EXPECT_EQ(flags->run.spec.verify_queries, 2);
}

TEST(SubmitFlags, FollowingIsWaiting) {
  EXPECT_TRUE(ParseSubmitFlags({"q", "d", "--follow"})->wait);
}

TEST(SubmitFlags, ReadsTheFlagsOfRunAsRunDoes) {
  // Every flag of run is declared, and what it means is InterpretRunFlags' affair.
  std::vector<std::string> names;
  for (const FlagParser::Flag& flag : ListSubmitFlags()) {
    names.insert(names.end(), flag.names.begin(), flag.names.end());
  }
  EXPECT_THAT(names, testing::IsSupersetOf(RunFlagNames()));
  EXPECT_THAT(SubmitError({"q", "d", "--k", "0"}), HasSubstr("--k expects a whole number"));
  EXPECT_THAT(SubmitError({"q", "d", "--cpu", "--device", "cuda"}), HasSubstr("contradict"));
  EXPECT_THAT(SubmitError({"q", "d", "--device", "gpu"}), HasSubstr("--device expects auto, cpu"));
}

TEST(SubmitFlags, MissingAndSurplusFiles) {
  EXPECT_THAT(SubmitError({}), StartsWith("missing QUERIES; usage: tiny-knn submit QUERIES DOCS"));
  EXPECT_THAT(SubmitError({"q"}), StartsWith("missing DOCS"));
  EXPECT_THAT(SubmitError({"q", "d", "e"}), StartsWith("unexpected argument 'e'"));
  EXPECT_THAT(SubmitError({"", "d"}), StartsWith("QUERIES is an empty name"));
}

TEST(SubmitFlags, ASpecStandsAlone) {
  const auto flags = ParseSubmitFlags({"--spec", "-", "--wait", "--progress", "json", "-q"});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->spec_file, "-");
  EXPECT_TRUE(flags->run.quiet);
  EXPECT_EQ(flags->run.progress, ProgressMode::kJson);
  EXPECT_THAT(SubmitError({"--spec", "f", "q"}), HasSubstr("--spec and 'q' contradict"));
  EXPECT_THAT(SubmitError({"--spec", ""}), HasSubstr("--spec expects a file name or -"));
  EXPECT_THAT(SubmitError({"--spec", "f", "--progress", "bar"}), HasSubstr("--progress expects"));
  const std::vector<std::vector<std::string>> searching = {
      {"--k", "1"},           {"--metric", "ip"},
      {"--dtype", "float32"}, {"--exclude-self"},
      {"--verify", "1"},      {"--input-dtype", "bfloat16"},
      {"--device", "cpu"},    {"--cpu"},
      {"--threads", "1"},     {"--gpu-memory", "1"},
      {"--batch-size", "1"},  {"--memory-limit", "1G"},
      {"--output-path", "o"}};
  for (std::vector<std::string> args : searching) {
    const std::string flag = args[0];
    args.insert(args.end(), {"--spec", "f"});
    EXPECT_THAT(SubmitError(args), StartsWith("--spec and " + flag + " contradict each other"));
  }
}

TEST(SubmitFlags, WrongValuesSayWhatIsAccepted) {
  EXPECT_THAT(SubmitError({"q", "d", "--priority", "101"}),
              StartsWith("--priority expects a whole number from -100 to 100"));
  EXPECT_THAT(SubmitError({"q", "d", "--key", ""}), StartsWith("--key expects 1 to 128"));
  EXPECT_THAT(SubmitError({"q", "d", "--key", "a b"}), StartsWith("--key expects"));
  EXPECT_THAT(SubmitError({"q", "d", "--key", "\xc3\xbc"}), StartsWith("--key expects"));
  EXPECT_THAT(SubmitError({"q", "d", "--key", std::string(129, 'x')}), StartsWith("--key expects"));
  EXPECT_THAT(SubmitError({"q", "d", "--timeout", "soon"}), StartsWith("--timeout expects"));
}

std::string DaemonError(const std::vector<std::string>& args) {
  const auto start = ParseDaemonFlags(args, "/here");
  EXPECT_TRUE(absl::IsInvalidArgument(start.status())) << start.status();
  return std::string(start.status().message());
}

TEST(DaemonFlags, NothingTypedIsNothingPassedOn) {
  const auto start = ParseDaemonFlags({}, "/here");
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_THAT(start->arguments, IsEmpty());
}

TEST(DaemonFlags, ValuesBecomePlainNumbersAndAbsolutePaths) {
  const auto start = ParseDaemonFlags(
      {"--background", "--socket", "s.sock", "--state-dir=state", "--device", "cuda:1",
       "--max-memory", "1.5G", "--threads", "8", "--idle-release", "10m", "--grace", "5s"},
      "/here");
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_THAT(start->arguments,
              ElementsAre("--socket", "/here/s.sock", "--state-dir", "/here/state", "--device",
                          "cuda:1", "--max-memory", "1610612736", "--threads", "8",
                          "--idle-release", "600", "--grace", "5", "--background"));
  EXPECT_THAT(ParseDaemonFlags({"--socket", "s"}, "/")->arguments, ElementsAre("--socket", "/s"));
}

TEST(DaemonFlags, WrongValuesSayWhatIsAccepted) {
  EXPECT_THAT(DaemonError({"--socket", ""}), StartsWith("--socket"));
  EXPECT_THAT(DaemonError({"--socket", "/" + std::string(107, 'x')}), StartsWith("--socket"));
  EXPECT_THAT(DaemonError({"--state-dir", ""}), StartsWith("--state-dir expects a folder"));
  EXPECT_THAT(DaemonError({"--device", "gpu"}), StartsWith("--device expects"));
  EXPECT_THAT(DaemonError({"--max-memory", "much"}), StartsWith("--max-memory expects a size"));
  EXPECT_THAT(DaemonError({"--threads", "0"}), StartsWith("--threads expects"));
  EXPECT_THAT(DaemonError({"--idle-release", "x"}), StartsWith("--idle-release expects a dur"));
  EXPECT_THAT(DaemonError({"--grace", "-1"}), StartsWith("--grace expects a duration"));
  EXPECT_THAT(DaemonError({"now"}), StartsWith("unexpected argument 'now'"));
  // The first mistake is named, not the last.
  EXPECT_THAT(DaemonError({"--max-memory", "x", "--threads", "0"}), StartsWith("--max-memory"));
}

}  // namespace
}  // namespace tiny_knn
