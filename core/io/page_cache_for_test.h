// What of a file the system holds in memory, and how to make it hold nothing.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tiny_knn {

// Whether all of bytes [begin, end) are there; false where that cannot be known.
inline bool IsCached(const std::string& path, int64_t begin, int64_t end) {
  const int fd = open(path.c_str(), O_RDONLY);
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t first = begin / page * page;
  const size_t bytes = static_cast<size_t>(end - first);
  void* const data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, first);
  close(fd);
  std::vector<unsigned char> cached((bytes + static_cast<size_t>(page) - 1) /
                                    static_cast<size_t>(page));
  const bool known = data != MAP_FAILED && mincore(data, bytes, cached.data()) == 0;
  if (data != MAP_FAILED) munmap(data, bytes);
  return known && std::all_of(cached.begin(), cached.end(), [](unsigned char c) { return c & 1; });
}

// True if the second half of the file is on the disk only now: not where files are in memory.
inline bool Evict(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY);
  fsync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  struct stat stats;
  stat(path.c_str(), &stats);
  return !IsCached(path, stats.st_size / 2, stats.st_size);
}

}  // namespace tiny_knn
