// Docs as they are named on a command line: one .npy file, a folder of them, or a pattern ("*.npy")
// that names several. Of several, the rows of one follow those of another, in natural order of the
// names (2 before 10).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file_version.h"
#include "core/io/row_source.h"
#include "core/matrix/dtype.h"

namespace tiny_knn {

// An .npy file, and the version that it had before and after it was opened.
struct VersionedRows {
  std::unique_ptr<RowSource> rows;
  FileVersion version = {};
};

// As OpenNpyRowSource; a file that changes meanwhile is DataLoss.
absl::StatusOr<VersionedRows> OpenVersionedRows(const std::string& path,
                                                std::optional<DType> input_dtype);

// One of the files of the docs.
struct DocsFile {
  std::string path;   // as this process opens it
  std::string name;   // path, or what of it is behind the folder that all of them are in
  int64_t begin = 0;  // its rows among all docs: [begin, end)
  int64_t end = 0;
  FileVersion version = {};  // when it was opened
};

struct OpenedDocs {
  std::unique_ptr<RowSource> rows;
  std::vector<DocsFile> files;  // in the order of their rows
  bool is_list = false;         // a folder or a pattern, even if of one file

  // ResultMetadata::docs_manifest.
  std::string Manifest() const;
};

// Opens one .npy file as OpenNpyRowSource does, or the .npy files that a folder holds or a pattern
// of glob(7) names: `*`, `?`, `[...]`, for whatever is no file's or folder's own name. Hidden
// files, and files of other names in a folder, are left out. Of several files no more than 128 are
// open at a time. StartRows hands their rows out where they lie, in one view for each file, but for
// those of more files than may be open; Rows copies what is in several files together: so
// buffer_bytes_per_row() > 0. A file that is not the same when it is opened again is DataLoss.
//
// Errors as of OpenNpyRowSource, of the file it is about; and InvalidArgument, naming files, for a
// folder or a pattern of no files; names that stand for the same number (1.npy and 01.npy); names
// in one folder that differ in more than their numbers, so that there is no saying whether they
// belong together (a pattern says that they do); files of different dims or dtypes; names with
// control characters, which the manifest cannot hold.
absl::StatusOr<OpenedDocs> OpenDocs(const std::string& path, std::optional<DType> input_dtype);

// Where `path` has to be taken for a pattern, the folder that it certainly starts with: "" or
// ending in a slash. "data/part_*/x.npy" starts with "data/". Nothing for other paths. Looks at the
// text only.
std::optional<std::string_view> FolderOfPattern(std::string_view path);

}  // namespace tiny_knn
