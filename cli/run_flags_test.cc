#include "cli/run_flags.h"

#include <sstream>

#include "cli/flags.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::vector<std::string>& args) {
  const auto request = ParseRunFlags(args);
  EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << request.status();
  return std::string(request.status().message());
}

TEST(RunFlags, DefaultsAreTheOriginals) {
  const auto request = ParseRunFlags({"q.npy", "d.npy"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->spec.queries_path, "q.npy");
  EXPECT_EQ(request->spec.docs_path, "d.npy");
  EXPECT_EQ(request->spec.output_path, "");
  EXPECT_EQ(request->spec.k, std::nullopt);
  EXPECT_EQ(request->spec.batch_size, std::nullopt);
  EXPECT_EQ(request->spec.metric, Metric::kInnerProduct);
  EXPECT_EQ(request->spec.compute_dtype, DType::kFloat32);
  EXPECT_EQ(request->spec.threads, 0);
  EXPECT_EQ(request->spec.memory_limit_bytes, 0);
  EXPECT_EQ(request->spec.verify_queries, 0);
  EXPECT_FALSE(request->spec.exclude_self);
  EXPECT_EQ(request->spec.device, "auto");
  EXPECT_EQ(request->progress, ProgressMode::kAuto);
}

TEST(RunFlags, EveryFlagReachesTheSpec) {
  const auto request = ParseRunFlags({"--k=7",
                                      "q.npy",
                                      "--dtype",
                                      "float16",
                                      "--metric",
                                      "l2",
                                      "--batch-size",
                                      "32",
                                      "d.npy",
                                      "--output-path",
                                      "o.pkl",
                                      "--threads",
                                      "3",
                                      "--memory-limit",
                                      "1.5GiB",
                                      "--gpu-memory",
                                      "8G",
                                      "--input-dtype",
                                      "bfloat16",
                                      "--verify",
                                      "9",
                                      "--exclude-self",
                                      "--progress",
                                      "json",
                                      "--dry-run",
                                      "--device",
                                      "cuda:1",
                                      "-qv"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->spec.queries_path, "q.npy");
  EXPECT_EQ(request->spec.docs_path, "d.npy");
  EXPECT_EQ(request->spec.k, 7);
  EXPECT_EQ(request->spec.compute_dtype, DType::kFloat16);
  EXPECT_EQ(request->spec.metric, Metric::kL2);
  EXPECT_EQ(request->spec.batch_size, 32);
  EXPECT_EQ(request->spec.output_path, "o.pkl");
  EXPECT_EQ(request->spec.threads, 3);
  EXPECT_EQ(request->spec.memory_limit_bytes, 1610612736);
  EXPECT_EQ(request->spec.input_dtype, DType::kBFloat16);
  EXPECT_EQ(request->spec.verify_queries, 9);
  EXPECT_TRUE(request->spec.exclude_self);
  EXPECT_EQ(request->spec.device, "cuda:1");
  EXPECT_EQ(request->spec.gpu_memory_bytes, int64_t{8} << 30);
  EXPECT_EQ(request->progress, ProgressMode::kJson);
  EXPECT_TRUE(request->dry_run);
  EXPECT_TRUE(request->quiet);
  EXPECT_TRUE(request->verbose);
}

TEST(RunFlags, ShortFormsAndCpu) {
  const auto request = ParseRunFlags({"q", "d", "-k", "5", "-o", "x", "--cpu"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->spec.k, 5);
  EXPECT_EQ(request->spec.output_path, "x");
  EXPECT_EQ(request->spec.device, "cpu");
  EXPECT_EQ(ParseRunFlags({"q", "d", "-k5"})->spec.k, 5);
}

TEST(RunFlags, TheLastOfARepeatedFlagWins) {
  EXPECT_EQ(ParseRunFlags({"q", "d", "--k", "5", "-k", "6"})->spec.k, 6);
}

TEST(RunFlags, NamesAfterADoubleDashMayBeginWithADash) {
  const auto request = ParseRunFlags({"--k", "5", "--", "-q.npy", "-d.npy"});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->spec.queries_path, "-q.npy");
  EXPECT_EQ(request->spec.docs_path, "-d.npy");
}

TEST(RunFlags, HelpWinsOverEveryMistake) {
  EXPECT_TRUE(ParseRunFlags({"--help"})->help);
  EXPECT_TRUE(ParseRunFlags({"q", "--bogus", "-h"})->help);
}

TEST(RunFlags, UnknownFlagNamesTheNearest) {
  EXPECT_THAT(ErrorOf({"q", "d", "--metrc", "ip"}),
              HasSubstr("unknown flag --metrc; did you mean --metric?"));
  EXPECT_THAT(ErrorOf({"q", "d", "--theads=3"}),
              HasSubstr("unknown flag --theads; did you mean --threads?"));
  EXPECT_THAT(ErrorOf({"q", "d", "--zzzzzz"}), HasSubstr("unknown flag --zzzzzz;"));
  EXPECT_THAT(ErrorOf({"q", "d", "-x"}), HasSubstr("unknown flag -x; see 'tiny-knn run --help'"));
}

TEST(RunFlags, MissingAndSurplusArguments) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("missing QUERIES; usage: tiny-knn run QUERIES DOCS"));
  EXPECT_THAT(ErrorOf({"q"}), HasSubstr("missing DOCS"));
  EXPECT_THAT(ErrorOf({"q", "d", "e"}), HasSubstr("unexpected argument 'e'"));
  EXPECT_THAT(ErrorOf({"q", "d", "--k"}), HasSubstr("--k needs a value"));
  EXPECT_THAT(ErrorOf({"", "d"}), HasSubstr("QUERIES is an empty name"));
}

TEST(RunFlags, WrongValuesSayWhatIsAccepted) {
  EXPECT_THAT(ErrorOf({"q", "d", "--k", "0"}), HasSubstr("--k expects a whole number"));
  EXPECT_THAT(ErrorOf({"q", "d", "--k", "-3"}), HasSubstr("found '-3'"));
  EXPECT_THAT(ErrorOf({"q", "d", "--k", ""}), HasSubstr("found ''"));
  EXPECT_THAT(ErrorOf({"q", "d", "--batch-size", "1.5"}), HasSubstr("--batch-size expects"));
  EXPECT_THAT(ErrorOf({"q", "d", "--threads", "0"}), HasSubstr("from 1 to 4096"));
  EXPECT_THAT(ErrorOf({"q", "d", "--verify", "x"}), HasSubstr("--verify expects"));
  EXPECT_THAT(ErrorOf({"q", "d", "--memory-limit",
                       "4"
                       "Gx"}),
              HasSubstr("--memory-limit expects a size"));
  EXPECT_THAT(ErrorOf({"q", "d", "--gpu-memory", "0"}), HasSubstr("--gpu-memory expects a size"));
  EXPECT_THAT(ErrorOf({"q", "d", "--metric", "euclid"}), HasSubstr("ip, cosine or l2"));
  EXPECT_THAT(ErrorOf({"q", "d", "--dtype", "bool"}), HasSubstr("float16"));
  EXPECT_THAT(ErrorOf({"q", "d", "--input-dtype", "f4"}), HasSubstr("bfloat16"));
  EXPECT_THAT(ErrorOf({"q", "d", "--progress", "bar"}), HasSubstr("auto, always, never or json"));
  EXPECT_THAT(ErrorOf({"q", "d", "-o", ""}), HasSubstr("--output-path expects a file name"));
  EXPECT_THAT(ErrorOf({"q", "d", "--cpu", "--device", "cuda"}), HasSubstr("contradict"));
}

TEST(RunFlags, AnEmptyValueDoesNotTakeTheNextWord) {
  EXPECT_THAT(ErrorOf({"q", "d", "--output-path=", "--dry-run"}),
              HasSubstr("--output-path expects a file name, found ''"));
  EXPECT_THAT(ErrorOf({"q", "--k=", "d"}), HasSubstr("--k expects a whole number"));
  EXPECT_EQ(ParseRunFlags({"q", "d", "--k=", "--k=3"})->spec.k, 3);
}

TEST(RunFlags, AFlagIsNoValueOfAnother) {
  EXPECT_THAT(ErrorOf({"q", "d", "--k", "-k", "3"}), HasSubstr("--k needs a value, found -k"));
  EXPECT_THAT(ErrorOf({"q", "d", "-qo", "-v"}), HasSubstr("-o needs a value, found -v"));
  EXPECT_THAT(ErrorOf({"q", "d", "-o", "--dryrun"}), HasSubstr("-o needs a value, found --dryrun"));
  EXPECT_THAT(ErrorOf({"-o", "--", "q", "d"}), HasSubstr("-o needs a value, found --"));
  EXPECT_EQ(ParseRunFlags({"q", "d", "--output-path=--dry-run"})->spec.output_path, "--dry-run");
  EXPECT_EQ(ParseRunFlags({"q", "d", "-qk", "3"})->spec.k, 3);
  EXPECT_EQ(ParseRunFlags({"q", "d", "-o", "-"})->spec.output_path, "-");
}

TEST(RunFlags, ASwitchTakesNoValue) {
  EXPECT_THAT(ErrorOf({"q", "d", "--quiet=banana"}), HasSubstr("--quiet takes no value"));
  EXPECT_THAT(ErrorOf({"q", "d", "--cpu=nan"}), HasSubstr("--cpu takes no value"));
  EXPECT_THAT(ErrorOf({"q", "d", "--dry-run=false"}), HasSubstr("--dry-run takes no value"));
  EXPECT_THAT(ErrorOf({"q", "d", "--dry-run="}), HasSubstr("--dry-run takes no value"));
  EXPECT_THAT(ErrorOf({"q", "d", "-q=1"}), HasSubstr("-q takes no value"));
  EXPECT_THAT(ErrorOf({"q", "d", "--help=1"}), HasSubstr("--help takes no value"));
}

TEST(RunFlags, ControlCharactersInAValueAreMadeVisible) {
  EXPECT_THAT(ErrorOf({"q", "d", "--metric", "a\nb"}), HasSubstr("a\\x0ab"));
}

TEST(Help, NamesEveryFlagOfRun) {
  const std::vector<std::string> names = RunFlagNames();
  EXPECT_GE(names.size(), 20u);
  std::istringstream text{std::string(kRunHelp)};
  std::vector<std::string> words;
  for (std::string word; text >> word;) {
    if (word.back() == ',') word.pop_back();
    words.push_back(word);
  }
  for (const std::string& name : names) EXPECT_THAT(words, testing::Contains(name));
}

TEST(Help, EveryPageFitsATerminalAndHasAUsageLine) {
  std::vector<std::string> pages = {OverviewText()};
  for (const Verb& verb : AllVerbs()) pages.emplace_back(verb.help);
  EXPECT_GE(pages.size(), 6u);
  for (const std::string& page : pages) {
    EXPECT_THAT(page, HasSubstr("usage: tiny-knn"));
    std::istringstream lines(page);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(DisplayWidth(line), 80) << line;
  }
}

}  // namespace
}  // namespace tiny_knn
