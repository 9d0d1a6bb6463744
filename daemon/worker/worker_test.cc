#include "daemon/worker/worker.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/io/unique_fd.h"
#include "daemon/protocol/build_id.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/worker_messages.h"
#include "daemon/worker/files_for_test.h"
#include "daemon/worker/worker_for_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;
using Clock = std::chrono::steady_clock;

class WorkerTest : public testing::Test {
 protected:
  WorkerTest() : folder_(MakeTestFolder()) {
    WriteNpy(folder_ + "/q.npy", 50, RandomValues(50 * 8, 1));
    WriteNpy(folder_ + "/d.npy", 400, RandomValues(400 * 8, 2));
    run_.job = 7;
    run_.attempt = 1;
    run_.most_memory_bytes = int64_t{1} << 30;
    run_.most_threads = 1;
    run_.temporary_tag = std::string("job7-1");
    run_.spec.working_folder = folder_;
    run_.spec.queries_path = std::string("q.npy");
    run_.spec.docs_path = std::string("d.npy");
    run_.spec.output_path = std::string("out.pkl");
    run_.spec.k = 5;
    endless_ = run_;
    endless_.job = 8;
    endless_.temporary_tag = std::string("job8-1");
    endless_.spec.output_path = std::string("endless.pkl");
    endless_.spec.device = std::string("cuda:7");
  }

  // Names that are not the inputs'.
  std::vector<std::string> Outputs() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(".npy")) names.push_back(name);
    }
    return names;
  }

  // A worker that is in the middle of the endless job.
  void StartEndless(TestWorker& worker) {
    worker.Send(endless_);
    EXPECT_TRUE(worker.NextOf<WorkerProgress>().has_value());
    EXPECT_THAT(Outputs(), ElementsAre(".endless.pkl.job8-1.tmp"));
  }

  const std::string folder_;
  WorkerRun run_;
  WorkerRun endless_;
};

TEST_F(WorkerTest, SaysWhoItIsFirst) {
  TestWorker worker;
  const std::optional<FromWorker> first = worker.Next();
  ASSERT_TRUE(first.has_value());
  const auto* hello = std::get_if<WorkerHello>(&*first);
  ASSERT_NE(hello, nullptr);
  EXPECT_EQ(hello->build, kBuildId);
  EXPECT_EQ(hello->pid, worker.pid());
}

TEST_F(WorkerTest, AJobEqualsADirectRunByteForByteColdAndWarm) {
  TestWorker worker;
  const std::string expected = BytesOfDirectRun(run_.spec, folder_ + "/scratch.pkl");
  ASSERT_FALSE(expected.empty());
  for (const char* docs : {"cold", "warm", "warm"}) {
    worker.Send(run_);
    bool logged = false;
    std::optional<FromWorker> message = worker.Next();
    while (message && !std::holds_alternative<WorkerFinished>(*message)) {
      if (const auto* log = std::get_if<WorkerLog>(&*message)) {
        EXPECT_EQ(log->job, 7);
        logged = true;
      }
      message = worker.Next();
    }
    ASSERT_TRUE(message.has_value());
    const auto& finished = std::get<WorkerFinished>(*message);
    EXPECT_EQ(finished.job, 7);
    EXPECT_EQ(finished.error_code, "ok") << finished.error;
    EXPECT_EQ(finished.docs, docs);
    EXPECT_EQ(finished.output_path, folder_ + "/out.pkl");
    EXPECT_TRUE(logged) << "the plan at least";
    EXPECT_EQ(ReadAll(finished.output_path), expected);
    fs::remove(finished.output_path);
  }
}

TEST_F(WorkerTest, ACancelIsHeardDuringASearch) {
  TestWorker worker;
  StartEndless(worker);
  worker.Send(WorkerCancel{.job = 12345});  // of a job that is not here
  worker.Send(WorkerCancel{.job = 8});
  const WorkerFinished finished = worker.Finish();
  EXPECT_EQ(finished.job, 8);
  EXPECT_EQ(finished.error_code, "cancelled");
  EXPECT_THAT(Outputs(), IsEmpty());
  worker.Send(run_);
  EXPECT_EQ(worker.Finish().error_code, "ok") << "the next job is not cancelled";
}

TEST_F(WorkerTest, ATaskThatWaitsCanBeCancelledToo) {
  TestWorker worker;
  StartEndless(worker);
  worker.Send(run_);
  worker.Send(WorkerCancel{.job = 7});
  worker.Send(WorkerCancel{.job = 8});
  EXPECT_EQ(worker.Finish().job, 8);
  const WorkerFinished second = worker.Finish();
  EXPECT_EQ(second.job, 7);
  EXPECT_EQ(second.error_code, "cancelled");
  EXPECT_THAT(Outputs(), IsEmpty());
}

TEST_F(WorkerTest, AFailedJobIsAnsweredAndTheNextOneRuns) {
  TestWorker worker;
  WorkerRun bad = run_;
  bad.spec.docs_path = std::string("none.npy");
  worker.Send(bad);
  const WorkerFinished finished = worker.Finish();
  EXPECT_EQ(finished.error_code, "not_found");
  EXPECT_EQ(finished.error,
            "none.npy: cannot open, expected an .npy file: No such file or directory");
  worker.Send(run_);
  EXPECT_EQ(worker.Finish().error_code, "ok");
}

TEST_F(WorkerTest, TheEndOfTheSocketEndsIt) {
  TestWorker idle;
  EXPECT_TRUE(idle.Next().has_value());
  idle.CloseSocket();
  EXPECT_EQ(idle.Wait(), kExitAtEof);
}

TEST_F(WorkerTest, TheEndOfTheSocketEndsASearchAndItsLeftoverIsFound) {
  {
    TestWorker worker;
    StartEndless(worker);
    worker.CloseSocket();
    EXPECT_EQ(worker.Wait(), kExitAtEof);
  }
  EXPECT_THAT(Outputs(), ElementsAre(".endless.pkl.job8-1.tmp"));
  TestWorker next;
  const WorkerRemove remove{.job = 8, .temporary_tag = "job8-1", .spec = endless_.spec};
  next.Send(WorkerRemove{.job = 9, .temporary_tag = "job9-1", .spec = endless_.spec});
  EXPECT_EQ(next.NextOf<WorkerRemoved>()->job, 9);
  EXPECT_THAT(Outputs(), ElementsAre(".endless.pkl.job8-1.tmp")) << "not that attempt's";
  next.Send(remove);
  EXPECT_EQ(next.NextOf<WorkerRemoved>()->job, 8);
  EXPECT_THAT(Outputs(), IsEmpty());
  next.Send(remove);
  EXPECT_EQ(next.NextOf<WorkerRemoved>()->job, 8) << "nothing to remove is fine";
}

TEST_F(WorkerTest, WhatCannotBeRemovedIsLogged) {
  TestWorker worker;
  worker.Send(WorkerRemove{.job = 9, .temporary_tag = "../x", .spec = run_.spec});
  EXPECT_TRUE(worker.NextOf<WorkerLog>().has_value());
  EXPECT_TRUE(worker.NextOf<WorkerRemoved>().has_value());
}

TEST_F(WorkerTest, WhatIsNoMessageEndsItWithAnError) {
  const std::vector<std::string> garbage = {"hello?\n",   "{}\n",
                                            "\n",         "{\"type\":\"run\",\"job\":1}\n",
                                            "\xFF\xFE\n", std::string(kMostLineBytes + 1, 'x')};
  for (const std::string& bytes : garbage) {
    TestWorker worker;
    worker.SendBytes(bytes);
    EXPECT_EQ(worker.Wait(), kExitAtError) << bytes.substr(0, 20);
  }
}

TEST_F(WorkerTest, GarbageDuringAJobEndsItWithoutALeftover) {
  TestWorker worker;
  StartEndless(worker);
  worker.SendBytes("garbage\n");
  EXPECT_EQ(worker.Wait(), kExitAtError);
  EXPECT_THAT(Outputs(), IsEmpty());
}

TEST_F(WorkerTest, ShowsThatItIsAliveAndProgressAtMostTenTimesASecond) {
  TestWorker worker;
  const Clock::time_point start = Clock::now();
  worker.Send(endless_);
  int64_t progress = 0;
  std::optional<FromWorker> message = worker.Next();
  while (message && !std::holds_alternative<WorkerAlive>(*message)) {
    if (const auto* report = std::get_if<WorkerProgress>(&*message)) {
      EXPECT_EQ(report->job, 8);
      EXPECT_EQ(report->pairs_done, 1);
      EXPECT_EQ(report->pairs_total, 50 * 400);
      ++progress;
    }
    message = worker.Next();
  }
  ASSERT_TRUE(message.has_value()) << "no sign of life during a search";
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count();
  EXPECT_GE(progress, 2);
  EXPECT_LE((progress - 1) * 100, milliseconds);
}

TEST_F(WorkerTest, CtrlCAndHangUpAreTheSupervisorsBusiness) {
  TestWorker worker;
  EXPECT_TRUE(worker.Next().has_value()) << "it says hello when signals are ignored";
  for (const int number : {SIGINT, SIGHUP, SIGPIPE}) EXPECT_EQ(kill(worker.pid(), number), 0);
  worker.Send(run_);
  EXPECT_EQ(worker.Finish().error_code, "ok");
}

TEST_F(WorkerTest, ASupervisorThatDoesNotReadStopsNothing) {
  TestWorker worker;
  StartEndless(worker);
  // Many small answers, until the socket is full.
  worker.Send(WorkerCancel{.job = 8});
  for (int i = 0; i < 500; ++i) {
    worker.Send(WorkerRemove{.job = 100 + i, .temporary_tag = "none", .spec = run_.spec});
  }
  for (int i = 0; i < 500; ++i) {
    ASSERT_EQ(worker.NextOf<WorkerRemoved>().value_or(WorkerRemoved{}).job, 100 + i);
  }
}

TEST(WorkerProcess, RefusesToRunForAnybodyButItsParent) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const pid_t between = fork();
  if (between == 0) {
    // The worker's parent is not the process that made the socket.
    ours.Reset();
    const pid_t worker = fork();
    if (worker == 0) BeWorker(theirs.Release());
    int status = 0;
    waitpid(worker, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
  }
  ours.Reset();  // so that a worker that runs all the same ends, with another code
  theirs.Reset();
  int status = 0;
  ASSERT_EQ(waitpid(between, &status, 0), between);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kExitAtError);
}

TEST(WorkerProcess, RefusesWhatIsNoSocket) {
  const pid_t worker = fork();
  if (worker == 0) BeWorker(dup(STDIN_FILENO));
  int status = 0;
  ASSERT_EQ(waitpid(worker, &status, 0), worker);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), kExitAtError);
}

// The socket stays open in a third process, so its end is not what ends the worker.
TEST(WorkerProcess, DiesWithItsParent) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  int pids[2], life[2];
  ASSERT_EQ(pipe2(pids, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(life, O_CLOEXEC), 0);
  const UniqueFd pids_to_read(pids[0]);
  UniqueFd pids_to_write(pids[1]);
  const UniqueFd life_to_read(life[0]);
  UniqueFd life_to_write(life[1]);
  const pid_t supervisor = fork();
  if (supervisor == 0) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) _exit(1);
    life_to_write.Reset();
    char byte = 0;
    const pid_t holder = fork();
    if (holder == 0) _exit(read(life_to_read.get(), &byte, 1) == 0 ? 0 : 1);
    const pid_t worker = fork();
    if (worker == 0) {
      close(ends[0]);
      BeWorker(ends[1]);
    }
    // It has asked to die with its parent once it has said hello.
    const bool hello = read(ends[0], &byte, 1) == 1;
    if (!hello || write(pids[1], &worker, sizeof(worker)) != sizeof(worker) ||
        write(pids[1], &holder, sizeof(holder)) != sizeof(holder)) {
      _exit(1);
    }
    for (;;) pause();
  }
  pids_to_write.Reset();
  pid_t worker = 0, holder = 0;
  EXPECT_EQ(read(pids_to_read.get(), &worker, sizeof(worker)),
            static_cast<ssize_t>(sizeof(worker)));
  EXPECT_EQ(read(pids_to_read.get(), &holder, sizeof(holder)),
            static_cast<ssize_t>(sizeof(holder)));
  kill(supervisor, SIGKILL);
  EXPECT_EQ(waitpid(supervisor, nullptr, 0), supervisor);
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, worker, 0)));
  pollfd ended = {.fd = process.get(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&ended, 1, kPatienceMs), 1) << "it lives on";
  if (ended.revents == 0) kill(worker, SIGTERM);
  int status = 0;
  EXPECT_EQ(waitpid(worker, &status, 0), worker);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  life_to_write.Reset();
  EXPECT_EQ(waitpid(holder, nullptr, 0), holder);
}

}  // namespace
}  // namespace tiny_knn
