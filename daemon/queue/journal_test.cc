#include "daemon/queue/journal.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "daemon/queue/journal_for_test.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using Jobs = std::vector<std::string>;  // described

std::unique_ptr<Journal> Opened(const std::string& folder) {
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
  EXPECT_TRUE(journal.ok()) << journal.status();
  return journal.ok() ? *std::move(journal) : nullptr;
}

Jobs Loaded(Journal& journal) {
  const absl::StatusOr<std::vector<Job>> jobs = journal.Load();
  EXPECT_TRUE(jobs.ok()) << jobs.status();
  Jobs described;
  if (!jobs.ok()) return described;
  for (const Job& job : *jobs) described.push_back(Describe(job));
  return described;
}

Job QueuedJob(int64_t id) {
  Job job;
  job.id = id;
  job.uid = 1000;
  job.key = fmt::format("key-{}", id);
  job.spec_json = R"({"queries":"q.npy"})";
  job.submitted_at = 1.75e9 + static_cast<double>(id);
  return job;
}

// A finished job without a default anywhere.
Job FullJob(int64_t id) {
  Job job = QueuedJob(id);
  job.priority = -100;
  job.timeout_seconds = 3600;
  job.shape = {
      .num_queries = 10, .num_docs = int64_t{1} << 40, .dim = 768, .k = 5, .docs_bytes = 7};
  job.queries_path = "q\n\xff.npy";  // any bytes
  job.docs_path = std::string("d\0d.npy", 7);
  job.output_path = "/tmp/ü.pkl";
  job.state = JobState::kFailed;
  job.attempt = 3;
  job.crashes = 2;
  job.started_at = 1.75e9 + 0.125;
  job.finished_at = 1.75e9 + 1.0 / 3;
  job.ran_seconds = 0.1;
  job.error_code = "internal";
  job.error = "'; DROP TABLE jobs; --";
  job.device = "cuda";
  job.docs = "warm";
  job.report_json = R"({"a":1})";
  job.search_seconds = 1e-9;
  job.leftover_attempt = 3;
  return job;
}

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void SetBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

mode_t ModeOf(const std::string& path) {
  struct stat found;
  return lstat(path.c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
}

// As an SQL shell would.
void RunSql(const std::string& path, const std::string& sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_free(error);
  sqlite3_close(database);
}

TEST(JournalTest, GivesBackEveryFieldAfterReopening) {
  const std::string folder = PrivateFolder("state");
  const Job full = FullJob(4);
  Job changed = QueuedJob(7);
  {
    const std::unique_ptr<Journal> journal = Opened(folder);
    EXPECT_TRUE(Loaded(*journal).empty());
    ASSERT_TRUE(
        journal->Write({InsertJob{full}, InsertJob{changed}, InsertJob{QueuedJob(9)}}).ok());
    changed.state = JobState::kRunning;
    changed.attempt = 1;
    changed.started_at = 5.5;
    changed.output_path = "/other";
    changed.leftover_attempt = 1;
    ASSERT_TRUE(journal->Write({UpdateJob{changed}, DeleteJob{9}}).ok());
    EXPECT_EQ(Loaded(*journal), Jobs({Describe(full), Describe(changed)}));
  }
  const std::unique_ptr<Journal> journal = Opened(folder);
  EXPECT_EQ(Loaded(*journal), Jobs({Describe(full), Describe(changed)}));
}

TEST(JournalTest, KeepsNumbersThatAreNoneAsZero) {
  const std::unique_ptr<Journal> journal = Opened(PrivateFolder("state"));
  Job job = QueuedJob(1);
  job.search_seconds = std::nan("");
  job.submitted_at = std::numeric_limits<double>::infinity();
  job.ran_seconds = -std::numeric_limits<double>::infinity();
  ASSERT_TRUE(journal->Write({InsertJob{job}}).ok());
  job.search_seconds = job.submitted_at = 0;
  job.ran_seconds = 0;
  EXPECT_EQ(Loaded(*journal), Jobs({Describe(job)}));
  EXPECT_EQ(journal->health(), JournalHealth::kOk);
}

TEST(JournalTest, NeverGivesAnIdTwice) {
  const std::string folder = PrivateFolder("state");
  {
    const std::unique_ptr<Journal> journal = Opened(folder);
    EXPECT_EQ(journal->next_id(), 1);
    ASSERT_TRUE(journal->Write({InsertJob{QueuedJob(1)}, InsertJob{QueuedJob(41)}}).ok());
    EXPECT_EQ(journal->next_id(), 42);
    ASSERT_TRUE(journal->Write({DeleteJob{41}}).ok());
    EXPECT_EQ(journal->next_id(), 42);
  }
  EXPECT_EQ(Opened(folder)->next_id(), 42);
}

TEST(JournalTest, HasATagOfItsOwnForLife) {
  const std::string folder = PrivateFolder("state");
  const std::string tag = Opened(folder)->tag();
  EXPECT_EQ(tag.size(), 8u);
  EXPECT_EQ(tag.find_first_not_of("0123456789abcdef"), std::string::npos) << tag;
  EXPECT_EQ(Opened(folder)->tag(), tag);
  EXPECT_NE(Opened(PrivateFolder("other"))->tag(), tag);
}

TEST(JournalTest, KeepsItsFilesFromOthersWhateverTheUmask) {
  for (const mode_t mask : {0, 0022, 0777}) {
    const std::string folder = PrivateFolder("state");
    const mode_t before = umask(mask);
    const std::unique_ptr<Journal> journal = Opened(folder);
    ASSERT_TRUE(journal->Write({InsertJob{QueuedJob(1)}}).ok());
    umask(before);
    for (const char* name : {"journal.db", "journal.db-wal", "reserve"}) {
      EXPECT_EQ(ModeOf(folder + "/" + name), 0600u) << name << " umask " << mask;
    }
    EXPECT_FALSE(fs::exists(folder + "/journal.db-shm"));
  }
}

TEST(JournalTest, TakesBackWhatWasOpenedToOthers) {
  const std::string folder = PrivateFolder("state");
  Opened(folder).reset();
  chmod((folder + "/journal.db").c_str(), 0644);
  const std::unique_ptr<Journal> journal = Opened(folder);
  EXPECT_EQ(ModeOf(folder + "/journal.db"), 0600u);
}

TEST(JournalTest, HoldsAReserveThatIsReallyAllocated) {
  const std::string folder = PrivateFolder("state");
  const std::unique_ptr<Journal> journal = Opened(folder);
  struct stat found;
  ASSERT_EQ(stat((folder + "/reserve").c_str(), &found), 0);
  EXPECT_EQ(found.st_size, 4 << 20);
  EXPECT_GE(found.st_blocks * 512, 4 << 20);
}

TEST(JournalTest, RefusesAFolderThatIsNotItsUsersAlone) {
  const std::string folder = PrivateFolder("state");
  chmod(folder.c_str(), 0710);
  absl::Status status = Journal::Open(folder).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(status.message().find("chmod 700 '" + folder + "'"), std::string_view::npos) << status;
  EXPECT_FALSE(fs::exists(folder + "/journal.db"));
  EXPECT_EQ(Journal::Open(folder + "/missing").status().code(), absl::StatusCode::kNotFound);
  SetBytes(folder + "/file", "");
  EXPECT_EQ(Journal::Open(folder + "/file").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST(JournalTest, RefusesAnotherUsersFolder) {
  const std::string folder = PrivateFolder("state");
  if (geteuid() != 0 || chown(folder.c_str(), 12345, 12345) != 0) {
    GTEST_SKIP() << "NOT RUN: runs as root, who can give a folder away";
  }
  EXPECT_EQ(Journal::Open(folder).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST(JournalTest, RefusesADatabaseThatIsALink) {
  const std::string folder = PrivateFolder("state");
  SetBytes(folder + "/elsewhere", "");
  fs::create_symlink(folder + "/elsewhere", folder + "/journal.db");
  EXPECT_EQ(Journal::Open(folder).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Bytes(folder + "/elsewhere"), "");
}

TEST(JournalTest, IsOneProcessesAlone) {
  const std::string folder = PrivateFolder("state");
  const std::unique_ptr<Journal> journal = Opened(folder);
  const absl::Status here = Journal::Open(folder).status();
  EXPECT_EQ(here.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(here.message().find("another process holds it"), std::string_view::npos) << here;
  // In another process, by the locks of the file: also after the attempt above.
  const pid_t child = fork();
  if (child == 0) {
    _exit(Journal::Open(folder).status().code() == absl::StatusCode::kFailedPrecondition ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(journal->Write({InsertJob{QueuedJob(1)}}).ok());
}

TEST(JournalTest, RefusesWhatItDidNotWriteOrDoesNotKnowYet) {
  const std::string folder = PrivateFolder("state");
  RunSql(folder + "/journal.db", "CREATE TABLE photos (name TEXT)");
  absl::Status status = Journal::Open(folder).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("another program's database"), std::string_view::npos) << status;
  fs::remove(folder + "/journal.db");
  Opened(folder).reset();
  RunSql(folder + "/journal.db", "PRAGMA user_version = 2");
  status = Journal::Open(folder).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("has schema version 2, this program knows up to 1"),
            std::string_view::npos)
      << status;
}

TEST(JournalTest, RefusesGarbageWithAdvice) {
  for (const size_t size : {size_t{1}, size_t{99}, size_t{512}, size_t{20000}}) {
    const std::string folder = PrivateFolder("state");
    SetBytes(folder + "/journal.db", std::string(size, 'x'));
    const absl::Status status = Journal::Open(folder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << size << ": " << status;
    EXPECT_NE(status.message().find("move it away"), std::string_view::npos) << status;
    EXPECT_TRUE(Bytes(folder + "/journal.db") == std::string(size, 'x'));
  }
}

TEST(JournalTest, DoesNotTakeAFileThatWasEmptiedForANewOne) {
  const std::string folder = PrivateFolder("state");
  {
    const std::unique_ptr<Journal> journal = Opened(folder);
    ASSERT_TRUE(journal->Write({InsertJob{FullJob(1)}}).ok());
  }
  SetBytes(folder + "/journal.db", "");
  EXPECT_EQ(Journal::Open(folder).status().code(), absl::StatusCode::kDataLoss);
  // Moved away, as the message says.
  fs::remove(folder + "/journal.db");
  EXPECT_TRUE(Loaded(*Opened(folder)).empty());
  // What a crash leaves that came before anything was written.
  const std::string fresh = PrivateFolder("fresh");
  SetBytes(fresh + "/journal.db", "");
  EXPECT_TRUE(Loaded(*Opened(fresh)).empty());
}

TEST(JournalTest, SurvivesAnyDamage) {
  const std::string whole = PrivateFolder("whole");
  {
    const std::unique_ptr<Journal> journal = Opened(whole);
    std::vector<JournalChange> changes;
    for (int64_t id = 1; id <= 40; ++id) changes.emplace_back(InsertJob{FullJob(id)});
    ASSERT_TRUE(journal->Write(changes).ok());
  }
  const std::string bytes = Bytes(whole + "/journal.db");
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 150; ++round) {
    const std::string folder = PrivateFolder("state");
    std::string damaged = bytes;
    switch (round % 3) {
      case 0:
        damaged.resize(random() % damaged.size());
        break;
      case 1:
        for (int i = 0; i < 20; ++i) {
          damaged[random() % damaged.size()] = static_cast<char>(random());
        }
        break;
      default:  // a page of zeros
        damaged.replace(random() % (damaged.size() / 4096) * 4096, 4096, 4096, '\0');
    }
    SetBytes(folder + "/journal.db", damaged);
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
    const absl::Status status = journal.ok() ? (*journal)->Load().status() : journal.status();
    if (status.ok()) continue;  // a byte of some text
    ++refused;
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsFailedPrecondition(status)) << status;
    EXPECT_EQ(status.message().find('\n'), std::string_view::npos) << status;
  }
  EXPECT_GT(refused, 75);
}

TEST(JournalTest, RefusesRowsThatAreNoJobs) {
  for (const char* damage : {"UPDATE jobs SET state = 'asleep'", "UPDATE jobs SET id = -1",
                             "DELETE FROM meta", "UPDATE meta SET value = '../../etc'",
                             "UPDATE sqlite_sequence SET seq = 9223372036854775807"}) {
    const std::string folder = PrivateFolder("state");
    {
      const std::unique_ptr<Journal> journal = Opened(folder);
      ASSERT_TRUE(journal->Write({InsertJob{FullJob(1)}}).ok());
    }
    RunSql(folder + "/journal.db", fmt::format("PRAGMA ignore_check_constraints = 1; {}", damage));
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
    const absl::Status status = journal.ok() ? (*journal)->Load().status() : journal.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << damage << ": " << status;
    EXPECT_NE(status.message().find("move it away"), std::string_view::npos) << status;
  }
}

TEST(JournalTest, IgnoresALogThatIsGarbage) {
  const std::string folder = PrivateFolder("state");
  {
    const std::unique_ptr<Journal> journal = Opened(folder);
    ASSERT_TRUE(journal->Write({InsertJob{FullJob(1)}}).ok());
  }
  SetBytes(folder + "/journal.db-wal", std::string(100000, 'x'));
  const std::unique_ptr<Journal> journal = Opened(folder);
  EXPECT_EQ(Loaded(*journal), Jobs({Describe(FullJob(1))}));
  EXPECT_TRUE(journal->Write({InsertJob{FullJob(2)}}).ok());
}

TEST(JournalTest, KeepsItsLogShort) {
  const std::string folder = PrivateFolder("state");
  const std::unique_ptr<Journal> journal = Opened(folder);
  Job job = FullJob(1);
  ASSERT_TRUE(journal->Write({InsertJob{job}}).ok());
  for (int i = 0; i < 1500; ++i) {
    job.error = std::string(3000, static_cast<char>('a' + i % 26));
    ASSERT_TRUE(journal->Write({UpdateJob{job}}).ok());
  }
  EXPECT_LT(fs::file_size(folder + "/journal.db-wal"), 6u << 20);
  EXPECT_LT(fs::file_size(folder + "/journal.db"), 1u << 20);
}

TEST(JournalTest, WritesAllOfATransactionOrNothing) {
  const std::string folder = PrivateFolder("state");
  {
    const std::unique_ptr<Journal> journal = Opened(folder);
    ASSERT_TRUE(journal->Write({InsertJob{FullJob(1)}}).ok());
    // A job that is not there: memory and disk have parted, which nothing mends.
    const absl::Status status = journal->Write({InsertJob{FullJob(2)}, UpdateJob{FullJob(3)}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_EQ(journal->health(), JournalHealth::kFailed);
    EXPECT_EQ(journal->Write({InsertJob{FullJob(4)}}), status);
  }
  EXPECT_EQ(Loaded(*Opened(folder)), Jobs({Describe(FullJob(1))}));
}

TEST(JournalTest, RefusesAKeyGivenTwice) {
  const std::unique_ptr<Journal> journal = Opened(PrivateFolder("state"));
  Job again = FullJob(2);
  again.key = FullJob(1).key;
  EXPECT_FALSE(journal->Write({InsertJob{FullJob(1)}, InsertJob{again}}).ok());
}

}  // namespace
}  // namespace tiny_knn
