#include "core/io/result_npz.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "core/io/npy.h"
#include "core/io/npy_scalar.h"
#include "core/io/result_rows.h"
#include "core/io/stored_zip.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays are written as they lie in memory, as '<i8' and '<f4'");

constexpr std::string_view kSuffix = ".npy";

uint32_t Crc32(uint32_t so_far, const void* data, size_t bytes) {
  if (bytes == 0) return so_far;  // zlib begins anew where there is no data
  return static_cast<uint32_t>(crc32_z(so_far, static_cast<const Bytef*>(data), bytes));
}

std::span<const std::byte> AsBytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string NpyOf(const std::string& text) { return NpyText(text); }
std::string NpyOf(int64_t number) { return NpyInt(number); }
std::string NpyOf(bool value) { return NpyBool(value); }

// Checks of the directory come first, so that damage is not taken for something else.
class NpzReader {
 public:
  explicit NpzReader(std::vector<StoredZipEntry> entries) : entries_(std::move(entries)) {}

  // Null where there is none; the last one of a name counts, as in Python.
  const StoredZipEntry* Find(std::string_view name) const {
    const auto last = std::find_if(entries_.rbegin(), entries_.rend(), [&](const auto& entry) {
      return entry.name.size() == name.size() + kSuffix.size() && entry.name.starts_with(name) &&
             entry.name.ends_with(kSuffix);
    });
    return last == entries_.rend() ? nullptr : &*last;
  }

  absl::Status Read(std::string_view name, std::string& out) const {
    return ReadWith(ParseNpyText, name, out);
  }
  absl::Status Read(std::string_view name, int64_t& out) const {
    return ReadWith(ParseNpyInt, name, out);
  }
  absl::Status Read(std::string_view name, bool& out) const {
    return ReadWith(ParseNpyBool, name, out);
  }

  struct Array {
    NpyHeader header;
    std::string_view data;
  };
  absl::StatusOr<Array> Matrix(std::string_view name) const {
    const StoredZipEntry* const entry = Find(name);
    if (entry == nullptr) {
      return absl::InvalidArgumentError(
          fmt::format("has no '{}'; expected a result of tiny-knn run", name));
    }
    const absl::StatusOr<NpyHeader> header = ParseNpyHeader(entry->bytes, std::nullopt);
    if (!header.ok()) return Named(name, header.status());
    const auto bytes = static_cast<int64_t>(entry->bytes.size());
    if (header->data_bytes() != bytes - header->data_offset) {
      return absl::InvalidArgumentError(fmt::format("'{}' has {} bytes of data, {} expected", name,
                                                    bytes - header->data_offset,
                                                    header->data_bytes()));
    }
    const bool is_flat = header->rows <= 1 || header->dim <= 1;
    if (header->swap_bytes || (header->fortran_order && !is_flat)) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not in C order and native byte order", name));
    }
    return Array{*header,
                 {reinterpret_cast<const char*>(entry->bytes.data()) + header->data_offset,
                  static_cast<size_t>(header->data_bytes())}};
  }

  absl::Status CheckSums() const {
    for (const StoredZipEntry& entry : entries_) {
      if (Crc32(0, entry.bytes.data(), entry.bytes.size()) != entry.crc32) {
        return absl::InvalidArgumentError("is a damaged zip: the checksum of an entry is wrong");
      }
    }
    return absl::OkStatus();
  }

 private:
  template <typename T>
  absl::Status ReadWith(absl::StatusOr<T> (*parse)(std::span<const uint8_t>), std::string_view name,
                        T& out) const {
    const StoredZipEntry* const entry = Find(name);
    if (entry == nullptr) return absl::OkStatus();
    absl::StatusOr<T> value = parse(entry->bytes);
    if (!value.ok()) return Named(name, value.status());
    out = *std::move(value);
    return absl::OkStatus();
  }

  static absl::Status Named(std::string_view name, const absl::Status& status) {
    return absl::InvalidArgumentError(fmt::format("'{}' {}", name, std::string(status.message())));
  }

  std::vector<StoredZipEntry> entries_;
};

absl::Status ReadArrays(const NpzReader& reader, ResultView& result) {
  const absl::StatusOr<NpzReader::Array> indices = reader.Matrix("indices");
  if (!indices.ok()) return indices.status();
  const absl::StatusOr<NpzReader::Array> scores = reader.Matrix("scores");
  if (!scores.ok()) return scores.status();
  if (indices->header.dtype != DType::kInt64) {
    return absl::InvalidArgumentError(
        fmt::format("'indices' is {}; expected int64", DTypeName(indices->header.dtype)));
  }
  const DType dtype = scores->header.dtype;
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    return absl::InvalidArgumentError(
        fmt::format("'scores' is {}; expected float32 or float64", DTypeName(dtype)));
  }
  const NpyHeader& shape = indices->header;
  if (shape.rows != scores->header.rows || shape.dim != scores->header.dim) {
    return absl::InvalidArgumentError(
        fmt::format("'indices' is {} x {} and 'scores' is {} x {}; expected the same shape",
                    shape.rows, shape.dim, scores->header.rows, scores->header.dim));
  }
  result.metadata.num_queries = shape.rows;
  result.metadata.k = shape.dim;
  result.metadata.score_dtype = dtype;
  result.indices = indices->data;
  result.scores = scores->data;
  return absl::OkStatus();
}

}  // namespace

struct ResultNpzWriter::State {
  StoredZipLayout layout;
  std::vector<uint32_t> crc32s;
  std::vector<std::string> heads;  // of every entry: an .npy file, without the data of the arrays
  std::optional<ResultRows> rows;
  int64_t next_query = 0;
};

ResultNpzWriter::ResultNpzWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
ResultNpzWriter::~ResultNpzWriter() = default;

absl::StatusOr<std::unique_ptr<ResultNpzWriter>> ResultNpzWriter::Create(
    const std::string& path, const ResultMetadata& metadata, const AtomicFileOptions& options) {
  const absl::StatusOr<ResultSizes> sizes = SizesOf(path, metadata);
  if (!sizes.ok()) return sizes.status();
  auto state = std::make_unique<State>();
  const auto add = [&](std::string_view name, std::string head, int64_t data_bytes) {
    state->layout.Add(std::string(name) + std::string(kSuffix),
                      static_cast<int64_t>(head.size()) + data_bytes);
    state->crc32s.push_back(Crc32(0, head.data(), head.size()));
    state->heads.push_back(std::move(head));
  };
  const std::string shape = fmt::format("({}, {})", metadata.num_queries, metadata.k);
  add("indices", NpyHead("<i8", shape), sizes->indices_bytes);
  add("scores", NpyHead(metadata.score_dtype == DType::kFloat64 ? "<f8" : "<f4", shape),
      sizes->scores_bytes);
  VisitResultFields(metadata, /*all=*/false,
                    [&add](std::string_view key, const auto& field) { add(key, NpyOf(field), 0); });

  const StoredZipLayout& layout = state->layout;
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path, options);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->Reserve(layout.total_bytes());
  for (size_t i = 0; status.ok() && i < state->heads.size(); ++i) {
    status = (*file)->WriteAt(layout.data_offset(i), AsBytes(state->heads[i]));
  }
  if (!status.ok()) return status;
  const auto after_head = [&](size_t entry) {
    return layout.data_offset(entry) + static_cast<int64_t>(state->heads[entry].size());
  };
  state->rows.emplace(*std::move(file), metadata, after_head(0), after_head(1));
  return std::unique_ptr<ResultNpzWriter>(new ResultNpzWriter(std::move(state)));
}

absl::Status ResultNpzWriter::WriteRows(int64_t first_query, int64_t num_queries,
                                        const int64_t* indices, const void* scores) {
  State& s = *state_;
  if (first_query != s.next_query) {
    return absl::FailedPreconditionError(fmt::format("{}: row {} written where {} is the next",
                                                     s.rows->file().target_path(), first_query,
                                                     s.next_query));
  }
  const absl::Status status = s.rows->Write(first_query, num_queries, indices, scores);
  if (!status.ok()) return status;
  const auto count = static_cast<size_t>(num_queries * s.rows->k());
  s.crc32s[0] = Crc32(s.crc32s[0], indices, count * sizeof(int64_t));
  s.crc32s[1] = Crc32(s.crc32s[1], scores, count * static_cast<size_t>(s.rows->score_size()));
  s.next_query = first_query + num_queries;
  return absl::OkStatus();
}

absl::Status ResultNpzWriter::Commit() {
  State& s = *state_;
  absl::Status status = s.rows->CheckComplete();
  for (size_t i = 0; status.ok() && i < s.crc32s.size(); ++i) {
    status =
        s.rows->file().WriteAt(s.layout.header_offset(i), AsBytes(s.layout.Header(i, s.crc32s[i])));
  }
  if (status.ok()) {
    status =
        s.rows->file().WriteAt(s.layout.directory_offset(), AsBytes(s.layout.Directory(s.crc32s)));
  }
  return status.ok() ? s.rows->Commit() : status;
}

absl::StatusOr<ResultView> ParseResultNpz(std::span<const uint8_t> bytes) {
  absl::StatusOr<std::vector<StoredZipEntry>> entries = ReadStoredZip(bytes);
  if (!entries.ok()) return entries.status();
  const NpzReader reader(*std::move(entries));
  ResultView result;
  absl::Status status;
  VisitResultFields(result.metadata, /*all=*/true, [&](std::string_view key, auto& field) {
    if (status.ok()) status = reader.Read(key, field);
  });
  if (status.ok()) status = ReadArrays(reader, result);
  if (status.ok()) status = reader.CheckSums();
  if (!status.ok()) return status;
  return result;
}

}  // namespace tiny_knn
