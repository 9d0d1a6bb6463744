// What a supervisor is started with.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tiny_knn {

struct SupervisorOptions {
  std::string socket_path;       // absolute, at most 107 bytes
  std::string state_folder;      // absolute
  std::string worker_path;       // the tiny-knn whose `worker` runs jobs
  std::string device = "auto";   // jobs may narrow it, not widen it
  int64_t max_memory_bytes = 0;  // of a search and all warm docs together; at least 1
  int most_threads = 0;          // 0: no limit but the machine's
  std::chrono::seconds idle_release = std::chrono::minutes(10);  // then the idle worker ends
  std::chrono::seconds grace = std::chrono::seconds(30);  // for the running job when asked to stop
};

}  // namespace tiny_knn
