#include "core/job/machine_limits.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <thread>
#include <utility>
#include <vector>

namespace tiny_knn {
namespace {

std::vector<std::string_view> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::vector<std::string_view> SplitFields(std::string_view text) {
  std::vector<std::string_view> fields;
  size_t at = 0;
  while ((at = text.find_first_not_of(" \t\n", at)) != std::string_view::npos) {
    const size_t end = text.find_first_of(" \t\n", at);
    fields.push_back(text.substr(at, end - at));
    if (end == std::string_view::npos) break;
    at = end;
  }
  return fields;
}

std::optional<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool HasListItem(std::string_view comma_list, std::string_view item) {
  while (!comma_list.empty()) {
    const size_t end = comma_list.find(',');
    if (comma_list.substr(0, end) == item) return true;
    if (end == std::string_view::npos) break;
    comma_list.remove_prefix(end + 1);
  }
  return false;
}

// A mounted cgroup hierarchy that has the wanted controller, and this process's place in it.
struct Hierarchy {
  bool v2 = false;
  std::string mount_point;
  std::string group;  // relative to mount_point: "" or "/a/b"
};

// mountinfo escapes blanks and backslashes as \ooo; cgroup mounts with such names are not worth
// decoding, so they simply are not found.
std::vector<Hierarchy> FindHierarchies(const FileReader& read, std::string_view controller) {
  const std::string mountinfo = read("/proc/self/mountinfo").value_or("");
  const std::string self_cgroup = read("/proc/self/cgroup").value_or("");
  std::vector<Hierarchy> found;
  for (std::string_view line : SplitLines(mountinfo)) {
    const size_t separator = line.find(" - ");
    if (separator == std::string_view::npos) continue;
    const auto before = SplitFields(line.substr(0, separator));
    const auto after = SplitFields(line.substr(separator + 3));
    if (before.size() < 5 || after.size() < 3) continue;
    const bool v2 = after[0] == "cgroup2";
    if (!v2 && !(after[0] == "cgroup" && HasListItem(after[2], controller))) continue;

    for (std::string_view entry : SplitLines(self_cgroup)) {
      const size_t first = entry.find(':');
      const size_t second = entry.find(':', first + 1);
      if (first == std::string_view::npos || second == std::string_view::npos) continue;
      const std::string_view controllers = entry.substr(first + 1, second - first - 1);
      const bool matches = v2 ? entry.substr(0, first) == "0" && controllers.empty()
                              : HasListItem(controllers, controller);
      if (!matches) continue;
      std::string_view group = entry.substr(second + 1);
      // The mount may show only a part of the hierarchy (a container's): its root is that part.
      const std::string_view root = before[3];
      if (root != "/") {
        const bool below = group.substr(0, root.size()) == root &&
                           (group.size() == root.size() || group[root.size()] == '/');
        group = below ? group.substr(root.size()) : std::string_view();
      }
      if (group == "/") group = {};
      found.push_back({v2, std::string(before[4]), std::string(group)});
    }
  }
  return found;
}

std::optional<int64_t> ReadInteger(const FileReader& read, const std::string& path) {
  const std::optional<std::string> text = read(path);
  if (!text) return std::nullopt;
  const auto fields = SplitFields(*text);
  return fields.size() == 1 ? ParseInteger(fields[0]) : std::nullopt;
}

// Bytes of a limit file; "max", and v1's "no limit" (about 2^63), are nothing.
std::optional<int64_t> ReadLimit(const FileReader& read, const std::string& path) {
  const std::optional<int64_t> value = ReadInteger(read, path);
  if (value && *value >= int64_t{1} << 60) return std::nullopt;
  return value;
}

int64_t ReadStat(const FileReader& read, const std::string& path, std::string_view key) {
  const std::optional<std::string> text = read(path);
  if (!text) return 0;
  for (std::string_view line : SplitLines(*text)) {
    const auto fields = SplitFields(line);
    if (fields.size() == 2 && fields[0] == key) return ParseInteger(fields[1]).value_or(0);
  }
  return 0;
}

std::optional<int64_t> GroupMemoryAvailable(const FileReader& read, const std::string& folder,
                                            bool v2) {
  std::optional<int64_t> limit =
      ReadLimit(read, folder + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
  if (v2) {
    // Above memory.high the kernel throttles: as good as a limit.
    const std::optional<int64_t> high = ReadLimit(read, folder + "/memory.high");
    if (high && (!limit || *high < *limit)) limit = high;
  }
  if (!limit) return std::nullopt;
  const int64_t usage =
      ReadInteger(read, folder + (v2 ? "/memory.current" : "/memory.usage_in_bytes")).value_or(0);
  const int64_t reclaimable =
      ReadStat(read, folder + "/memory.stat", v2 ? "inactive_file" : "total_inactive_file");
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, usage - reclaimable));
}

std::optional<double> GroupCpus(const FileReader& read, const std::string& folder, bool v2) {
  if (v2) {
    const std::optional<std::string> text = read(folder + "/cpu.max");
    return text ? ParseCpuMax(*text) : std::nullopt;
  }
  const std::optional<int64_t> quota = ReadInteger(read, folder + "/cpu.cfs_quota_us");
  const std::optional<int64_t> period = ReadInteger(read, folder + "/cpu.cfs_period_us");
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

// The least of what `limit_of(folder, v2)` says for the process's group and all its parents.
template <typename T, typename Fn>
std::optional<T> TightestLimit(const std::vector<Hierarchy>& hierarchies, const Fn& limit_of) {
  std::optional<T> tightest;
  for (const Hierarchy& hierarchy : hierarchies) {
    std::string group = hierarchy.group;
    while (true) {
      const std::optional<T> limit = limit_of(hierarchy.mount_point + group, hierarchy.v2);
      if (limit && (!tightest || *limit < *tightest)) tightest = limit;
      if (group.empty()) break;
      group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
    }
  }
  return tightest;
}

}  // namespace

std::optional<std::string> ReadSmallFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string text;
  std::array<char, 4096> bytes;  // NOLINT(*-member-init): read() fills it
  ssize_t got = 0;
  do {
    got = read(fd, bytes.data(), bytes.size());
    if (got > 0) text.append(bytes.data(), static_cast<size_t>(got));
  } while (got > 0 || (got < 0 && errno == EINTR));
  close(fd);
  if (got < 0) return std::nullopt;
  return text;
}

std::optional<int64_t> ParseMemAvailable(std::string_view meminfo) {
  for (std::string_view line : SplitLines(meminfo)) {
    const auto fields = SplitFields(line);
    if (fields.size() == 3 && fields[0] == "MemAvailable:" && fields[2] == "kB") {
      const std::optional<int64_t> kib = ParseInteger(fields[1]);
      if (kib && *kib >= 0 && *kib < int64_t{1} << 50) return *kib * 1024;
    }
  }
  return std::nullopt;
}

std::optional<double> ParseCpuMax(std::string_view text) {
  const auto fields = SplitFields(text);
  if (fields.size() != 2) return std::nullopt;
  const std::optional<int64_t> quota = ParseInteger(fields[0]);
  const std::optional<int64_t> period = ParseInteger(fields[1]);
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

std::optional<double> FindCgroupCpus(const FileReader& read) {
  return TightestLimit<double>(
      FindHierarchies(read, "cpu"),
      [&](const std::string& folder, bool v2) { return GroupCpus(read, folder, v2); });
}

std::optional<int64_t> FindCgroupMemoryAvailable(const FileReader& read) {
  return TightestLimit<int64_t>(
      FindHierarchies(read, "memory"),
      [&](const std::string& folder, bool v2) { return GroupMemoryAvailable(read, folder, v2); });
}

int CombineCpus(int affinity_cpus, std::optional<double> quota_cpus) {
  int cpus = std::max(1, affinity_cpus);
  if (quota_cpus && *quota_cpus < cpus) cpus = static_cast<int>(std::ceil(*quota_cpus));
  return std::max(1, cpus);
}

int UsableCpus() {
  int affinity_cpus = 0;
  // The mask must be at least as long as the kernel's; grow it until the call accepts it.
  for (int capacity = 1024; capacity <= 1 << 18 && affinity_cpus == 0; capacity *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(capacity));
    if (set == nullptr) break;
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(capacity));
    if (sched_getaffinity(0, size, set) == 0) affinity_cpus = CPU_COUNT_S(size, set);
    CPU_FREE(set);
  }
  if (affinity_cpus == 0) affinity_cpus = static_cast<int>(std::thread::hardware_concurrency());
  return CombineCpus(affinity_cpus, FindCgroupCpus(ReadSmallFile));
}

int64_t AvailableMemoryBytes() { return MemoryGauge().AvailableBytes(); }

MemoryGauge::MemoryGauge(FileReader read) : read_(std::move(read)) { FindGroups(); }

void MemoryGauge::FindGroups() {
  limited_.clear();
  (void)TightestLimit<int64_t>(FindHierarchies(read_, "memory"),
                               [this](const std::string& folder, bool v2) {
                                 const auto available = GroupMemoryAvailable(read_, folder, v2);
                                 if (available) limited_.push_back({folder, v2});
                                 return available;
                               });
}

int64_t MemoryGauge::AvailableBytes() const {
  std::optional<int64_t> available =
      ParseMemAvailable(read_("/proc/meminfo").value_or(std::string()));
  if (!available) {
    available = static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  }
  for (const Group& group : limited_) {
    const std::optional<int64_t> left = GroupMemoryAvailable(read_, group.folder, group.v2);
    if (left) available = std::min(*available, *left);
  }
  return std::max<int64_t>(0, *available);
}

int64_t DefaultMemoryLimit(int64_t available_bytes) {
  return std::max<int64_t>(1, available_bytes / 4 * 3);
}

}  // namespace tiny_knn
