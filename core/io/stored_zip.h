// Zip files whose entries are stored as they are: what numpy.savez writes and np.load reads.
//
// Written by hand since everything's place is known before the first row is found: rows go where
// they belong, and headers, whose checksums are known last, around them. Libraries (libzip,
// minizip) pull whole entries when the file is closed, so that a result would lie on disk or in
// memory twice. Formats: PKWARE's APPNOTE.TXT 6.3.9, sections 4.3 and 4.5.3; Zip64 where a number
// needs it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Where the parts of a zip lie. Entries follow each other from byte 0; the directory follows the
// last.
class StoredZipLayout {
 public:
  // Adds an entry of that many bytes; returns its number. `name`: ASCII, below 64 KiB.
  size_t Add(std::string name, int64_t bytes);

  // Offset of an entry's header, and of its first byte.
  int64_t header_offset(size_t entry) const { return entries_[entry].header_offset; }
  int64_t data_offset(size_t entry) const { return entries_[entry].data_offset; }
  int64_t directory_offset() const { return end_; }
  // Of the whole file.
  int64_t total_bytes() const;

  // The header of an entry by its number, and the directory with the file's last record. `crc32` is
  // of the entry's bytes, `crc32s` of all entries'.
  std::string Header(size_t number, uint32_t crc32) const;
  std::string Directory(std::span<const uint32_t> crc32s) const;

 private:
  struct Entry {
    std::string name;
    int64_t bytes;
    int64_t header_offset;
    int64_t data_offset;
  };
  std::vector<Entry> entries_;
  int64_t end_ = 0;
};

// An entry of a zip that is read. Views point into the zip.
struct StoredZipEntry {
  std::string_view name;
  std::span<const uint8_t> bytes;
  uint32_t crc32 = 0;  // as the directory says; not compared yet
};

// The entries of a zip, in the order of its directory. InvalidArgument, in one line, for what is no
// zip, is damaged, or has entries that are compressed or encrypted. Never reads outside `zip`; work
// is linear in its size.
absl::StatusOr<std::vector<StoredZipEntry>> ReadStoredZip(std::span<const uint8_t> bytes);

}  // namespace tiny_knn
