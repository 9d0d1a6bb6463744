#include "core/io/result_file.h"

#include <cstring>
#include <new>
#include <string_view>
#include <utility>
#include <vector>

#include "core/io/file_util.h"
#include "core/io/mapped_file.h"
#include "core/io/result_npz.h"
#include "core/io/result_pickle.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

bool LooksLikeZip(std::span<const uint8_t> start) {
  return start.size() >= 4 && start[0] == 'P' && start[1] == 'K' &&
         (start[2] == 3 || start[2] == 5);  // an entry, or the end of one without entries
}

absl::StatusOr<ResultView> ParseResult(std::span<const uint8_t> bytes) {
  return LooksLikeZip(bytes) ? ParseResultNpz(bytes) : ParseResultPickle(bytes);
}

// The file's bytes: mapped, or read into `storage` where it cannot be mapped.
absl::StatusOr<std::span<const uint8_t>> FileBytes(const OpenedFile& file, const std::string& path,
                                                   std::unique_ptr<MappedFile>& mapping,
                                                   std::vector<std::byte>& storage) {
  std::span<const std::byte> bytes;
  if (file.stat.st_size > 0) {
    absl::StatusOr<std::unique_ptr<MappedFile>> mapped =
        MappedFile::Map(file.fd.get(), file.stat.st_size, path);
    if (mapped.ok()) {
      mapping = *std::move(mapped);
      bytes = mapping->bytes();
    } else {
      storage.resize(static_cast<size_t>(file.stat.st_size));
      absl::StatusOr<int64_t> got = ReadAt(file.fd.get(), 0, storage, path);
      if (!got.ok()) return got.status();
      bytes = std::span(storage).first(static_cast<size_t>(*got));
    }
  }
  return std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

absl::StatusOr<std::unique_ptr<ResultWriter>> CreateResultWriter(const std::string& path,
                                                                 const ResultMetadata& metadata,
                                                                 const AtomicFileOptions& options) {
  if (std::string_view(path).ends_with(".npz")) {
    return ResultNpzWriter::Create(path, metadata, options);
  }
  return ResultPickleWriter::Create(path, metadata, options);
}

bool LooksLikeResult(std::span<const uint8_t> start) {
  const bool pickle = start.size() >= 2 && start[0] == 0x80 && start[1] >= 2 && start[1] <= 5;
  return pickle || LooksLikeZip(start);
}

OpenedResult::OpenedResult() = default;
OpenedResult::~OpenedResult() = default;

absl::StatusOr<std::unique_ptr<OpenedResult>> OpenedResult::Open(const std::string& path) {
  absl::StatusOr<OpenedFile> file = OpenRegularFile(path, "a result of tiny-knn run (.pkl, .npz)");
  if (!file.ok()) return file.status();
  try {
    std::unique_ptr<OpenedResult> opened(new OpenedResult);
    opened->path_ = path;
    absl::StatusOr<std::span<const uint8_t>> bytes =
        FileBytes(*file, path, opened->mapping_, opened->storage_);
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<ResultView> view = ParseResult(*bytes);
    const absl::Status unchanged = opened->CheckUnchanged();
    if (!unchanged.ok()) return unchanged;
    if (!view.ok()) {
      return absl::Status(view.status().code(),
                          fmt::format("{}: {}", path, std::string(view.status().message())));
    }
    opened->view_ = *std::move(view);
    return opened;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: no memory to read it", path));
  }
}

absl::Status OpenedResult::CheckUnchanged() const {
  if (mapping_ == nullptr || !mapping_->damaged()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("{}: was truncated while it was read", path_));
}

void OpenedResult::CopyRows(int64_t first_query, int64_t num_queries, int64_t* indices,
                            double* scores) const {
  const auto first = static_cast<size_t>(first_query * metadata().k);
  const auto count = static_cast<size_t>(num_queries * metadata().k);
  if (count == 0) return;
  std::memcpy(indices, view_.indices.data() + first * sizeof(int64_t), count * sizeof(int64_t));
  if (metadata().score_dtype == DType::kFloat64) {
    std::memcpy(scores, view_.scores.data() + first * sizeof(double), count * sizeof(double));
    return;
  }
  const char* narrow = view_.scores.data() + first * sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float score;
    std::memcpy(&score, narrow + i * sizeof(float), sizeof(float));
    scores[i] = static_cast<double>(score);
  }
}

absl::StatusOr<ResultFile> ReadResult(const std::string& path) {
  const absl::StatusOr<std::unique_ptr<OpenedResult>> opened = OpenedResult::Open(path);
  if (!opened.ok()) return opened.status();
  try {
    ResultFile result;
    result.metadata = (*opened)->metadata();
    const int64_t num_queries = result.metadata.num_queries;
    const auto count = static_cast<size_t>(num_queries * result.metadata.k);
    result.indices.resize(count);
    result.scores.resize(count);
    (*opened)->CopyRows(0, num_queries, result.indices.data(), result.scores.data());
    const absl::Status unchanged = (*opened)->CheckUnchanged();
    if (!unchanged.ok()) return unchanged;
    return result;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(fmt::format("{}: no memory to read it", path));
  }
}

}  // namespace tiny_knn
