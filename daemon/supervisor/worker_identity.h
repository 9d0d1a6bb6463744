// Becoming the user for whom a worker works, for good: what a forked child of root does before it
// executes the worker.
//
// For the child of a process with ONE thread: the name service (getpwuid and its plug-ins) is not
// async-signal-safe, allocates, may open descriptors and may take long, so it is called here only,
// never in the supervisor itself. With one thread no lock can be held at the fork.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tiny_knn {

// Exit codes of a child that did not get as far as the worker's program.
inline constexpr int kExitNotTheUser = 124;  // it could not become that user
inline constexpr int kExitNoSuchUser = 125;  // the name service knows no user of that number
inline constexpr int kExitNotSetUp = 126;    // nothing to do with the user
inline constexpr int kExitNotExecuted = 127;

// What failed; `code` is 0 when nothing did.
struct IdentityFailure {
  int code = 0;           // kExitNotTheUser or kExitNoSuchUser
  const char* step = "";  // static: "setgroups"
  int error = 0;          // errno; 0: none, it was the check of a result that failed
};

struct UserIdentity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // ascending, each once; `gid` is one of them
};

// Asks the name service. Refuses uid 0: nobody becomes root here.
IdentityFailure LookUpUser(uid_t uid, UserIdentity& identity);

// Gives up root for that user and verifies that there is no way back: all three ids of user and of
// group, exactly those groups, no capability permitted, effective, inheritable or ambient, and none
// to be had by executing a program (no_new_privs); nor does a keyring of root's stay. After a
// failure only _exit is left to be called. Clears the signal of the parent's death. No allocation
// but for the comparison of groups.
IdentityFailure BecomeUser(const UserIdentity& identity);

}  // namespace tiny_knn
