#include "gpu/emulation/fatbin.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn::emulation {
namespace {

constexpr uint32_t kMagic = 0xba55ed50;
constexpr size_t kHeaderBytes = 16;
constexpr size_t kEntryBytes = 48;  // as far as it is read here
constexpr uint16_t kPtxEntry = 1;
constexpr uint64_t kCompressedFlags = 0x2000 | 0x8000;  // LZ4, zstd

template <typename T>
T Read(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

// Header: u32 magic, u16 version, u16 bytes of the header, u64 bytes after it.
size_t FatbinSize(std::span<const std::byte> header) {
  if (header.size() < kHeaderBytes || Read<uint32_t>(header, 0) != kMagic) return 0;
  return Read<uint16_t>(header, 6) + Read<uint64_t>(header, 8);
}

absl::StatusOr<std::vector<PtxImage>> ReadFatbin(std::span<const std::byte> fatbin) {
  if (fatbin.size() < kHeaderBytes || Read<uint32_t>(fatbin, 0) != kMagic) {
    return absl::InvalidArgumentError("fatbin: no header of magic 0xba55ed50");
  }
  const size_t header_bytes = Read<uint16_t>(fatbin, 6);
  const uint64_t payload = Read<uint64_t>(fatbin, 8);
  if (header_bytes < kHeaderBytes || header_bytes > fatbin.size() ||
      payload > fatbin.size() - header_bytes) {
    return absl::InvalidArgumentError(fmt::format("fatbin: {} + {} bytes announced, {} there",
                                                  header_bytes, payload, fatbin.size()));
  }
  std::vector<PtxImage> images;
  std::span<const std::byte> rest = fatbin.subspan(header_bytes, payload);
  while (!rest.empty()) {
    // Entry: u16 kind, u32 bytes of its header at 4, u64 bytes after that at 8, u32 arch at 28,
    // u64 flags at 40.
    if (rest.size() < kEntryBytes) {
      return absl::InvalidArgumentError("fatbin: ends within the header of an entry");
    }
    const auto kind = Read<uint16_t>(rest, 0);
    const size_t entry_header = Read<uint32_t>(rest, 4);
    const auto size = Read<uint64_t>(rest, 8);
    if (entry_header < kEntryBytes || entry_header > rest.size() ||
        size > rest.size() - entry_header) {
      return absl::InvalidArgumentError(fmt::format(
          "fatbin: an entry of {} + {} bytes where {} are left", entry_header, size, rest.size()));
    }
    if (kind == kPtxEntry) {
      if ((Read<uint64_t>(rest, 40) & kCompressedFlags) != 0) {
        return absl::FailedPreconditionError(
            "fatbin: the PTX is compressed; compile with nvcc -no-compress");
      }
      const auto* text = reinterpret_cast<const char*>(rest.data() + entry_header);
      // Padded with zeros.
      images.push_back({.arch = static_cast<int>(Read<uint32_t>(rest, 28)),
                        .text = std::string(text, strnlen(text, size))});
    }
    rest = rest.subspan(entry_header + size);
  }
  return images;
}

}  // namespace tiny_knn::emulation
