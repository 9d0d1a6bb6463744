// What this process may use of the machine: CPUs and memory, with the limits of containers and
// batch systems (affinity masks, cgroup v1 and v2) respected. A search that believes the whole
// machine is its own is killed, or throttled, where it is not.
//
// The pure functions work on the text of the kernel's files, read through a function, so that every
// shape of container is tested as strings. Safe to call from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tiny_knn {

// The whole text of a small file, or nothing if it cannot be read.
using FileReader = std::function<std::optional<std::string>(const std::string& path)>;
std::optional<std::string> ReadSmallFile(const std::string& path);

// Bytes of the `MemAvailable` line of /proc/meminfo, or nothing if there is none.
std::optional<int64_t> ParseMemAvailable(std::string_view meminfo);

// The tightest limits of the control groups this process is in, its own and all their parents;
// nothing where there is none.
//
// CPUs: quota / period, may be fractional.
std::optional<double> FindCgroupCpus(const FileReader& read);
// Bytes: limit minus usage, where reclaimable file cache does not count as usage; at least 0.
std::optional<int64_t> FindCgroupMemoryAvailable(const FileReader& read);

// The quota of a cgroup v2 `cpu.max` ("max 100000", "150000 100000"), or nothing when unlimited.
std::optional<double> ParseCpuMax(std::string_view text);

// Threads worth starting: the quota rounded up (half a CPU still needs a thread), at most the CPUs
// of the affinity mask, at least 1.
int CombineCpus(int affinity_cpus, std::optional<double> quota_cpus);

// The CPUs this process may use. At least 1.
int UsableCpus();

// Bytes that could be allocated now without swapping or hitting a cgroup limit. At least 0.
int64_t AvailableMemoryBytes();

// AvailableMemoryBytes for who asks again and again: which of this process's control groups limit
// its memory is found once, because finding that takes several times as long as reading the limits.
// Thread-compatible.
class MemoryGauge {
 public:
  explicit MemoryGauge(FileReader read = ReadSmallFile);
  int64_t AvailableBytes() const;
  // Finds them anew: a process can be moved to other groups, and a group be given a limit.
  void FindGroups();

 private:
  struct Group {
    std::string folder;
    bool v2 = false;
  };
  FileReader read_;
  std::vector<Group> limited_;
};

// The memory limit of a job that asked for none: 75% of `available_bytes`, at least 1.
int64_t DefaultMemoryLimit(int64_t available_bytes);

}  // namespace tiny_knn
