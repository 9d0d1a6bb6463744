#include "core/io/docs_files.h"

#include <dirent.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <limits>
#include <utility>

#include "core/io/element_copy.h"
#include "core/io/errno_status.h"
#include "core/io/natural_order.h"
#include "core/io/read_ahead.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Files that are open, and mapped, at one time: processes may have few hundreds. Two are for what
// is copied, and for the start of the next range.
constexpr size_t kMostOpen = 128;
constexpr size_t kMostInPlace = kMostOpen - 2;
// Rows that reach over the end of a file are copied so many bytes at a time: as much of a file is
// resident a second time.
constexpr int64_t kPieceBytes = int64_t{2} << 20;
constexpr std::string_view kPatternCharacters = "*?[";
constexpr std::string_view kSuffix = ".npy";

// Ranges are handed out file by file, where the rows of each lie. Of a range of more files than may
// be open at once the last rows are copied together.
class ShardedRows final : public RowSource {
 public:
  ShardedRows(std::string name, const RowSource& first, std::vector<DocsFile> files,
              std::optional<DType> input_dtype)
      : RowSource(std::move(name), first.dtype(), files.back().end, first.dim()),
        input_dtype_(input_dtype) {
    for (DocsFile& file : files) {
      if (file.begin < file.end) shards_.push_back({.file = std::move(file)});
    }
    // A range that starts in shard i reaches no further than through those behind it.
    for (size_t i = 0; i + kMostInPlace < shards_.size(); ++i) {
      most_in_place_ = std::min(most_in_place_,
                                shards_[i + kMostInPlace - 1].file.end - shards_[i].file.end + 1);
    }
  }

  absl::StatusOr<MatrixView> Rows(int64_t begin, int64_t end) override {
    const size_t shard = ShardOf(begin);
    const bool is_in_one_file = begin < end && end <= shards_[shard].file.end;
    const absl::Status closed = StartOver(is_in_one_file ? &shards_[shard] : nullptr);
    if (!closed.ok()) return closed;
    if (!is_in_one_file) return CopyTogether(begin, end);
    const absl::StatusOr<RowSource*> rows = Use(shard);
    if (!rows.ok()) return rows.status();
    const int64_t first = shards_[shard].file.begin;
    return (*rows)->Rows(begin - first, end - first);
  }

  absl::StatusOr<std::vector<MatrixView>> StartRows(int64_t begin, int64_t end) override {
    const absl::Status closed = StartOver(nullptr);
    if (!closed.ok()) return closed;
    std::vector<MatrixView> views;
    size_t shard = ShardOf(begin);
    for (; begin < end && parts_.size() < kMostInPlace; ++shard) {
      const absl::StatusOr<RowSource*> rows = Use(shard);
      if (!rows.ok()) return rows.status();
      const DocsFile& file = shards_[shard].file;
      const int64_t last = std::min(end, file.end);
      auto view = (*rows)->StartRows(begin - file.begin, last - file.begin);
      if (!view.ok()) return view.status();
      views.push_back(view->front());
      parts_.push_back({begin, last, views.back(), *rows, file.begin});
      begin = last;
    }
    if (begin < end || views.empty()) {
      const absl::StatusOr<MatrixView> rest = CopyTogether(begin, end);
      if (!rest.ok()) return rest.status();
      views.push_back(*rest);
      parts_.push_back({begin, end, *rest});
    } else if (shard < shards_.size()) {
      // What the next range starts with.
      const absl::StatusOr<RowSource*> next = Use(shard);
      if (!next.ok()) return next.status();
      parts_.push_back({end, end, {}, *next, end});
    }
    expected_ = 1;
    ExpectAfter(parts_.front().begin);
    return views;
  }

  int64_t most_rows_in_place() const override { return most_in_place_; }

  bool needs_fetch() const override { return true; }

  absl::Status Fetch(const RowSelection& rows, std::byte* out) override {
    const int64_t end = rows.begin + rows.count * rows.step;
    auto part = std::upper_bound(parts_.begin(), parts_.end(), rows.begin,
                                 [](int64_t row, const Part& p) { return row < p.end; });
    for (int64_t row = rows.begin; row < end; ++part) {
      if (row >= part->end) continue;
      const int64_t count = (std::min(end, part->end) - row + rows.step - 1) / rows.step;
      if (part->rows != nullptr && part->rows->needs_fetch()) {
        const absl::Status status =
            part->rows->Fetch({row - part->first_row, count, rows.step}, out);
        if (!status.ok()) return status;
      } else {
        for (int64_t i = 0; i < count; ++i) {
          std::memcpy(out + i * row_bytes(), part->view.Row(row - part->begin + i * rows.step),
                      static_cast<size_t>(row_bytes()));
        }
      }
      out += count * row_bytes();
      row += count * rows.step;
    }
    if (rows.step == 1) ExpectAfter(end);
    return absl::OkStatus();
  }

  void Release() override {
    for (Shard& shard : shards_) {
      if (shard.in_use) shard.rows->Release();
      shard.in_use = false;
    }
    parts_.clear();
  }

  // What was copied was checked then, what was closed before it was.
  absl::Status CheckUnchanged() override {
    for (const Shard& shard : shards_) {
      if (shard.rows == nullptr) continue;
      const absl::Status unchanged = shard.rows->CheckUnchanged();
      if (!unchanged.ok()) return unchanged;
    }
    return absl::OkStatus();
  }

  int64_t buffer_bytes_per_row() const override { return row_bytes(); }

 private:
  struct Shard {
    DocsFile file;
    std::unique_ptr<RowSource> rows = nullptr;  // null: closed
    bool in_use = false;                        // its rows are handed out
    uint64_t last_used = 0;
  };
  // Rows [begin, end) of a range that was started; the last one may be of the range behind it.
  struct Part {
    int64_t begin = 0;
    int64_t end = 0;
    MatrixView view;
    RowSource* rows = nullptr;  // of the file that they are in; null: they were copied
    int64_t first_row = 0;      // of that file
  };

  int64_t row_bytes() const { return dim() * ItemSize(dtype()); }

  size_t ShardOf(int64_t row) const {
    const auto after = std::upper_bound(
        shards_.begin(), shards_.end(), row,
        [](int64_t wanted, const Shard& shard) { return wanted < shard.file.end; });
    return static_cast<size_t>(after - shards_.begin());
  }

  // Nothing is handed out any more. Files that hold a buffer are closed, so that there are never
  // more buffers than those of one range; but for `kept`.
  absl::Status StartOver(const Shard* kept) {
    Release();
    for (Shard& shard : shards_) {
      if (shard.rows == nullptr || &shard == kept || shard.rows->buffer_bytes_per_row() == 0) {
        continue;
      }
      const absl::Status unchanged = Close(shard);
      if (!unchanged.ok()) return unchanged;
    }
    return absl::OkStatus();
  }

  // Opens it until the next Release.
  absl::StatusOr<RowSource*> Use(size_t index) {
    absl::StatusOr<RowSource*> rows = Open(index);
    if (rows.ok()) shards_[index].in_use = true;
    return rows;
  }

  absl::StatusOr<RowSource*> Open(size_t index) {
    Shard& shard = shards_[index];
    shard.last_used = ++clock_;
    if (shard.rows != nullptr) return shard.rows.get();
    if (num_open_ == kMostOpen) {
      const absl::Status closed = CloseOldest();
      if (!closed.ok()) return closed;
    }
    absl::StatusOr<VersionedRows> opened = OpenVersionedRows(shard.file.path, input_dtype_);
    if (!opened.ok()) return opened.status();
    if (opened->version != shard.file.version) {
      return absl::DataLossError(
          fmt::format("{}: changed since the search began; run again when nothing writes to it",
                      shard.file.path));
    }
    shard.rows = std::move(opened->rows);
    ++num_open_;
    return shard.rows.get();
  }

  absl::Status CloseOldest() {
    Shard* oldest = nullptr;
    for (Shard& shard : shards_) {
      if (shard.rows == nullptr || shard.in_use) continue;
      if (oldest == nullptr || shard.last_used < oldest->last_used) oldest = &shard;
    }
    return Close(*oldest);
  }

  absl::Status Close(Shard& shard) {
    absl::Status unchanged = shard.rows->CheckUnchanged();
    shard.rows.reset();
    --num_open_;
    return unchanged;
  }

  // Docs [begin, end), of any number of files.
  absl::StatusOr<MatrixView> CopyTogether(int64_t begin, int64_t end) {
    absl::Status status = buffer_.Grow((end - begin) * row_bytes(), name());
    size_t shard = ShardOf(begin);
    for (int64_t row = begin; status.ok() && row < end; row = shards_[shard++].file.end) {
      status = Copy(shard, row, std::min(end, shards_[shard].file.end),
                    buffer_.data() + (row - begin) * row_bytes());
    }
    if (!status.ok()) return status;
    return MatrixView{buffer_.data(), dtype(), end - begin, dim(), row_bytes()};
  }

  // Docs [begin, end), all of one shard.
  absl::Status Copy(size_t index, int64_t begin, int64_t end, std::byte* out) {
    const absl::StatusOr<RowSource*> rows = Open(index);
    if (!rows.ok()) return rows.status();
    const int64_t first = shards_[index].file.begin;
    const int64_t piece = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, row_bytes()));
    for (int64_t row = begin; row < end; row += piece) {
      const int64_t last = std::min(row + piece, end);
      const absl::StatusOr<MatrixView> view = (*rows)->Rows(row - first, last - first);
      if (!view.ok()) return view.status();
      for (int64_t i = 0; i < view->rows; ++i) {
        std::memcpy(out + (row - begin + i) * row_bytes(), view->Row(i),
                    static_cast<size_t>(row_bytes()));
      }
      (*rows)->Release();
    }
    return (*rows)->CheckUnchanged();
  }

  // The reader has come to `row`: files that it will come to soon read ahead.
  void ExpectAfter(int64_t row) {
    const int64_t soon = row + kReadAheadBytes / std::max<int64_t>(1, row_bytes());
    size_t next = expected_.load(std::memory_order_relaxed);
    while (next < parts_.size() && parts_[next].begin < soon) {
      if (!expected_.compare_exchange_weak(next, next + 1, std::memory_order_relaxed)) continue;
      if (parts_[next].rows != nullptr) {
        parts_[next].rows->ExpectFetch(parts_[next].begin - parts_[next].first_row);
      }
      ++next;
    }
  }

  const std::optional<DType> input_dtype_;
  std::vector<Shard> shards_;  // those that have rows
  int64_t most_in_place_ = rows();
  size_t num_open_ = 0;
  uint64_t clock_ = 0;
  std::vector<Part> parts_;           // of the range that was started
  std::atomic<size_t> expected_ = 0;  // of parts_: how many were told
  RowBuffer buffer_;
};

// What a name stands for on the disk.
enum class Kind { kFile, kFolder, kPattern };

Kind KindOf(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found) == 0) return S_ISDIR(found.st_mode) ? Kind::kFolder : Kind::kFile;
  return errno == ENOENT && FolderOfPattern(path) ? Kind::kPattern : Kind::kFile;
}

std::string WithSlash(const std::string& folder) {
  return folder.ends_with('/') ? folder : folder + "/";
}

absl::StatusOr<std::vector<DocsFile>> FilesOfFolder(const std::string& path) {
  const std::string folder = WithSlash(path);
  DIR* const opened = opendir(path.c_str());
  if (opened == nullptr) return ErrnoStatus(errno, path, "cannot open the folder");
  std::vector<DocsFile> files;
  errno = 0;
  while (const dirent* const entry = readdir(opened)) {
    const std::string name = entry->d_name;
    if (!name.starts_with('.') && name.ends_with(kSuffix)) {
      files.push_back({.path = folder + name, .name = name});
    }
    errno = 0;
  }
  const int error = errno;
  closedir(opened);
  if (error != 0) return ErrnoStatus(error, path, "cannot read the folder");
  if (!files.empty()) return files;
  return absl::InvalidArgumentError(fmt::format(
      "{}: is a directory without .npy files; give an .npy file, or a folder or a pattern of them",
      path));
}

// `text` as a pattern of nothing but itself.
std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (kPatternCharacters.find(c) != std::string_view::npos || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

absl::StatusOr<std::vector<DocsFile>> FilesOfPattern(const std::string& path) {
  // Folders that are there by their own names are no part of the pattern.
  size_t literal = FolderOfPattern(path)->size();
  struct stat found;
  for (size_t slash = path.find('/', literal);
       slash != std::string::npos && stat(path.substr(0, slash + 1).c_str(), &found) == 0;
       slash = path.find('/', literal)) {
    literal = slash + 1;
  }
  const std::string pattern = Escaped(path.substr(0, literal)) + path.substr(literal);
  glob_t matches = {};
  const int failed = glob(pattern.c_str(), GLOB_ERR | GLOB_NOSORT, nullptr, &matches);
  std::vector<DocsFile> files;
  for (size_t i = 0; failed == 0 && i < matches.gl_pathc; ++i) {
    const std::string match = matches.gl_pathv[i];
    files.push_back({.path = match, .name = match.substr(literal)});
  }
  globfree(&matches);
  if (failed == 0) return files;
  if (failed == GLOB_NOMATCH) {
    return absl::NotFoundError(
        fmt::format("{}: there is no such file, and none of that pattern", path));
  }
  if (failed == GLOB_NOSPACE) {
    return absl::ResourceExhaustedError(fmt::format("{}: no memory to look for its files", path));
  }
  return absl::PermissionDeniedError(
      fmt::format("{}: cannot read all folders that the pattern looks into", path));
}

absl::Status SortAndCheckNames(const std::string& path, Kind kind, std::vector<DocsFile>& files) {
  std::sort(files.begin(), files.end(), [](const DocsFile& a, const DocsFile& b) {
    const int order = CompareNaturally(a.name, b.name);
    return order != 0 ? order < 0 : a.name < b.name;
  });
  for (size_t i = 0; i < files.size(); ++i) {
    const bool has_control = std::any_of(files[i].name.begin(), files[i].name.end(), [](char c) {
      return static_cast<unsigned char>(c) < ' ' || c == '\x7f';
    });
    if (has_control) {
      return absl::InvalidArgumentError(
          fmt::format("{}: a control character in a file's name; rename it", files[i].path));
    }
    if (i == 0) continue;
    const DocsFile& before = files[i - 1];
    if (CompareNaturally(before.name, files[i].name) == 0) {
      return absl::InvalidArgumentError(
          fmt::format("{}: '{}' and '{}' have the same number, so their order is not known; rename "
                      "or remove one of them",
                      path, before.name, files[i].name));
    }
    if (kind == Kind::kFolder && WithoutNumbers(before.name) != WithoutNumbers(files[i].name)) {
      return absl::InvalidArgumentError(fmt::format(
          "{}: '{}' and '{}' differ in more than numbers, so they may not belong together; name "
          "those that do by a pattern in quotes, such as '{}*.npy'",
          path, before.name, files[i].name, WithSlash(path)));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSameKind(const RowSource& first, const RowSource& other) {
  if (first.dim() != other.dim()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: has dim={}, but {} has dim={}; the files of one folder must come from the "
                    "same embedding",
                    other.name(), other.dim(), first.name(), first.dim()));
  }
  if (first.dtype() == other.dtype()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: is {}, but {} is {}; write all files of one "
                  "folder in the same dtype",
                  other.name(), DTypeName(other.dtype()), first.name(), DTypeName(first.dtype())));
}

}  // namespace

absl::StatusOr<VersionedRows> OpenVersionedRows(const std::string& path,
                                                std::optional<DType> input_dtype) {
  const std::optional<FileVersion> before = StatFileVersion(path);
  absl::StatusOr<std::unique_ptr<RowSource>> rows = OpenNpyRowSource(path, input_dtype);
  if (!rows.ok()) return rows.status();
  const std::optional<FileVersion> after = StatFileVersion(path);
  if (!before || before != after) {
    return absl::DataLossError(
        fmt::format("{}: changed while it was opened; run again when nothing writes to it", path));
  }
  return VersionedRows{*std::move(rows), *after};
}

std::string OpenedDocs::Manifest() const {
  std::string text;
  if (!is_list) return text;
  for (const DocsFile& file : files) {
    text += fmt::format("{}\t{}\t{}\n", file.begin, file.end, file.name);
  }
  return text;
}

std::optional<std::string_view> FolderOfPattern(std::string_view path) {
  const size_t special = path.find_first_of(kPatternCharacters);
  if (special == std::string_view::npos) return std::nullopt;
  const size_t slash = path.rfind('/', special);
  return path.substr(0, slash == std::string_view::npos ? 0 : slash + 1);
}

absl::StatusOr<OpenedDocs> OpenDocs(const std::string& path, std::optional<DType> input_dtype) {
  const Kind kind = KindOf(path);
  OpenedDocs docs;
  if (kind == Kind::kFile) {
    absl::StatusOr<VersionedRows> opened = OpenVersionedRows(path, input_dtype);
    if (!opened.ok()) return opened.status();
    docs.files = {{path, path, 0, opened->rows->rows(), opened->version}};
    docs.rows = std::move(opened->rows);
    return docs;
  }
  absl::StatusOr<std::vector<DocsFile>> files =
      kind == Kind::kFolder ? FilesOfFolder(path) : FilesOfPattern(path);
  if (!files.ok()) return files.status();
  const absl::Status named = SortAndCheckNames(path, kind, *files);
  if (!named.ok()) return named;
  std::unique_ptr<RowSource> first;
  int64_t rows = 0;
  for (DocsFile& file : *files) {
    absl::StatusOr<VersionedRows> opened = OpenVersionedRows(file.path, input_dtype);
    if (!opened.ok()) return opened.status();
    const int64_t here = opened->rows->rows();
    if (here > std::numeric_limits<int64_t>::max() - rows) {
      return absl::InvalidArgumentError(
          fmt::format("{}: its files have more rows than can be counted", path));
    }
    file.begin = rows;
    file.end = rows += here;
    file.version = opened->version;
    if (first == nullptr)
      first = std::move(opened->rows);
    else if (const absl::Status same = CheckSameKind(*first, *opened->rows); !same.ok())
      return same;
  }
  docs.files = *std::move(files);
  docs.is_list = true;
  docs.rows = std::make_unique<ShardedRows>(path, *first, docs.files, input_dtype);
  return docs;
}

}  // namespace tiny_knn
