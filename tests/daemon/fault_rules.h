// The file through which a test tells the fault interposer what to do, and reads what happened:
// mapped into the test, the supervisor and its workers at once, so that rules can be changed while
// they run. fault_rules.py writes the same layout; every integer is little-endian and 8-aligned.
#pragma once

#include <cstdint>

namespace tiny_knn {

inline constexpr char kFaultMagic[8] = {'k', 'n', 'n', 'f', 'a', 'u', 'l', '1'};
inline constexpr int kFaultRules = 32;

// Which process a rule is about: a mask.
enum FaultProcess : int32_t {
  kSupervisor = 1,
  kWorker = 2,
  kForked = 4,  // a child of the supervisor before its exec
};

// Which call: a mask of bits. Variants (open64, openat, pwrite64, ...) count as the plain one.
enum FaultCall : uint32_t {
  kOpen = 1U << 0,
  kWrite = 1U << 1,  // write, pwrite, writev, pwritev
  kSync = 1U << 2,   // fsync, fdatasync
  kTruncate = 1U << 3,
  kAllocate = 1U << 4,  // fallocate, posix_fallocate
  kRename = 1U << 5,
  kUnlink = 1U << 6,
  kSend = 1U << 7,     // send, sendto, sendmsg; write and writev to a socket are kWrite
  kReceive = 1U << 8,  // recv, recvfrom, recvmsg, read, readv
  kAccept = 1U << 9,
  kFork = 1U << 10,
  kExec = 1U << 11,
  kSocketPair = 1U << 12,
  kMakeFolder = 1U << 13,
  kStart = 1U << 14,  // no call: the interposer was loaded, before main
};

enum FaultAction : int32_t {
  kCount = 0,  // only counts
  kFail = 1,   // the call is not made: -1 and `error`
  kShort = 2,  // a write or send of at most `amount` bytes
  kHold = 3,   // waits until the rule is no longer active
  kKill = 4,   // SIGKILL to itself
  kStop = 5,   // SIGSTOP to itself
  kAbort = 6,  // SIGABRT to itself
  kDelay = 7,  // waits `amount` milliseconds
  kSkip = 8,   // the call is not made and looks successful: how tests are tested
};

struct FaultRule {
  int32_t active;
  int32_t processes;
  uint32_t calls;
  int32_t action;
  int32_t error;
  int32_t after;  // acts after the call instead of before it
  int64_t first;  // acts on the matching calls number first..last, from 1
  int64_t last;
  int64_t amount;
  int64_t seen;    // matching calls so far
  int64_t fired;   // on how many of them it acted
  int64_t pid;     // who did that last
  char path[512];  // fnmatch pattern of the file's full path ("socket:*" for sockets); empty: any
  char text[64];   // bytes that what is written or was read contains; empty: any
};
static_assert(sizeof(FaultRule) == 648);

struct FaultFile {
  char magic[8];
  int64_t clock_offset_ns;  // what CLOCK_REALTIME is off
  int64_t supervisor_pid;   // of the last one that started
  int64_t worker_pid;
  int64_t workers_started;
  FaultRule rules[kFaultRules];
};
static_assert(sizeof(FaultFile) == 40 + kFaultRules * sizeof(FaultRule));

}  // namespace tiny_knn
