#include "daemon/queue/job_log.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using std::string_literals::operator""s;

class JobLogTest : public testing::Test {
 protected:
  JobLogTest() {
    root_ = testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directory(root_);
    folder_ = root_ + "/logs";
  }
  JobLogs Opened() {
    absl::StatusOr<JobLogs> logs = JobLogs::Open(folder_);
    EXPECT_TRUE(logs.ok()) << logs.status();
    return *std::move(logs);
  }
  // All of a job's log, read in pieces of at most `most` bytes.
  static std::string All(JobLogs& logs, int64_t job, int64_t most) {
    std::string all;
    int64_t offset = 0;
    while (true) {
      const absl::StatusOr<JobLogs::Piece> piece = logs.Read(job, offset, most);
      EXPECT_TRUE(piece.ok()) << piece.status();
      if (!piece.ok() || piece->text.empty()) return all;
      EXPECT_LE(static_cast<int64_t>(piece->text.size()), most);
      EXPECT_EQ(piece->next_offset, offset + static_cast<int64_t>(piece->text.size()));
      all += piece->text;
      offset = piece->next_offset;
    }
  }
  static std::string Bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::string root_;
  std::string folder_;
};

TEST_F(JobLogTest, GivesBackWholeLinesInPieces) {
  JobLogs logs = Opened();
  logs.Append(7, "one");
  logs.Append(7, "two two");
  logs.Append(8, "other");
  logs.Append(7, "");
  EXPECT_EQ(All(logs, 7, 1000), "one\ntwo two\n\n");
  EXPECT_EQ(All(logs, 7, 9), "one\ntwo two\n\n");
  EXPECT_EQ(All(logs, 7, 1), "one\ntwo two\n\n");  // slowly, but to the end
  const absl::StatusOr<JobLogs::Piece> piece = logs.Read(7, 0, 11);
  ASSERT_TRUE(piece.ok());
  EXPECT_EQ(piece->text, "one\n");
  EXPECT_EQ(piece->next_offset, 4);
  EXPECT_EQ(All(logs, 8, 1000), "other\n");
  EXPECT_EQ(All(logs, 9, 1000), "");
}

TEST_F(JobLogTest, KeepsLinesUntilTheyAreWrittenReadOrTooMany) {
  JobLogs logs = Opened();
  const auto sizes = [this] {
    std::map<std::string, uintmax_t> found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      found[entry.path().filename().string()] = entry.file_size();
    }
    return found;
  };
  logs.Append(1, "one");
  logs.Append(2, "two");
  EXPECT_TRUE(sizes().empty());
  logs.Write();
  EXPECT_EQ(sizes(), (std::map<std::string, uintmax_t>{{"1.log", 4}, {"2.log", 4}}));
  logs.Append(1, "more");
  EXPECT_EQ(All(logs, 1, 1000), "one\nmore\n");
  EXPECT_EQ(sizes()["1.log"], 9u) << "reading has written them";
  logs.Append(1, "gone");
  logs.Remove(1);
  logs.Write();
  EXPECT_EQ(sizes(), (std::map<std::string, uintmax_t>{{"2.log", 4}}));
  int lines = 0;
  for (; lines < 100'000 && sizes()["2.log"] == 4; ++lines) logs.Append(2, std::string(999, 'x'));
  EXPECT_EQ(sizes()["2.log"], 4u + 1000u * static_cast<unsigned>(lines)) << "all, in one go";
  EXPECT_LT(lines, 1000) << "not more memory than that";
  logs.Append(3, "last");
  { const JobLogs ended = std::move(logs); }
  EXPECT_EQ(sizes()["3.log"], 5u) << "and at the end";
}

TEST_F(JobLogTest, ALineWithoutRoomIsLeftOutWholeAndThoseBeforeItStay) {
  JobLogs logs = Opened();
  logs.Append(1, std::string(100, 'a'));
  logs.Append(1, std::string(100, 'b'));
  logs.Append(1, std::string(100, 'c'));
  // A limit on the size of files cuts the write short as a full disk does.
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{.rlim_cur = 250, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  logs.Write();
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(Bytes(folder_ + "/1.log"), std::string(100, 'a') + "\n" + std::string(100, 'b') + "\n");
}

TEST_F(JobLogTest, RefusesOffsetsAndSizesThatCannotBe) {
  JobLogs logs = Opened();
  EXPECT_EQ(logs.Read(1, -1, 10).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(logs.Read(1, 0, 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(logs.Read(1, INT64_MAX, INT64_MAX)->text, "");
}

TEST_F(JobLogTest, ShowsATerminalNothingThatItObeys) {
  JobLogs logs = Opened();
  logs.Append(1, "a\x1b[31m\tb\r\nc"s + '\0' + "d\x7f \xc2\x9b é ü €");
  EXPECT_EQ(All(logs, 1, 1000), "a?[31m?b??c?d? ?? é ü €\n");
}

TEST_F(JobLogTest, EndsAtTheLimitWithALineThatSaysSo) {
  JobLogs logs = Opened();
  const std::string line(999, 'x');
  for (int i = 0; i < 2000; ++i) logs.Append(1, line);
  logs.Append(1, "short");  // would find room, but nothing follows the last line
  logs.Write();
  logs.Append(1, "short");
  logs.Write();
  const std::string all = Bytes(folder_ + "/1.log");
  EXPECT_LE(static_cast<int64_t>(all.size()), kMostLogBytes);
  EXPECT_GT(static_cast<int64_t>(all.size()), kMostLogBytes - 2000);
  EXPECT_TRUE(all.ends_with("x\n... the rest was left out: a log holds at most 1 MiB\n"));
  EXPECT_EQ(All(logs, 1, 4096), all);
}

TEST_F(JobLogTest, CutsALineThatIsTooLong) {
  JobLogs logs = Opened();
  logs.Append(1, std::string(3 << 20, 'y'));
  logs.Append(1, "next");
  const std::string all = All(logs, 1, kMostLogLineBytes);
  EXPECT_EQ(static_cast<int64_t>(all.size()), kMostLogLineBytes + 5);
  EXPECT_TRUE(all.ends_with("yyy...\nnext\n"));
}

TEST_F(JobLogTest, EndsALineThatACrashHasTorn) {
  JobLogs logs = Opened();
  std::ofstream(folder_ + "/1.log") << "whole\nto";
  EXPECT_EQ(All(logs, 1, 1000), "whole\n");
  logs.Append(1, "after");
  EXPECT_EQ(All(logs, 1, 1000), "whole\nto\nafter\n");
}

TEST_F(JobLogTest, TouchesNothingButRegularFiles) {
  JobLogs logs = Opened();
  const std::string secret = root_ + "/secret";
  std::ofstream(secret) << "secret\n";
  fs::create_symlink(secret, folder_ + "/1.log");
  ASSERT_EQ(mkfifo((folder_ + "/2.log").c_str(), 0600), 0);
  fs::create_directory(folder_ + "/3.log");
  for (const int64_t job : {1, 2, 3}) {
    logs.Append(job, "written");
    const absl::StatusOr<JobLogs::Piece> piece = logs.Read(job, 0, 100);
    if (piece.ok()) {
      EXPECT_EQ(piece->text, "");
    }
  }
  EXPECT_EQ(Bytes(secret), "secret\n");
  logs.Remove(1);
  EXPECT_FALSE(fs::is_symlink(folder_ + "/1.log"));
  EXPECT_TRUE(fs::exists(secret));
}

TEST_F(JobLogTest, KeepsFilesFromOthersWhateverTheUmask) {
  for (const mode_t mask : {0, 0077, 0777}) {
    fs::remove_all(folder_);
    const mode_t before = umask(mask);
    JobLogs logs = Opened();
    logs.Append(1, "x");
    logs.Write();
    umask(before);
    struct stat found;
    ASSERT_EQ(stat(folder_.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0700u) << mask;
    ASSERT_EQ(stat((folder_ + "/1.log").c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777, 0600u) << mask;
  }
}

TEST_F(JobLogTest, RefusesAFolderThatIsALinkOrOpenToOthers) {
  fs::create_directory(root_ + "/elsewhere");
  chmod((root_ + "/elsewhere").c_str(), 0700);
  fs::create_directory_symlink(root_ + "/elsewhere", folder_);
  EXPECT_EQ(JobLogs::Open(folder_).status().code(), absl::StatusCode::kPermissionDenied);
  fs::remove(folder_);
  ASSERT_EQ(mkdir(folder_.c_str(), 0700), 0);
  chmod(folder_.c_str(), 0750);
  const absl::Status open = JobLogs::Open(folder_).status();
  EXPECT_EQ(open.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(open.message().find("chmod 700"), std::string_view::npos) << open;
  EXPECT_EQ(JobLogs::Open(root_ + "/missing/logs").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobLogTest, RemovesLogsOfUnknownJobsAndNothingElse) {
  JobLogs logs = Opened();
  for (const int64_t job : {1, 2, 3, 12}) logs.Append(job, "x");
  logs.Write();
  for (const char* name : {"notes.txt", "x1.log", "1x.log", "-4.log", ".log"}) {
    std::ofstream(folder_ + "/" + name) << "keep";
  }
  logs.RemoveUnknown([](int64_t job) { return job == 2; });
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    left.insert(entry.path().filename().string());
  }
  EXPECT_EQ(left,
            (std::set<std::string>{"2.log", "notes.txt", "x1.log", "1x.log", "-4.log", ".log"}));
}

}  // namespace
}  // namespace tiny_knn
