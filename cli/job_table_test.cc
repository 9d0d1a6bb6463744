#include "cli/job_table.h"

#include <sstream>

#include "cli/follow.h"
#include "cli/job_selection.h"
#include "cli/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

JobView Job(int64_t id, JobState state) {
  JobView job;
  job.id = id;
  job.state = state;
  job.shape = {.num_queries = 1000, .num_docs = 20000, .dim = 300, .k = 50, .docs_bytes = 0};
  job.queries_path = "q.npy";
  job.docs_path = "d.npy";
  job.output_path = "/home/ana/top.pkl";
  return job;
}

std::vector<JobRow> Rows() {
  JobRow done{Job(9, JobState::kDone), "ana"};
  done.job.progress = 1;
  done.job.elapsed_seconds = 125;
  JobRow running{Job(10, JobState::kRunning), "bea"};
  running.job.progress = 0.999;
  running.job.elapsed_seconds = 3;
  running.job.eta_seconds = 12.5;
  running.job.reason = "searching";
  JobRow queued{Job(11, JobState::kQueued), "ana"};
  queued.job.priority = -7;
  queued.job.eta_seconds = 90;
  queued.job.reason = "behind 1 job of bea";
  return {done, running, queued};
}

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(JobTable, ShowsEveryColumnWhereThereIsRoom) {
  EXPECT_THAT(
      Lines(FormatJobTable(Rows(), 0)),
      ElementsAre(
          "ID  USER  STATE    PRIO         QxDxDIM   K  PROGRESS  ELAPSED      ETA  REASON",
          " 9  ana   done        0  1000x20000x300  50      100%     2:05        -  "
          "/home/ana/top.pkl",
          "10  bea   running     0  1000x20000x300  50       99%   3.00 s  12.50 s  searching",
          "11  ana   queued     -7  1000x20000x300  50         -        -     1:30  "
          "behind 1 job of bea"));
}

TEST(JobTable, AFailedJobSaysWhy) {
  JobRow failed{Job(3, JobState::kFailed), "ana"};
  failed.job.error = "q.npy: truncated";
  failed.job.reason = "";
  EXPECT_THAT(Lines(FormatJobTable({{failed}}, 0))[1], testing::EndsWith("  q.npy: truncated"));
}

TEST(JobTable, OfSomebodyElsesJobNothingIsMadeUp) {
  JobRow row{JobView{}, "bea"};
  row.job.id = 12;
  row.job.state = JobState::kDone;
  row.job.progress = 1;
  row.job.redacted = true;
  EXPECT_THAT(Lines(FormatJobTable({{row}}, 0))[1],
              testing::MatchesRegex("12  bea   done   +0 +-  - +100% +- +-"));
  EXPECT_THAT(FormatJob(row), Not(HasSubstr("docs")));
}

TEST(JobTable, FitsEveryWidthAndKeepsWhatMatters) {
  for (int width = 1; width < 130; ++width) {
    for (const std::string& line : Lines(FormatJobTable(Rows(), width))) {
      EXPECT_LE(DisplayWidth(line), width);
    }
  }
  const std::string at_80 = FormatJobTable(Rows(), 80);
  EXPECT_THAT(at_80, HasSubstr("behind 1 job of "));
  EXPECT_THAT(at_80, Not(HasSubstr("PRIO")));
  const std::string at_40 = FormatJobTable(Rows(), 40);
  EXPECT_THAT(at_40, HasSubstr("ID"));
  EXPECT_THAT(at_40, HasSubstr("running"));
  EXPECT_THAT(at_40, HasSubstr("behind 1"));
  EXPECT_THAT(at_40, Not(HasSubstr("QxDxDIM")));
}

TEST(JobTable, NamesCannotCommandATerminal) {
  JobRow row{Job(1, JobState::kFailed), "a\x1b[31m"};
  row.job.error = "bad\nname\x1b]0;";
  for (const std::string& text :
       {FormatJobTable({{row}}, 0), FormatJob(row), FormatJobLine(row) + "\n"}) {
    EXPECT_THAT(text, Not(HasSubstr("\x1b")));
    EXPECT_THAT(text, Not(HasSubstr("bad\n")));
  }
}

TEST(JobTable, NumbersThatAreNoneAreShownAsSomething) {
  JobRow row{Job(1, JobState::kRunning), "ana"};
  row.job.progress = std::numeric_limits<double>::quiet_NaN();
  row.job.submitted_at = 1e300;
  row.job.eta_seconds = -5;
  EXPECT_THAT(FormatJobTable({{row}}, 0), HasSubstr("0%"));
  EXPECT_THAT(FormatJob(row), HasSubstr("submitted     -\n"));
}

TEST(JobLine, SaysWhatChanged) {
  const std::vector<JobRow> rows = Rows();
  EXPECT_EQ(FormatJobLine(rows[0]), "job 9 of ana: done in 2:05, /home/ana/top.pkl");
  EXPECT_EQ(FormatJobLine(rows[1]), "job 10 of bea: running 99%, 12.50 s left, searching");
  EXPECT_EQ(FormatJobLine(rows[2]), "job 11 of ana: queued, behind 1 job of bea");
}

TEST(FormatJob, CutsNothing) {
  JobRow row = Rows()[2];
  row.job.output_path = "/" + std::string(300, 'x');
  row.job.attempt = 2;
  const std::string text = FormatJob(row);
  EXPECT_THAT(text, StartsWith("job           11\nuser          ana\nstate         queued\n"));
  EXPECT_THAT(text, HasSubstr("reason        behind 1 job of bea\n"));
  EXPECT_THAT(text, HasSubstr("output        " + row.job.output_path + "\n"));
  EXPECT_THAT(text, HasSubstr("size          1000 queries x 20000 docs, dim 300, k=50\n"));
  EXPECT_THAT(text, HasSubstr("attempt       2\n"));
}

TEST(FormatDevice, SaysWhatTheDaemonHoldsAndWhatIsWrong) {
  StatsReply stats;
  stats.device = "cpu";
  stats.device_state = "job 10";
  stats.max_memory_bytes = int64_t{8} << 30;
  stats.warm_docs.resize(2);
  stats.warm_docs[0].bytes = 1536;
  stats.warm_docs[1].bytes = 512;
  stats.queued = 2;
  stats.running = 1;
  stats.journal = "ok";
  EXPECT_EQ(FormatDevice(stats, "", 0),
            "device: cpu job 10; warm docs 2.0 KiB in 2 files; memory limit 8.0 GiB; 2 queued, 1 "
            "running\n");
  EXPECT_EQ(Lines(FormatDevice(stats, "", 20)).size(), 1u);
  EXPECT_THAT(FormatDevice(stats, "bea", 0), StartsWith("device: cpu job 10 of bea; warm docs"));
  stats.draining = true;
  stats.journal = "the disk is full";
  EXPECT_THAT(Lines(FormatDevice(stats, "", 20)),
              ElementsAre("device: cpu job 10;…", StartsWith("draining: no new jobs"),
                          "journal: the disk is full"));
}

TEST(SelectJobs, KeepsTheUnfinishedAndTheLastOfTheFinished) {
  std::vector<JobView> jobs;
  for (int64_t id = 1; id <= 6; ++id) {
    jobs.push_back(Job(id, id <= 4 ? JobState::kDone : JobState::kQueued));
    jobs.back().finished_at = static_cast<double>(100 - id);
  }
  jobs[5].state = JobState::kRunning;
  const auto ids = [](const std::vector<JobView>& selected) {
    std::vector<int64_t> found;
    for (const JobView& job : selected) found.push_back(job.id);
    return found;
  };
  EXPECT_THAT(ids(SelectJobs(jobs, 2)), ElementsAre(2, 1, 6, 5));
  EXPECT_THAT(ids(SelectJobs(jobs, 0)), ElementsAre(6, 5));
  EXPECT_THAT(ids(SelectJobs(jobs, std::nullopt)), ElementsAre(4, 3, 2, 1, 6, 5));
}

TEST(FollowLine, IsABarOnceTheJobRuns) {
  const std::vector<JobRow> rows = Rows();
  EXPECT_THAT(FormatFollowLine(rows[1].job, 70), StartsWith(" 99% [####"));
  EXPECT_THAT(FormatFollowLine(rows[1].job, 70), HasSubstr("00:13 left"));
  EXPECT_EQ(FormatFollowLine(rows[2].job, 70), "job 11 queued: behind 1 job of bea, 1:30 left");
  for (int width = 0; width < 90; ++width) {
    for (const JobRow& row : rows) {
      EXPECT_LE(DisplayWidth(FormatFollowLine(row.job, width)), width);
    }
  }
}

}  // namespace
}  // namespace tiny_knn
