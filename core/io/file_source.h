// A .npy file that is open: what the sources of its rows share, whatever its layout.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "core/io/direct_reader.h"
#include "core/io/file_util.h"
#include "core/io/npy.h"
#include "core/io/read_ahead.h"
#include "core/io/row_source.h"

namespace tiny_knn {

// Knows what the file was when it was opened, and reads it. Thread-compatible; where that is said,
// a method may be called on any thread.
class FileSource : public RowSource {
 public:
  // `window` and `step`: ReadAhead::Options, in rows.
  struct Ahead {
    int64_t window = 1;
    int64_t step = 1;
  };
  FileSource(std::string name, const NpyHeader& header, OpenedFile file, const Ahead& ahead);

  absl::Status CheckUnchanged() override;

 protected:
  const NpyHeader& header() const { return header_; }
  int64_t row_bytes() const { return dim() * ItemSize(dtype()); }
  int64_t OffsetOf(int64_t row) const { return header_.data_offset + row * row_bytes(); }
  int64_t data_end() const { return header_.data_offset + header_.data_bytes(); }
  ReadAhead& ahead() { return ahead_; }
  // Whether its thread may start.
  void AllowReadingAhead(bool allowed);

  // A reader of this file past the page cache, or null.
  std::unique_ptr<DirectReader> OpenDirectly() const;

  // Whether the system holds more than half of the bytes in memory, or all of them, as far as some
  // of them tell.
  bool IsMostlyCached(int64_t begin, int64_t end) const;
  bool IsCached(int64_t begin, int64_t end) const;

  // RowSource::ExpectFetch, in C order. Any thread.
  void ExpectReading(int64_t row);

  // Any thread. Starts to read ahead where the system does not have the bytes at hand.
  absl::Status ReadExactly(int64_t offset, std::byte* out, int64_t bytes);

  // Rows in C order, as they are stored. Any thread.
  absl::Status ReadStoredRows(const RowSelection& rows, std::byte* out);

  // The same of rows that lie anywhere, without a thread that reads ahead. Any thread.
  absl::Status ReadEachStoredRow(std::span<const int64_t> rows, std::byte* out);

 private:
  // How many of so many bytes, spread over the range, the system holds in memory.
  int CountCached(int64_t begin, int64_t end, int probes) const;

  // Bytes that are waited for.
  absl::Status ReadWaiting(int64_t offset, std::byte* out, int64_t bytes) const;

  // What need not be waited for: false where that is too little.
  bool ReadWithoutWaiting(int64_t offset, std::byte* out, int64_t bytes) const;

  // The same. Once that was too little, a thread sees to it, and it is not tried again: false.
  bool ReadAtHand(int64_t offset, std::byte* out, int64_t bytes);

  // On the thread that reads ahead: rows [begin, end) into the page cache.
  void Ask(int64_t begin, int64_t end);

  const NpyHeader header_;
  const OpenedFile file_;
  bool may_read_ahead_ = true;
  std::atomic<bool> not_at_hand_ = false;
  ReadAhead ahead_;  // last, since its thread uses the others
};

}  // namespace tiny_knn
