// The journal on a disk that fails: every call of SQLite's file system in turn, in every way.
#include <sqlite3.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/queue/failing_vfs_for_test.h"
#include "daemon/queue/journal.h"
#include "daemon/queue/journal_for_test.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using Jobs = std::vector<std::string>;  // described

Job QueuedJob(int64_t id) {
  Job job;
  job.id = id;
  job.uid = 1000;
  job.key = fmt::format("key-{}", id);
  job.spec_json = std::string(3000, 's');  // more than one page a transaction
  job.submitted_at = static_cast<double>(id);
  return job;
}

// What is in the journal that `files` are, opened by a process that comes later.
std::optional<Jobs> After(const FailingVfs::Files& files) {
  const std::string folder = PrivateFolder("after");
  FailingVfs::WriteInto(files, folder);
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
  EXPECT_TRUE(journal.ok()) << journal.status();
  if (!journal.ok()) return std::nullopt;
  const absl::StatusOr<std::vector<Job>> jobs = (*journal)->Load();
  EXPECT_TRUE(jobs.ok()) << jobs.status();
  if (!jobs.ok()) return std::nullopt;
  Jobs described;
  for (const Job& job : *jobs) described.push_back(Describe(job));
  return described;
}

// A run of transactions, each with what the journal holds after it.
struct Step {
  std::vector<JournalChange> changes;
  Jobs after;
};
std::vector<Step> Steps() {
  std::vector<Step> steps;
  Job one = QueuedJob(1);
  Job two = QueuedJob(2);
  steps.push_back({{InsertJob{one}, InsertJob{two}}, {Describe(one), Describe(two)}});
  one.state = JobState::kRunning;
  one.attempt = 1;
  steps.push_back({{UpdateJob{one}}, {Describe(one), Describe(two)}});
  one.state = JobState::kDone;
  const Job three = QueuedJob(3);
  steps.push_back(
      {{UpdateJob{one}, InsertJob{three}}, {Describe(one), Describe(two), Describe(three)}});
  steps.push_back({{DeleteJob{1}}, {Describe(two), Describe(three)}});
  return steps;
}

struct Kind {
  std::string name;
  VfsFault fault;
  bool no_space = false;
  bool (*applies)(VfsCall call) = nullptr;
};

std::vector<Kind> Kinds() {
  const auto write = [](VfsCall call) { return call == VfsCall::kWrite; };
  const auto sync = [](VfsCall call) { return call == VfsCall::kSync; };
  const auto read = [](VfsCall call) { return call == VfsCall::kRead; };
  const auto grow = [](VfsCall call) { return call == VfsCall::kWrite || call == VfsCall::kOpen; };
  return {
      {"EIO on writing", {SQLITE_IOERR_WRITE, EIO, false}, false, write},
      {"EIO after half a write", {SQLITE_IOERR_WRITE, EIO, true}, false, write},
      {"EIO on syncing", {SQLITE_IOERR_FSYNC, EIO, false}, false, sync},
      {"no space on syncing", {SQLITE_IOERR_FSYNC, ENOSPC, false}, false, sync},
      {"EIO on reading", {SQLITE_IOERR_READ, EIO, false}, false, read},
      {"no space", {SQLITE_FULL, 0, false}, true, write},
      {"no space after half a write", {SQLITE_FULL, 0, true}, true, write},
      {"no space by errno", {SQLITE_IOERR_WRITE, ENOSPC, true}, true, write},
      {"no quota", {SQLITE_IOERR_WRITE, EDQUOT, false}, true, write},
      {"no space for files, either", {SQLITE_CANTOPEN, ENOSPC, false}, true, grow},
  };
}

// Opens a journal and takes the steps while the n-th call of that kind (and, if `all`, each after
// it) fails. Returns false when there was no n-th call.
bool RunWithFault(const Kind& kind, int64_t n, bool all) {
  SCOPED_TRACE(fmt::format("{}: call {}{}", kind.name, n, all ? " and all after it" : ""));
  FailingVfs vfs;
  const std::string folder = PrivateFolder("state");
  int64_t seen = 0;
  vfs.set_hook([&](VfsCall call, const std::string& path) -> std::optional<VfsFault> {
    if (!path.starts_with(folder + "/") || !kind.applies(call)) return std::nullopt;
    ++seen;
    return seen == n || (all && seen > n) ? std::optional(kind.fault) : std::nullopt;
  });
  const std::vector<Step> steps = Steps();
  Jobs acknowledged;
  std::vector<Jobs> possible;  // if it was not
  {
    absl::StatusOr<std::unique_ptr<Journal>> opened = Journal::Open(folder);
    if (!opened.ok()) {
      // While a new file is made, SQLite tells no quota from a broken disk: its first journal is
      // closed by the time one can ask.
      if (kind.fault.code != SQLITE_IOERR_WRITE) {
        EXPECT_EQ(absl::IsResourceExhausted(opened.status()), kind.no_space) << opened.status();
      }
      EXPECT_EQ(opened.status().message().find('\n'), std::string_view::npos);
      EXPECT_NE(opened.status().message().find(folder), std::string_view::npos);
    }
    for (size_t i = 0; opened.ok() && i < steps.size(); ++i) {
      Journal& journal = **opened;
      const absl::Status status = journal.Write(steps[i].changes);
      if (status.ok()) {
        acknowledged = steps[i].after;
        // A commit that is acknowledged survives the power cut of the next moment.
        if (n == 1) {
          EXPECT_EQ(After(vfs.synced(folder)), acknowledged) << "step " << i;
        }
        continue;
      }
      EXPECT_EQ(absl::IsResourceExhausted(status), kind.no_space) << status;
      EXPECT_EQ(journal.health(), kind.no_space ? JournalHealth::kFull : JournalHealth::kFailed);
      if (!kind.no_space) {
        possible.push_back(steps[i].after);
        const int64_t before = vfs.changing_calls();
        EXPECT_EQ(journal.Write(steps[i].changes), status);
        journal.RestoreReserve();
        EXPECT_EQ(journal.health(), JournalHealth::kFailed);
        opened->reset();
        EXPECT_EQ(vfs.changing_calls(), before) << "something was tried again";
      }
      break;
    }
    // As if killed here; and as if the power failed.
    std::vector<FailingVfs::Files> left = {vfs.written(folder), vfs.synced(folder)};
    if (left[0] == left[1]) left.pop_back();
    for (const FailingVfs::Files& files : left) {
      const std::optional<Jobs> found = After(files);
      if (!found) continue;
      bool legal = *found == acknowledged;
      for (const Jobs& jobs : possible) legal = legal || *found == jobs;
      EXPECT_TRUE(legal) << testing::PrintToString(*found);
    }
  }
  return seen >= n;
}

TEST(JournalFaultTest, KeepsEveryPromiseWhicheverCallFails) {
  int64_t runs = 0;
  for (const Kind& kind : Kinds()) {
    for (const bool all : {false, true}) {
      int64_t n = 1;
      while (RunWithFault(kind, n, all) && !HasFailure()) ++n;
      EXPECT_GT(n, 5) << kind.name;
      runs += n;
      if (HasFailure()) return;
    }
  }
  RecordProperty("runs", std::to_string(runs));
}

TEST(JournalFaultTest, SyncsItsLogBeforeItSaysThatItWrote) {
  FailingVfs vfs;
  const std::string folder = PrivateFolder("state");
  std::vector<std::string> log;
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
  ASSERT_TRUE(journal.ok()) << journal.status();
  vfs.set_hook([&](VfsCall call, const std::string& path) -> std::optional<VfsFault> {
    if (call == VfsCall::kWrite) log.push_back("write " + fs::path(path).filename().string());
    if (call == VfsCall::kSync) log.push_back("sync " + fs::path(path).filename().string());
    return std::nullopt;
  });
  for (const Step& step : Steps()) {
    log.clear();
    ASSERT_TRUE((*journal)->Write(step.changes).ok());
    ASSERT_GE(log.size(), 2u);
    EXPECT_EQ(log.back(), "sync journal.db-wal");
    EXPECT_EQ(log[log.size() - 2], "write journal.db-wal");
  }
}

TEST(JournalFaultTest, ACheckpointThatFailsToSyncEndsWritingButLosesNothing) {
  FailingVfs vfs;
  const std::string folder = PrivateFolder("state");
  absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(folder);
  ASSERT_TRUE(journal.ok()) << journal.status();
  vfs.set_hook([&](VfsCall call, const std::string& path) -> std::optional<VfsFault> {
    if (call == VfsCall::kSync && path.ends_with("journal.db")) {
      return VfsFault{.code = SQLITE_IOERR_FSYNC, .error_number = EIO};
    }
    return std::nullopt;
  });
  Jobs expected;
  for (int64_t id = 1; (*journal)->health() == JournalHealth::kOk; ++id) {
    ASSERT_LT(id, 3000);
    ASSERT_TRUE((*journal)->Write({InsertJob{QueuedJob(id)}}).ok());
    expected.push_back(Describe(QueuedJob(id)));
  }
  EXPECT_EQ((*journal)->health(), JournalHealth::kFailed);
  EXPECT_EQ((*journal)->Write({DeleteJob{1}}).code(), absl::StatusCode::kInternal);
  vfs.set_hook(nullptr);
  EXPECT_EQ(After(vfs.synced(folder)), expected);
}

// A disk of `limit` bytes for the database and its log; the reserve takes its own share of it.
FailingVfs::Hook SmallDisk(const FailingVfs& vfs, const std::string& folder, size_t& limit) {
  return [&vfs, folder, &limit](VfsCall call, const std::string&) -> std::optional<VfsFault> {
    if (call != VfsCall::kWrite) return std::nullopt;
    size_t used = fs::exists(folder + "/reserve") ? size_t{4} << 20 : 0;
    for (const auto& [path, content] : vfs.written(folder)) used += content.size();
    return used > limit ? std::optional(VfsFault{.code = SQLITE_FULL}) : std::nullopt;
  };
}

TEST(JournalFaultTest, WritesOnFromTheReserveAndTakesItBackWhenThereIsSpace) {
  FailingVfs vfs;
  size_t limit = 0;
  const std::string folder = PrivateFolder("state");
  absl::StatusOr<std::unique_ptr<Journal>> opened = Journal::Open(folder);
  ASSERT_TRUE(opened.ok()) << opened.status();
  Journal& journal = **opened;
  Job job = QueuedJob(1);
  ASSERT_TRUE(journal.Write({InsertJob{job}}).ok());
  limit = (size_t{4} << 20) + 100'000;
  vfs.set_hook(SmallDisk(vfs, folder, limit));
  int64_t id = 1;
  while (journal.health() == JournalHealth::kOk) {
    ASSERT_TRUE(journal.Write({InsertJob{QueuedJob(++id)}}).ok());
    ASSERT_LT(id, 1000);
  }
  // The last one came from the reserve.
  EXPECT_EQ(journal.health(), JournalHealth::kFull);
  EXPECT_FALSE(fs::exists(folder + "/reserve"));
  // Outcomes go on: thousands of changes that need no new pages.
  for (int i = 0; i < 3000; ++i) {
    job.attempt = i;
    ASSERT_TRUE(journal.Write({UpdateJob{job}}).ok()) << i;
  }
  limit = 0;  // really full
  job.attempt = -1;
  const absl::Status status = journal.Write({UpdateJob{job}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_NE(status.message().find("free some disk space"), std::string_view::npos) << status;
  EXPECT_EQ(journal.health(), JournalHealth::kFull);
  limit = size_t{1} << 30;
  ASSERT_TRUE(journal.Write({UpdateJob{job}}).ok());
  EXPECT_EQ(journal.health(), JournalHealth::kFull);  // until the reserve is back
  journal.RestoreReserve();
  EXPECT_EQ(journal.health(), JournalHealth::kOk);
  EXPECT_EQ(fs::file_size(folder + "/reserve"), 4u << 20);
  EXPECT_EQ(After(vfs.synced(folder))->size(), static_cast<size_t>(id));
}

}  // namespace
}  // namespace tiny_knn
