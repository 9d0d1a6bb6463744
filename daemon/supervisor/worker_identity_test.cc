#include "daemon/supervisor/worker_identity.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;

// Of Debian, without login: in the group of the same name.
constexpr uid_t kGames = 5;
constexpr gid_t kGamesGroup = 60;
constexpr uid_t kNobodyAtAll = 54321;

// What a child says before it ends, and its exit code after it.
std::string InChild(const std::function<std::string()>& act) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    const std::string said = act();
    _exit(write(ends[1], said.data(), said.size()) == static_cast<ssize_t>(said.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string said;
  char buffer[4096];
  while (true) {
    const ssize_t size = read(ends[0], buffer, sizeof(buffer));
    if (size <= 0) break;
    said.append(buffer, static_cast<size_t>(size));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return said;
}

std::string Describe(const IdentityFailure& failure) {
  return failure.code == 0 ? "ok" : std::to_string(failure.code) + " " + failure.step;
}

std::string ProcSelfStatus() {
  std::ifstream file("/proc/self/status");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class BecomeUserTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "NOT RUN: runs as root";
    UserIdentity games;
    if (LookUpUser(kGames, games).code != 0)
      GTEST_SKIP() << "NOT RUN: runs where passwd has games (5), as Debian's";
  }
};

TEST(LookUpUserTest, AUserWithoutAnEntryIsTold) {
  EXPECT_EQ(InChild([] {
              UserIdentity identity;
              return Describe(LookUpUser(kNobodyAtAll, identity));
            }),
            "125 getpwuid");
}

TEST(LookUpUserTest, NobodyBecomesRoot) {
  UserIdentity identity;
  EXPECT_EQ(LookUpUser(0, identity).code, kExitNotTheUser);
  EXPECT_EQ(BecomeUser(identity).code, kExitNotTheUser);
}

TEST(LookUpUserTest, WhoIsNotRootBecomesNobody) {
  EXPECT_EQ(InChild([] {
              if (geteuid() == 0 && setresuid(1, 1, 1) != 0)
                return std::string("cannot leave root");
              return Describe(BecomeUser({.uid = kGames, .gid = kGamesGroup, .groups = {}}));
            }),
            "124 setgroups");
}

TEST_F(BecomeUserTest, TheUserHasHisIdsHisGroupsAndNothingOfRoot) {
  const std::string status = InChild([] {
    // As a supervisor might have been started.
    const gid_t groups[] = {0, 4, 27};
    if (setgroups(3, groups) != 0) return std::string("no groups");
    UserIdentity identity;
    IdentityFailure failure = LookUpUser(kGames, identity);
    if (failure.code == 0) failure = BecomeUser(identity);
    if (failure.code != 0) return Describe(failure);
    return ProcSelfStatus();
  });
  EXPECT_THAT(status, HasSubstr("\nUid:\t5\t5\t5\t5\n"));
  EXPECT_THAT(status, HasSubstr("\nGid:\t60\t60\t60\t60\n"));
  EXPECT_THAT(status, HasSubstr("\nGroups:\t60 \n"));
  EXPECT_THAT(status, HasSubstr("\nCapInh:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("\nCapPrm:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("\nCapEff:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("\nCapAmb:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("\nNoNewPrivs:\t1\n"));
}

TEST_F(BecomeUserTest, CapabilitiesThatWouldSurviveTheChangeOfUserAreDropped) {
  const std::string status = InChild([] {
    // SECBIT_NO_SETUID_FIXUP: setresuid leaves every capability as it is.
    if (prctl(PR_SET_SECUREBITS, 1 << 2, 0, 0, 0) != 0) return std::string("no securebits");
    UserIdentity identity;
    IdentityFailure failure = LookUpUser(kGames, identity);
    if (failure.code == 0) failure = BecomeUser(identity);
    if (failure.code != 0) return Describe(failure);
    return ProcSelfStatus();
  });
  EXPECT_THAT(status, HasSubstr("\nCapPrm:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("\nCapEff:\t0000000000000000\n"));
}

TEST_F(BecomeUserTest, ThereIsNoWayBack) {
  EXPECT_EQ(InChild([] {
              UserIdentity identity;
              IdentityFailure failure = LookUpUser(kGames, identity);
              if (failure.code == 0) failure = BecomeUser(identity);
              if (failure.code != 0) return Describe(failure);
              const bool back = setuid(0) == 0 || setresuid(0, 0, 0) == 0 || setgid(0) == 0 ||
                                setgroups(0, nullptr) == 0 || open("/etc/shadow", O_RDONLY) >= 0;
              return std::string(back ? "back" : "no way");
            }),
            "no way");
}

TEST_F(BecomeUserTest, KeysOfRootsSessionStayBehind) {
  const std::string found = InChild([] {
    constexpr char kName[] = "tiny-knn-test";
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) < 0 ||
        syscall(SYS_add_key, "user", kName, "x", 1, KEY_SPEC_SESSION_KEYRING) < 0) {
      return std::string("no keys");
    }
    const auto is_there = [&] {
      return syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", kName, 0) >= 0;
    };
    if (!is_there()) return std::string("not even before");
    UserIdentity identity;
    IdentityFailure failure = LookUpUser(kGames, identity);
    if (failure.code == 0) failure = BecomeUser(identity);
    if (failure.code != 0) return Describe(failure);
    return std::string(is_there() ? "still there" : "gone");
  });
  if (found == "no keys")
    GTEST_SKIP()
        << "NOT RUN: runs where the kernel and the sandbox allow keyrings (add_key, keyctl)";
  EXPECT_EQ(found, "gone");
}

}  // namespace
}  // namespace tiny_knn
