// What a supervisor is started with.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace tiny_knn {

struct SupervisorOptions {
  std::string socket_path;       // absolute, at most 107 bytes
  std::string state_folder;      // absolute
  std::string worker_path;       // the tiny-knn whose `worker` runs jobs
  std::string device = "auto";   // jobs may narrow it, not widen it
  int64_t max_memory_bytes = 0;  // of a search and all warm docs together; at least 1
  int most_threads = 0;          // 0: no limit but the machine's
  int64_t max_warm_bytes = 0;    // of warm docs alone; 0: max_memory_bytes is their only limit
  int64_t max_seconds = 0;       // of a job; 0: none. Jobs may narrow it
  // What follows is for a daemon of root, which runs jobs of others as those. Others serve their
  // own user and root only, whatever the groups say.
  std::optional<gid_t> group;  // its members may connect; none: root only
  std::optional<gid_t>
      admin_group;  // its members may also cancel others' jobs, drain and shut down
  std::chrono::seconds idle_release = std::chrono::minutes(10);  // then the idle worker ends
  std::chrono::seconds grace = std::chrono::seconds(30);  // for the running job when asked to stop
};

}  // namespace tiny_knn
