#include "core/io/stored_zip.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr uint32_t kLocalSignature = 0x04034B50;
constexpr uint32_t kCentralSignature = 0x02014B50;
constexpr uint32_t kEndSignature = 0x06054B50;
constexpr uint32_t kEnd64Signature = 0x06064B50;
constexpr uint32_t kLocator64Signature = 0x07064B50;
constexpr int64_t kLocalBytes = 30;
constexpr int64_t kCentralBytes = 46;
constexpr int64_t kEndBytes = 22;
constexpr int64_t kEnd64Bytes = 56;
constexpr int64_t kLocator64Bytes = 20;
constexpr uint16_t kExtra64 = 0x0001;
constexpr uint16_t kVersion = 20, kVersion64 = 45;
// 1 January 1980, midnight: results of the same search are the same bytes.
constexpr uint16_t kDate = 0x0021;
constexpr int64_t kLarge = 0xFFFFFFFF;  // from here on a number stands in a Zip64 field
constexpr int64_t kManyEntries = 0xFFFF;
constexpr uint16_t kEncrypted = 0x0001;

// Little-endian numbers, one after the other.
class Bytes {
 public:
  Bytes& Number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i) & 0xFF);
    return *this;
  }
  Bytes& U16(uint64_t value) { return Number(value, 2); }
  Bytes& U32(uint64_t value) { return Number(value, 4); }
  Bytes& U64(int64_t value) { return Number(static_cast<uint64_t>(value), 8); }
  // A 32-bit field, or what says that the number stands in a Zip64 field.
  Bytes& Small(int64_t value) { return U32(static_cast<uint64_t>(std::min(value, kLarge))); }
  Bytes& Text(std::string_view text) {
    text_ += text;
    return *this;
  }
  std::string Take() { return std::move(text_); }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

bool IsLarge(int64_t value) { return value >= kLarge; }

// The Zip64 field of a header before an entry: both sizes, or nothing.
int64_t LocalExtraBytes(int64_t bytes) { return IsLarge(bytes) ? 20 : 0; }

}  // namespace

size_t StoredZipLayout::Add(std::string name, int64_t bytes) {
  Entry entry{std::move(name), bytes, end_, 0};
  entry.data_offset =
      end_ + kLocalBytes + static_cast<int64_t>(entry.name.size()) + LocalExtraBytes(bytes);
  end_ = entry.data_offset + bytes;
  entries_.push_back(std::move(entry));
  return entries_.size() - 1;
}

int64_t StoredZipLayout::total_bytes() const {
  // The checksums' values change no size.
  const std::vector<uint32_t> none(entries_.size());
  return end_ + static_cast<int64_t>(Directory(none).size());
}

std::string StoredZipLayout::Header(size_t number, uint32_t crc32) const {
  const Entry& entry = entries_[number];
  const bool large = IsLarge(entry.bytes);
  Bytes out;
  out.U32(kLocalSignature).U16(large ? kVersion64 : kVersion).U16(0).U16(0).U16(0).U16(kDate);
  out.U32(crc32).Small(entry.bytes).Small(entry.bytes);
  out.U16(entry.name.size()).U16(static_cast<uint64_t>(LocalExtraBytes(entry.bytes)));
  out.Text(entry.name);
  if (large) out.U16(kExtra64).U16(16).U64(entry.bytes).U64(entry.bytes);
  return out.Take();
}

std::string StoredZipLayout::Directory(std::span<const uint32_t> crc32s) const {
  Bytes out;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    Bytes extra;
    if (IsLarge(entry.bytes)) extra.U64(entry.bytes).U64(entry.bytes);
    if (IsLarge(entry.header_offset)) extra.U64(entry.header_offset);
    const bool large = !extra.text().empty();
    const uint16_t version = large ? kVersion64 : kVersion;
    out.U32(kCentralSignature).U16(version).U16(version).U16(0).U16(0).U16(0).U16(kDate);
    out.U32(crc32s[i]).Small(entry.bytes).Small(entry.bytes);
    out.U16(entry.name.size()).U16(large ? extra.text().size() + 4 : 0).U16(0).U16(0).U16(0).U32(0);
    out.Small(entry.header_offset).Text(entry.name);
    if (large) out.U16(kExtra64).U16(extra.text().size()).Text(extra.text());
  }
  const auto directory_bytes = static_cast<int64_t>(out.text().size());
  const auto count = static_cast<int64_t>(entries_.size());
  if (IsLarge(end_) || IsLarge(directory_bytes) || count >= kManyEntries) {
    out.U32(kEnd64Signature).U64(kEnd64Bytes - 12).U16(kVersion64).U16(kVersion64).U32(0).U32(0);
    out.U64(count).U64(count).U64(directory_bytes).U64(end_);
    out.U32(kLocator64Signature).U32(0).U64(end_ + directory_bytes).U32(1);
  }
  const auto small_count = static_cast<uint64_t>(std::min(count, kManyEntries));
  out.U32(kEndSignature).U16(0).U16(0).U16(small_count).U16(small_count);
  out.Small(directory_bytes).Small(end_).U16(0);
  return out.Take();
}

namespace {

// Reads numbers at places that were checked to be inside.
class View {
 public:
  explicit View(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  // Whether [offset, offset + bytes) lies inside.
  bool Has(int64_t offset, int64_t bytes) const {
    return offset >= 0 && bytes >= 0 && offset <= size() && bytes <= size() - offset;
  }
  uint64_t Number(int64_t offset, int bytes) const {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) {
      value = value << 8 | bytes_[static_cast<size_t>(offset + i)];
    }
    return value;
  }
  uint32_t U32(int64_t offset) const { return static_cast<uint32_t>(Number(offset, 4)); }
  int64_t U16(int64_t offset) const { return static_cast<int64_t>(Number(offset, 2)); }
  // -1 for one that no file reaches.
  int64_t U64(int64_t offset) const {
    const uint64_t value = Number(offset, 8);
    return value > INT64_MAX ? -1 : static_cast<int64_t>(value);
  }
  std::span<const uint8_t> Part(int64_t offset, int64_t bytes) const {
    return bytes_.subspan(static_cast<size_t>(offset), static_cast<size_t>(bytes));
  }

 private:
  std::span<const uint8_t> bytes_;
};

absl::Status Damaged(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("is a damaged zip: {}", what));
}

struct DirectoryPlace {
  int64_t offset = 0;
  int64_t bytes = 0;
  int64_t entries = 0;
};

// The last record of the zip, behind which there may be a comment.
std::optional<int64_t> FindEnd(const View& zip) {
  const int64_t first = std::max<int64_t>(0, zip.size() - kEndBytes - 0xFFFF);
  for (int64_t at = zip.size() - kEndBytes; at >= first; --at) {
    if (zip.U32(at) == kEndSignature && zip.U16(at + 20) == zip.size() - at - kEndBytes) return at;
  }
  return std::nullopt;
}

absl::StatusOr<DirectoryPlace> FindDirectory(const View& zip) {
  const std::optional<int64_t> end = FindEnd(zip);
  if (!end) {
    return absl::InvalidArgumentError(
        "is no whole zip: its last record is missing; was it truncated?");
  }
  DirectoryPlace place{static_cast<int64_t>(zip.U32(*end + 16)),
                       static_cast<int64_t>(zip.U32(*end + 12)), zip.U16(*end + 10)};
  const int64_t locator = *end - kLocator64Bytes;
  if (zip.Has(locator, kLocator64Bytes) && zip.U32(locator) == kLocator64Signature) {
    const int64_t end64 = zip.U64(locator + 8);
    if (!zip.Has(end64, kEnd64Bytes) || zip.U32(end64) != kEnd64Signature) {
      return Damaged("its Zip64 record is not where it should be");
    }
    place = {zip.U64(end64 + 48), zip.U64(end64 + 40), zip.U64(end64 + 32)};
  }
  if (!zip.Has(place.offset, place.bytes) || place.entries < 0 ||
      place.entries > place.bytes / kCentralBytes) {
    return Damaged("its directory does not lie in it");
  }
  return place;
}

// The numbers of an entry that stand in its Zip64 field, in their order, where they are `kLarge`.
absl::Status ReadExtra64(const View& zip, int64_t at, int64_t bytes,
                         std::span<int64_t* const> numbers) {
  for (const int64_t end = at + bytes; end - at >= 4;) {
    const int64_t id = zip.U16(at), size = zip.U16(at + 2);
    if (size > end - at - 4) break;
    if (id == kExtra64) {
      int64_t field = at + 4;
      for (int64_t* const number : numbers) {
        if (*number != kLarge) continue;
        if (at + 4 + size - field < 8) return Damaged("a Zip64 field is too short");
        *number = zip.U64(field);
        field += 8;
      }
      return absl::OkStatus();
    }
    at += 4 + size;
  }
  // Without the field the numbers are what they are: an entry of just 4 GiB - 1 has none.
  return absl::OkStatus();
}

absl::StatusOr<StoredZipEntry> ReadEntry(const View& zip, int64_t central, int64_t end,
                                         int64_t& next) {
  if (end - central < kCentralBytes || zip.U32(central) != kCentralSignature) {
    return Damaged("its directory ends too early");
  }
  const int64_t name_bytes = zip.U16(central + 28);
  const int64_t extra_bytes = zip.U16(central + 30);
  next = central + kCentralBytes + name_bytes + extra_bytes + zip.U16(central + 32);
  if (next > end) return Damaged("an entry of its directory does not lie in it");
  const auto name_span = zip.Part(central + kCentralBytes, name_bytes);
  StoredZipEntry entry;
  entry.name = {reinterpret_cast<const char*>(name_span.data()), name_span.size()};
  entry.crc32 = zip.U32(central + 16);
  int64_t stored = zip.U32(central + 20), bytes = zip.U32(central + 24),
          local = zip.U32(central + 42);
  int64_t* const numbers[] = {&bytes, &stored, &local};
  const absl::Status extra =
      ReadExtra64(zip, central + kCentralBytes + name_bytes, extra_bytes, numbers);
  if (!extra.ok()) return extra;
  if ((zip.U16(central + 8) & kEncrypted) != 0) {
    return absl::InvalidArgumentError("is an encrypted zip; save it without a password");
  }
  if (zip.U16(central + 10) != 0 || stored != bytes) {
    return absl::InvalidArgumentError(
        "is a compressed zip; save it with numpy.savez, not savez_compressed");
  }
  if (!zip.Has(local, kLocalBytes) || zip.U32(local) != kLocalSignature) {
    return Damaged("an entry is not where its directory says");
  }
  const int64_t data = local + kLocalBytes + zip.U16(local + 26) + zip.U16(local + 28);
  if (!zip.Has(data, bytes)) return Damaged("an entry does not lie in it");
  entry.bytes = zip.Part(data, bytes);
  return entry;
}

}  // namespace

absl::StatusOr<std::vector<StoredZipEntry>> ReadStoredZip(std::span<const uint8_t> bytes) {
  const View zip(bytes);
  const absl::StatusOr<DirectoryPlace> place = FindDirectory(zip);
  if (!place.ok()) return place.status();
  std::vector<StoredZipEntry> entries;
  int64_t at = place->offset;
  for (int64_t i = 0; i < place->entries; ++i) {
    int64_t next = 0;
    absl::StatusOr<StoredZipEntry> entry = ReadEntry(zip, at, place->offset + place->bytes, next);
    if (!entry.ok()) return entry.status();
    entries.push_back(*entry);
    at = next;
  }
  return entries;
}

}  // namespace tiny_knn
