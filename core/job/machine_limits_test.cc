#include "core/job/machine_limits.h"

#include <fstream>
#include <map>
#include <utility>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

FileReader Files(std::map<std::string, std::string> files) {
  return [files = std::move(files)](const std::string& path) -> std::optional<std::string> {
    const auto it = files.find(path);
    if (it == files.end()) return std::nullopt;
    return it->second;
  };
}

struct CgroupLimits {
  std::optional<double> cpus;
  std::optional<int64_t> memory_available;
};

CgroupLimits FindLimits(const FileReader& read) {
  return {FindCgroupCpus(read), FindCgroupMemoryAvailable(read)};
}

constexpr char kMountV2[] =
    "25 20 0:22 / /proc rw,nosuid - proc proc rw\n"
    "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

TEST(MemAvailable, IsReadInBytes) {
  EXPECT_EQ(ParseMemAvailable("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:     2048 kB\n"),
            2048 * 1024);
}

TEST(MemAvailable, MissingOrBrokenLineGivesNothing) {
  EXPECT_EQ(ParseMemAvailable(""), std::nullopt);
  EXPECT_EQ(ParseMemAvailable("MemTotal: 5 kB\n"), std::nullopt);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: many kB\n"), std::nullopt);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: 9223372036854775807 kB\n"), std::nullopt);
}

TEST(CpuMax, QuotaOverPeriodAndUnlimited) {
  EXPECT_EQ(ParseCpuMax("150000 100000\n"), 1.5);
  EXPECT_EQ(ParseCpuMax("max 100000\n"), std::nullopt);
  EXPECT_EQ(ParseCpuMax("100000 0\n"), std::nullopt);
  EXPECT_EQ(ParseCpuMax(""), std::nullopt);
}

TEST(CombineCpus, RoundsTheQuotaUpAndNeverExceedsTheMask) {
  EXPECT_EQ(CombineCpus(8, std::nullopt), 8);
  EXPECT_EQ(CombineCpus(8, 1.5), 2);
  EXPECT_EQ(CombineCpus(8, 0.1), 1);
  EXPECT_EQ(CombineCpus(2, 6.0), 2);
  EXPECT_EQ(CombineCpus(0, std::nullopt), 1);
}

TEST(CgroupV2, OwnGroupAndParentsAreSearchedForTheTightestLimit) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo", kMountV2},
      {"/proc/self/cgroup", "0::/user.slice/job\n"},
      {"/sys/fs/cgroup/user.slice/job/memory.max", "max\n"},
      {"/sys/fs/cgroup/user.slice/memory.max", "1000000\n"},
      {"/sys/fs/cgroup/user.slice/memory.current", "300000\n"},
      {"/sys/fs/cgroup/user.slice/job/cpu.max", "400000 100000\n"},
      {"/sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n"},
  }));
  EXPECT_EQ(limits.memory_available, 700000);
  EXPECT_EQ(limits.cpus, 2.5);
}

TEST(CgroupV2, ReclaimableFileCacheIsNotUsage) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo", kMountV2},
      {"/proc/self/cgroup", "0::/\n"},
      {"/sys/fs/cgroup/memory.max", "1000000\n"},
      {"/sys/fs/cgroup/memory.current", "900000\n"},
      {"/sys/fs/cgroup/memory.stat", "anon 1\nactive_file 7\ninactive_file 500000\n"},
  }));
  EXPECT_EQ(limits.memory_available, 600000);
}

TEST(CgroupV2, MemoryHighBelowMaxIsTheLimit) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo", kMountV2},
      {"/proc/self/cgroup", "0::/\n"},
      {"/sys/fs/cgroup/memory.max", "1000000\n"},
      {"/sys/fs/cgroup/memory.high", "400000\n"},
      {"/sys/fs/cgroup/memory.current", "0\n"},
  }));
  EXPECT_EQ(limits.memory_available, 400000);
}

TEST(CgroupV2, UsageAboveTheLimitLeavesNothing) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo", kMountV2},
      {"/proc/self/cgroup", "0::/\n"},
      {"/sys/fs/cgroup/memory.max", "1000\n"},
      {"/sys/fs/cgroup/memory.current", "2000\n"},
  }));
  EXPECT_EQ(limits.memory_available, 0);
}

TEST(CgroupV1, LimitsOfEachControllersOwnHierarchy) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo",
       "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
       "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"},
      {"/proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/job\n0::/\n"},
      {"/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "5000000\n"},
      {"/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "2000000\n"},
      {"/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 9\ntotal_inactive_file 500000\n"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"},
  }));
  EXPECT_EQ(limits.memory_available, 3500000);
  EXPECT_EQ(limits.cpus, 0.5);
}

TEST(CgroupV1, AContainersMountShowsItsOwnGroupAsTheRoot) {
  const CgroupLimits limits = FindLimits(Files({
      {"/proc/self/mountinfo",
       "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"},
      {"/proc/self/cgroup", "4:memory:/docker/abc\n"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"},
      {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"},
  }));
  EXPECT_EQ(limits.memory_available, 900);
}

TEST(Cgroup, NoCgroupsMeansNoLimits) {
  const CgroupLimits limits = FindLimits(Files({}));
  EXPECT_EQ(limits.memory_available, std::nullopt);
  EXPECT_EQ(limits.cpus, std::nullopt);
}

TEST(MemoryGauge, ReadsTheLimitsEveryTimeAndLooksForTheGroupsWhenTold) {
  std::map<std::string, std::string> files = {
      {"/proc/meminfo", "MemAvailable: 2000 kB\n"},
      {"/proc/self/mountinfo", kMountV2},
      {"/proc/self/cgroup", "0::/one\n"},
      {"/sys/fs/cgroup/one/memory.max", "1000000\n"},
      {"/sys/fs/cgroup/one/memory.current", "300000\n"},
      {"/sys/fs/cgroup/two/memory.max", "5000\n"},
  };
  MemoryGauge gauge([&files](const std::string& path) { return Files(files)(path); });
  EXPECT_EQ(gauge.AvailableBytes(), 700'000);
  files["/sys/fs/cgroup/one/memory.current"] = "900000\n";
  EXPECT_EQ(gauge.AvailableBytes(), 100'000);
  files["/sys/fs/cgroup/one/memory.max"] = "max\n";
  EXPECT_EQ(gauge.AvailableBytes(), 2000 * 1024);
  files["/proc/meminfo"] = "MemAvailable: 3 kB\n";
  EXPECT_EQ(gauge.AvailableBytes(), 3 * 1024);
  files["/proc/meminfo"] = "MemAvailable: 2000 kB\n";
  files["/proc/self/cgroup"] = "0::/two\n";
  EXPECT_EQ(gauge.AvailableBytes(), 2000 * 1024);
  gauge.FindGroups();
  EXPECT_EQ(gauge.AvailableBytes(), 5000);
  files["/sys/fs/cgroup/memory.max"] = "4000\n";
  EXPECT_EQ(gauge.AvailableBytes(), 5000) << "that group had no limit";
  gauge.FindGroups();
  EXPECT_EQ(gauge.AvailableBytes(), 4000);
}

TEST(ReadSmallFile, GivesAllOfAFileAndNothingOfWhatCannotBeRead) {
  const std::string path = testing::TempDir() + "small_file";
  std::string text(10'000, 'x');
  text += '\0';
  std::ofstream(path) << text;
  EXPECT_EQ(ReadSmallFile(path), text);
  EXPECT_EQ(ReadSmallFile(testing::TempDir()), std::nullopt);
  EXPECT_EQ(ReadSmallFile(path + ".missing"), std::nullopt);
}

TEST(DefaultMemoryLimit, IsThreeQuartersAndNeverZero) {
  EXPECT_EQ(DefaultMemoryLimit(4000), 3000);
  EXPECT_EQ(DefaultMemoryLimit(0), 1);
  EXPECT_GT(DefaultMemoryLimit(INT64_MAX), int64_t{1} << 62);
}

TEST(ThisMachine, HasACpuAndMemory) {
  EXPECT_GE(UsableCpus(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 0);
}

}  // namespace
}  // namespace tiny_knn
