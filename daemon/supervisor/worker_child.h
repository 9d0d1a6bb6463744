// A worker's process between fork and exec.
#pragma once

#include <sys/types.h>

#include <optional>

namespace tiny_knn {

// What the child needs after fork, prepared before it: the less is allocated there the better. What
// becomes another user may, see worker_identity.h.
struct ChildPlan {
  std::optional<uid_t> user;
  int socket;
  int binary;
  int failure;  // where it says an IdentityFailure
  pid_t parent;
  char* const* arguments;
  char* const* environment;
};

// In the child: executes the worker with `socket` as descriptor 3, or writes an IdentityFailure
// (whose code may also be kExitNotSetUp or kExitNotExecuted) to `failure` and exits with its code.
[[noreturn]] void ExecWorker(const ChildPlan& plan);

}  // namespace tiny_knn
