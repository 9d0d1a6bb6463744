// A checkpoint as bytes: how far a search is, and which search it is of. docs/shards.md has the
// layout.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/search/search_state.h"

namespace tiny_knn {

struct CheckpointData {
  // What has to be the same for a search to go on from here: names and values, both for people too.
  std::vector<std::pair<std::string, std::string>> identity;
  std::string run_id;       // 16 hexadecimal digits, the same for all checkpoints of one search
  uint32_t rows_crc32 = 0;  // of the rows of finished queries, which stand in another file
  SearchState state;
};

// Writes it through an AtomicFile with that temporary tag. Errors as of AtomicFile.
absl::Status WriteCheckpoint(const std::string& path, const std::string& temporary_tag,
                             const CheckpointData& data);

// Safe on any bytes; memory is in proportion to them. InvalidArgument, in one line without a file's
// name. What comes back is whole and undamaged as far as its checksum tells; whether the state is
// one of a certain search is for CheckState to say.
absl::StatusOr<CheckpointData> ParseCheckpoint(std::span<const uint8_t> bytes);

}  // namespace tiny_knn
