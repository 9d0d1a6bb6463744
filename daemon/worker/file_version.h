// Versions of files (core/io/file_version.h) that can be trusted: every later change gives another.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "core/io/file_version.h"

namespace tiny_knn {

// Of the regular file at `path`, once what was written to it through mappings is on its disk. A
// write to a mapped page that is dirty already changes no stamp; after this, the first one to every
// page does. Writes meanwhile may leave dirty pages, so judge the version by a clock read before
// the call. Waits for the disk, however long that takes. The error says in the words of a job's log
// why no version of the file can be trusted: kFailedPrecondition on a file system without a disk,
// whose pages are dirty for ever. `path` has to be a regular file when called: others may be
// disturbed.
absl::StatusOr<FileVersion> SyncFileVersion(const std::string& path);

// Whether every later change will give the file another version. A file changed a moment ago may
// change again within one tick of the clock that stamps it, and one from the future may get the
// same stamp later. `now_ns`: since 1970, taken before the version. Pure.
bool IsSettled(const FileVersion& version, int64_t now_ns);

// Since 1970 by the machine's clock.
int64_t WallClockNs();

}  // namespace tiny_knn
