#include "daemon/worker/warm_runner.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <ctime>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/io/unique_fd.h"
#include "daemon/worker/files_for_test.h"
#include "daemon/worker/warm_runner_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

bool IsOnTmpfs(const std::string& path) {
  struct statfs found;
  return statfs(path.c_str(), &found) == 0 && found.f_type == TMPFS_MAGIC;
}

// Writes to the 400 docs at `path` through a mapping that stays, as np.memmap does.
class MappedDocs {
 public:
  explicit MappedDocs(const std::string& path) : path_(path) {
    const UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
    mapped_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    EXPECT_NE(mapped_, MAP_FAILED);
  }
  ~MappedDocs() { munmap(mapped_, kBytes); }
  MappedDocs(const MappedDocs&) = delete;
  MappedDocs& operator=(const MappedDocs&) = delete;

  // The first page's values, all of them, at a time that has another stamp than the file.
  void Write(float value) {
    const int64_t stamp = StatFileVersion(path_)->ctime_ns;
    timespec now;
    do {
      clock_gettime(CLOCK_REALTIME_COARSE, &now);
    } while (now.tv_sec * 1'000'000'000 + now.tv_nsec <= stamp);
    auto* const values = static_cast<volatile float*>(mapped_);
    for (size_t i = kHeader; i < 1024; ++i) values[i] = i % 8 == 0 ? value : 0;
  }

 private:
  static constexpr size_t kHeader = 32;  // 128 bytes, in floats
  static constexpr size_t kBytes = (kHeader + 400 * 8) * sizeof(float);
  const std::string path_;
  void* mapped_ = nullptr;
};

TEST_F(WarmRunnerTest, AJobGivesWhatRunJobGives) {
  const WorkerFinished finished = RunRight();
  EXPECT_EQ(finished.job, 7);
  EXPECT_EQ(finished.error, "");
  EXPECT_EQ(finished.output_path, folder_ + "/out.pkl");
  EXPECT_EQ(finished.device, "cpu");
  EXPECT_EQ(finished.docs, "cold");
  EXPECT_GT(finished.search_seconds, 0);
  EXPECT_GE(finished.total_seconds, finished.search_seconds);
  const nlohmann::json report = nlohmann::json::parse(finished.report_json);
  EXPECT_EQ(report["queries"], 50);
  EXPECT_EQ(report["output_path"], folder_ + "/out.pkl");
  EXPECT_GT(listener_.reports, 0);
  EXPECT_THAT(listener_.lines, Contains("queries       q.npy [50, 8] float32"));
  EXPECT_THAT(listener_.lines, Contains(StartsWith("memory        ")));
  EXPECT_THAT(listener_.lines, Contains("docs are      cold"));
}

TEST_F(WarmRunnerTest, NotesOfTheJobAreInItsLog) {
  run_.spec.k.reset();
  run_.spec.verify_queries = 2;
  run_.spec.output_path.clear();
  const WorkerFinished finished = RunRight();
  EXPECT_EQ(finished.output_path, folder_ + "/top400_q_x_d.pkl");
  EXPECT_THAT(listener_.lines,
              Contains("note: k=400: fewer docs than the default k=2000; --k sets another"));
  EXPECT_THAT(listener_.lines, Contains(HasSubstr("note: verified 2 of 50 queries")));
}

TEST_F(WarmRunnerTest, TheSecondJobIsWarmAndGivesTheSame) {
  EXPECT_EQ(RunRight().docs, "cold");
  const WorkerFinished second = RunRight();
  EXPECT_EQ(second.docs, "warm");
  EXPECT_THAT(listener_.lines, Contains("docs are      warm"));
  ASSERT_EQ(second.warm_docs.size(), 1u);
  EXPECT_EQ(second.warm_docs[0].docs_path, folder_ + "/d.npy");
  EXPECT_EQ(second.warm_docs[0].dtype, "float32");
  EXPECT_EQ(second.warm_docs[0].metric, "ip");
  EXPECT_GE(second.warm_docs[0].bytes, 400 * 8 * 4);
  run_.spec.queries_path = std::string("e.npy");
  run_.spec.k = 400;
  EXPECT_EQ(RunRight().docs, "warm") << "other queries, another k";
  run_.spec.queries_path = std::string("d.npy");
  run_.spec.k = 3;
  run_.spec.exclude_self = true;
  EXPECT_EQ(RunRight().docs, "warm");
}

TEST_F(WarmRunnerTest, AnotherQuestionAboutTheDocsIsCold) {
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.metric = Metric::kCosine;
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.compute_dtype = DType::kFloat16;
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.docs_path = std::string("e.npy");
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().docs, "warm");
  run_.spec.docs_path = std::string("d.npy");
  run_.spec.metric = Metric::kInnerProduct;
  run_.spec.compute_dtype = DType::kFloat32;
  EXPECT_EQ(RunRight().docs, "warm") << "the first one is still there";
}

TEST_F(WarmRunnerTest, DocsChangedInPlaceAreReadAgainWhateverTheirMtime) {
  const std::string docs = folder_ + "/d.npy";
  EXPECT_EQ(RunRight().docs, "cold");
  struct stat before;
  ASSERT_EQ(stat(docs.c_str(), &before), 0);
  WriteNpy(docs, 400, RandomValues(400 * 8, 4));
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, docs.c_str(), times, 0), 0);
  const WorkerFinished changed = RunRight();
  EXPECT_EQ(changed.docs, "cold");
  EXPECT_EQ(changed.warm_docs.size(), 1u) << "the old version is gone";
  EXPECT_EQ(RunRight().docs, "warm");
}

TEST_F(WarmRunnerTest, ReplacedDocsAreReadAgain) {
  EXPECT_EQ(RunRight().docs, "cold");
  fs::rename(folder_ + "/e.npy", folder_ + "/d.npy");
  const WorkerFinished replaced = RunRight();
  EXPECT_EQ(replaced.docs, "cold");
  EXPECT_EQ(replaced.warm_docs.size(), 1u) << "the old file is gone";
}

TEST_F(WarmRunnerTest, DocsWrittenAgainOnADirtyMappedPageAreReadAgain) {
  if (IsOnTmpfs(folder_)) {
    GTEST_SKIP() << "NOT RUN: runs where TEST_TMPDIR is on a disk; it is on tmpfs: " << folder_;
  }
  MappedDocs docs(folder_ + "/d.npy");
  docs.Write(1);  // the page is dirty
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().docs, "warm");
  docs.Write(-1);
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_EQ(RunRight().docs, "warm");
  run_.spec.metric = Metric::kCosine;
  EXPECT_EQ(RunRight().docs, "cold");
  docs.Write(1);
  EXPECT_EQ(RunRight().docs, "cold") << "the second fill of one version";
}

TEST_F(WarmRunnerTest, DocsOnAFileSystemInMemoryAreNeverKept) {
  std::string folder = "/dev/shm/warm_runner_test.XXXXXX";
  if (!IsOnTmpfs("/dev/shm") || mkdtemp(folder.data()) == nullptr) {
    GTEST_SKIP() << "NOT RUN: runs where /dev/shm is a tmpfs that can be written to";
  }
  run_.spec.docs_path = folder + "/d.npy";
  fs::copy_file(folder_ + "/d.npy", run_.spec.docs_path);
  {
    MappedDocs docs(run_.spec.docs_path);
    for (const float value : {1.0F, -1.0F}) {
      docs.Write(value);
      const WorkerFinished finished = RunRight();
      EXPECT_EQ(finished.docs, "cold");
      EXPECT_THAT(finished.warm_docs, IsEmpty());
      EXPECT_THAT(listener_.lines, Contains("docs are      cold (kept in memory only from a file "
                                            "system with a disk)"));
    }
  }
  fs::remove_all(folder);
}

TEST_F(WarmRunnerTest, DocsChangedAMomentAgoAreNotKept) {
  now_ns_ = StatFileVersion(folder_ + "/d.npy")->ctime_ns + 1;
  EXPECT_THAT(RunRight().warm_docs, IsEmpty());
  EXPECT_EQ(RunRight().docs, "cold");
}

TEST_F(WarmRunnerTest, TheBudgetHoldsTheSearchAndAllThatIsKept) {
  const auto [plan, warm] = PlanAndWarmBytes();
  run_.most_memory_bytes = plan + 2 * warm;
  EXPECT_EQ(RunRight().docs, "cold");
  run_.spec.docs_path = std::string("e.npy");
  EXPECT_THAT(Names(RunRight().warm_docs), ElementsAre("e.npy", "d.npy"));
  --run_.most_memory_bytes;
  EXPECT_THAT(Names(RunRight().warm_docs), ElementsAre("e.npy")) << "the least recently used went";
  run_.spec.docs_path = std::string("d.npy");
  EXPECT_THAT(Names(RunRight().warm_docs), ElementsAre("d.npy"));
  // Too little for any: the search alone has what it needs.
  run_.most_memory_bytes = plan;
  const WorkerFinished alone = RunRight();
  EXPECT_EQ(alone.docs, "cold");
  EXPECT_THAT(alone.warm_docs, IsEmpty());
}

TEST_F(WarmRunnerTest, AJobThatKeepsNothingMakesRoomToo) {
  const auto [plan, warm] = PlanAndWarmBytes();
  EXPECT_EQ(RunRight().warm_docs.size(), 1u);
  now_ns_ = 0;  // no file has settled
  run_.most_memory_bytes = plan + warm - 1;
  run_.spec.docs_path = std::string("e.npy");
  EXPECT_THAT(RunRight().warm_docs, IsEmpty());
}

TEST_F(WarmRunnerTest, LargeBatchesGiveWayToWarmDocs) {
  WriteNpy(folder_ + "/q.npy", 3000, RandomValues(3000 * 8, 5));
  const auto [plan, warm] = PlanAndWarmBytes();
  run_.most_memory_bytes = plan + warm - 1;
  EXPECT_EQ(RunRight().docs, "cold");
  EXPECT_THAT(listener_.lines, Contains(StartsWith("batches       2 of up to ")));
  EXPECT_EQ(RunRight().docs, "warm");
}

TEST_F(WarmRunnerTest, BadInputHasTheCodeAndTheMessageOfRun) {
  const JobSpec good = run_.spec;
  const auto refused = [&] {
    const WorkerFinished finished = Run();
    run_.spec = good;
    EXPECT_EQ(finished.report_json, "");
    EXPECT_EQ(finished.docs, "");
    EXPECT_EQ(finished.error.find('\n'), std::string::npos);
    return std::pair(finished.error_code, finished.error);
  };
  run_.spec.docs_path = std::string("no\nne.npy");
  EXPECT_EQ(refused(), std::pair(std::string("not_found"),
                                 std::string("no\\x0ane.npy: cannot open, expected an .npy file: "
                                             "No such file or directory")));
  run_.spec.k = 401;
  EXPECT_EQ(refused(), std::pair(std::string("invalid_argument"),
                                 std::string("k=401 exceeds the number of docs D=400 in d.npy")));
  fs::copy_file(folder_ + "/d.npy", folder_ + "/short.npy");
  fs::resize_file(folder_ + "/short.npy", 1000);
  run_.spec.docs_path = std::string("short.npy");
  const auto [code, error] = refused();
  EXPECT_EQ(code, "invalid_argument") << "data_loss on opening";
  EXPECT_THAT(error, StartsWith("short.npy: "));
  run_.spec.device = std::string("cuda:x");
  EXPECT_EQ(refused().first, "invalid_argument");
  EXPECT_FALSE(fs::exists(folder_ + "/out.pkl"));
  EXPECT_EQ(RunRight().error_code, "ok");
}

TEST_F(WarmRunnerTest, OutputThatCannotBeWrittenIsSaidWithItsPath) {
  run_.spec.output_path = std::string("none/out.pkl");
  const WorkerFinished finished = Run();
  EXPECT_EQ(finished.error_code, "not_found");
  EXPECT_THAT(finished.error, StartsWith(folder_ + "/none/out.pkl: "));
  EXPECT_THAT(finished.warm_docs, IsEmpty()) << "nothing has filled them";
}

TEST_F(WarmRunnerTest, LackOfMemoryFailsTheJobAndFreesWhatIsKept) {
  EXPECT_EQ(RunRight().warm_docs.size(), 1u);
  run_.spec.device = std::string("cuda:8");
  const WorkerFinished finished = Run();
  EXPECT_EQ(finished.error_code, "resource_exhausted");
  EXPECT_THAT(finished.error, HasSubstr("out of memory"));
  EXPECT_THAT(finished.warm_docs, IsEmpty());
  run_.spec.device = std::string("auto");
  EXPECT_EQ(RunRight().docs, "cold");
}

TEST_F(WarmRunnerTest, ACancelledJobWritesNothingAndKeepsNothing) {
  listener_.cancel = true;
  WorkerFinished finished = Run();
  EXPECT_EQ(finished.error_code, "cancelled");
  EXPECT_EQ(finished.error, "cancelled; nothing was written");
  EXPECT_THAT(opened_, IsEmpty()) << "not even begun";

  // Cancelled once it searches.
  class LateCancel : public RecordingListener {
   public:
    bool cancelled() const override { return reports > 0; }
  } late;
  run_.spec.device = std::string("cuda:7");
  finished = runner_->Run(run_, late);
  EXPECT_EQ(finished.error_code, "cancelled");
  EXPECT_THAT(finished.warm_docs, IsEmpty());
  for (const auto& entry : fs::directory_iterator(folder_)) {
    EXPECT_EQ(entry.path().extension(), ".npy") << entry.path();
  }
}

TEST_F(WarmRunnerTest, LimitsOfTheDaemonNarrowThoseOfTheJob) {
  run_.spec.threads = 3;
  run_.most_threads = 2;
  RunRight();
  EXPECT_THAT(listener_.lines, Contains(HasSubstr(", 2 threads")));
  run_.spec.threads = 1;
  RunRight();
  EXPECT_THAT(listener_.lines, Contains(HasSubstr(", 1 threads")));
  run_.spec.memory_limit_bytes = kGiB;
  run_.most_memory_bytes = 1000;
  WorkerFinished finished = Run();
  EXPECT_EQ(finished.error_code, "invalid_argument");
  EXPECT_THAT(finished.error, HasSubstr("a memory limit of 1.0 KiB is too little"));
  run_.most_memory_bytes = kGiB;
  run_.spec.memory_limit_bytes = 1000;
  EXPECT_EQ(Run().error_code, "invalid_argument");
}

TEST_F(WarmRunnerTest, TheDeviceOfTheDaemonIsTheOnlyOneBesideTheCpu) {
  struct Case {
    std::string daemon, job, opened;  // empty: refused
  };
  const std::vector<Case> cases = {
      {"auto", "auto", "auto"},     {"auto", "cpu", "cpu"},       {"auto", "cuda:7", "cuda:7"},
      {"cpu", "auto", "cpu"},       {"cpu", "cpu", "cpu"},        {"cpu", "cuda", ""},
      {"cpu", "cuda:7", ""},        {"cuda:8", "auto", "cuda:8"}, {"cuda:8", "cuda", "cuda:8"},
      {"cuda:8", "cuda:7", ""},     {"cuda:8", "cpu", "cpu"},     {"cuda", "auto", "cuda:0"},
      {"cuda", "cuda:0", "cuda:0"}, {"cuda:0", "cuda", "cuda:0"}, {"cuda", "cuda:1", ""},
  };
  // Not searched: which engine is opened is the question.
  options_.open_engine = [this](const EngineOptions& options) -> absl::StatusOr<OpenedEngine> {
    opened_.push_back(options.device);
    return absl::UnavailableError("not in this test");
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.daemon + " " + one.job);
    options_.device = one.daemon;
    Restart();
    opened_.clear();
    run_.spec.device = one.job;
    const WorkerFinished finished = Run();
    if (one.opened.empty()) {
      EXPECT_EQ(finished.error_code, "invalid_argument");
      EXPECT_THAT(finished.error, HasSubstr("this daemon uses " + one.daemon + " only"));
      EXPECT_THAT(opened_, IsEmpty());
    } else {
      EXPECT_EQ(finished.error_code, "invalid_argument");
      EXPECT_THAT(finished.error, HasSubstr("not in this test"));
      EXPECT_THAT(opened_, ElementsAre(one.opened));
    }
  }
}

TEST_F(WarmRunnerTest, EnginesAreOpenedOnce) {
  RunRight();
  RunRight();
  EXPECT_THAT(listener_.lines, Contains("note: no CUDA device: using the CPU"));
  run_.spec.device = std::string("cpu");
  EXPECT_EQ(RunRight().docs, "warm") << "auto is the CPU here";
  EXPECT_THAT(listener_.lines, testing::Not(Contains(StartsWith("note: no CUDA"))));
  EXPECT_THAT(opened_, ElementsAre("auto"));
  run_.spec.gpu_memory_bytes = 1;
  EXPECT_EQ(RunRight().docs, "warm") << "means nothing to the CPU";
  EXPECT_THAT(opened_, ElementsAre("auto"));
  run_.spec.device = std::string("cuda:8");
  Run();
  Run();
  run_.spec.gpu_memory_bytes = 2;
  Run();
  EXPECT_THAT(opened_, ElementsAre("auto", "cuda:8", "cuda:8"));
}

TEST_F(WarmRunnerTest, TheUmaskOfWhoSubmittedDecidesTheMode) {
  const mode_t own = umask(022);
  umask(own);
  const auto mode = [&] {
    struct stat found;
    EXPECT_EQ(stat(RunRight().output_path.c_str(), &found), 0);
    return found.st_mode & 0777;
  };
  run_.spec.umask = 077;
  EXPECT_EQ(mode(), 0600u);
  run_.spec.umask = 002;
  EXPECT_EQ(mode(), 0664u);
  run_.spec.umask.reset();
  EXPECT_EQ(mode(), 0666u & ~own);
}

TEST_F(WarmRunnerTest, NamesCannotBreakLinesOfTheLog) {
  fs::rename(folder_ + "/q.npy", folder_ + "/q\n\x1b[2J.npy");
  run_.spec.queries_path = "q\n\x1b[2J.npy";
  RunRight();
  EXPECT_THAT(listener_.lines, Contains("queries       q\\x0a\\x1b[2J.npy [50, 8] float32"));
}

}  // namespace
}  // namespace tiny_knn
