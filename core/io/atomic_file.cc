#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <string_view>

#include "core/io/file_util.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

struct SplitPath {
  std::string folder;  // never empty
  std::string name;
};

SplitPath Split(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

// Follows the symbolic links that `path` itself is (not those of its folders), so that the file a
// link names is replaced and the link stays. A link to nothing yet is fine.
absl::StatusOr<std::string> FollowLinks(const std::string& path) {
  constexpr int kMostLinks = 40;  // what Linux follows
  std::string current = path;
  for (int i = 0; i < kMostLinks; ++i) {
    char target[PATH_MAX];
    const ssize_t length = readlink(current.c_str(), target, sizeof(target));
    if (length < 0) return current;  // no link, or not there: opening will tell
    if (length == sizeof(target)) return ErrnoStatus(ENAMETOOLONG, path, "cannot follow the link");
    const std::string next(target, static_cast<size_t>(length));
    current = next.starts_with('/') ? next : Split(current).folder + "/" + next;
  }
  return ErrnoStatus(ELOOP, path, "cannot follow the link");
}

// So that no tag leads out of the folder, or leaves no room for the name.
absl::Status CheckTag(const std::string& tag) {
  constexpr size_t kMostTag = 100;
  const bool good =
      !tag.empty() && tag.size() <= kMostTag && std::all_of(tag.begin(), tag.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '-';
      });
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "the tag of a temporary file must be 1 to {} letters, digits and dashes", kMostTag));
}

// `.{name}.{tag}.tmp`, the name cut so that the whole is a legal file name.
std::string TaggedName(const std::string& name, const std::string& tag) {
  const std::string suffix = fmt::format(".{}.tmp", tag);
  return fmt::format(".{}{}", name.substr(0, NAME_MAX - 1 - suffix.size()), suffix);
}

// The same with a tag that nobody else has: `{pid}.{random}`.
absl::StatusOr<std::string> UniqueName(const std::string& name) {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    return ErrnoStatus(errno, name, "cannot get a random number");
  }
  return TaggedName(name, fmt::format("{}.{:016x}", getpid(), random));
}

absl::Status CheckTarget(int folder, const std::string& name, const std::string& path) {
  struct stat target;
  if (fstatat(folder, name.c_str(), &target, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus() : ErrnoStatus(errno, path, "cannot write");
  }
  if (S_ISDIR(target.st_mode)) {
    return absl::InvalidArgumentError(
        fmt::format("{}: is a directory; expected a file name to write to", path));
  }
  if (!S_ISREG(target.st_mode)) {  // replacing /dev/null by a file would be a nasty surprise
    return absl::InvalidArgumentError(
        fmt::format("{}: is a device, FIFO or socket; expected a file name to write to", path));
  }
  return absl::OkStatus();
}

}  // namespace

struct AtomicFile::State {
  std::string target_path;     // as given, for messages
  std::string name;            // of the target, in `folder`
  std::string temporary_name;  // likewise; empty once it is no longer ours to remove
  UniqueFd folder;
  bool folder_can_sync = true;  // false: write and search permission, but none to read
  UniqueFd file;
  bool committed = false;
};

AtomicFile::AtomicFile(std::unique_ptr<State> state) : state_(std::move(state)) {}

AtomicFile::~AtomicFile() {
  if (!state_->temporary_name.empty()) {
    unlinkat(state_->folder.get(), state_->temporary_name.c_str(), 0);
  }
}

const std::string& AtomicFile::target_path() const { return state_->target_path; }

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(const std::string& target_path,
                                                               const AtomicFileOptions& options) {
  if (!options.temporary_tag.empty()) {
    absl::Status tag = CheckTag(options.temporary_tag);
    if (!tag.ok()) return tag;
  }
  auto state = std::make_unique<State>();
  state->target_path = target_path;
  absl::StatusOr<std::string> followed = FollowLinks(target_path);
  if (!followed.ok()) return followed.status();
  const SplitPath split = Split(*followed);
  state->name = split.name;
  if (split.name.empty() || split.name == "." || split.name == "..") {
    return absl::InvalidArgumentError(
        fmt::format("'{}': is no file name; expected a file name to write to", target_path));
  }
  // The folder is held open: it may be renamed while we work.
  int folder = open(split.folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 && errno == EACCES) {
    folder = open(split.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    state->folder_can_sync = false;
  }
  if (folder < 0) {
    return ErrnoStatus(errno, target_path,
                       fmt::format("cannot write into folder '{}'", split.folder));
  }
  state->folder = UniqueFd(folder);
  absl::Status status = CheckTarget(folder, state->name, target_path);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> temporary = options.temporary_tag.empty()
                                              ? UniqueName(state->name)
                                              : TaggedName(state->name, options.temporary_tag);
  if (!temporary.ok()) return temporary.status();
  const int file =
      openat(folder, temporary->c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (file < 0) {
    return ErrnoStatus(errno, target_path,
                       fmt::format("cannot write into folder '{}'", split.folder));
  }
  state->file = UniqueFd(file);
  state->temporary_name = *std::move(temporary);
  return std::unique_ptr<AtomicFile>(new AtomicFile(std::move(state)));
}

absl::Status AtomicFile::RemoveLeftover(const std::string& target_path, const std::string& tag) {
  absl::Status status = CheckTag(tag);
  if (!status.ok()) return status;
  absl::StatusOr<std::string> followed = FollowLinks(target_path);
  if (!followed.ok()) return followed.status();
  const SplitPath split = Split(*followed);
  const UniqueFd folder(open(split.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoStatus(errno, split.folder, "cannot look for temporary files");
  }
  const std::string name = TaggedName(split.name, tag);
  struct stat found;
  if (fstatat(folder.get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? absl::OkStatus()
                           : ErrnoStatus(errno, name, "cannot look for the temporary file");
  }
  // Whatever else has this name was not made by AtomicFile, or not by this user.
  if (!S_ISREG(found.st_mode) || found.st_uid != geteuid()) return absl::OkStatus();
  if (unlinkat(folder.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return ErrnoStatus(errno, name, "cannot remove the temporary file");
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::WriteAt(int64_t offset, std::span<const std::byte> bytes) {
  if (state_->committed || !state_->file.valid()) {
    return absl::FailedPreconditionError(
        fmt::format("{}: written to after Commit", state_->target_path));
  }
  constexpr size_t kMostAtOnce = size_t{1} << 30;  // Linux writes at most 2 GiB at once
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written =
        pwrite(state_->file.get(), bytes.data() + done, std::min(bytes.size() - done, kMostAtOnce),
               offset + static_cast<int64_t>(done));
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, state_->target_path, "cannot write");
    }
    done += static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Reserve(int64_t total_bytes) {
  if (total_bytes <= 0) return absl::OkStatus();
  int result;
  do {
    // Not posix_fallocate: where the file system cannot reserve, that writes every block.
    result = fallocate(state_->file.get(), 0, 0, total_bytes);
  } while (result != 0 && errno == EINTR);
  if (result == 0 || errno == EOPNOTSUPP || errno == ENOSYS) return absl::OkStatus();
  return ErrnoStatus(errno, state_->target_path,
                     fmt::format("cannot reserve {} bytes for the result", total_bytes));
}

absl::Status AtomicFile::Commit() {
  if (state_->committed || !state_->file.valid()) {
    return absl::FailedPreconditionError(fmt::format("{}: committed twice", state_->target_path));
  }
  // A failed fsync is final: the kernel may have dropped the dirty pages, and a second fsync would
  // report success without them.
  const int file = state_->file.Release();
  const int sync_error = fsync(file) == 0 ? 0 : errno;
  // Network file systems report some write errors at close only.
  const int close_error = close(file) == 0 || errno == EINTR ? 0 : errno;
  if (sync_error != 0) return ErrnoStatus(sync_error, state_->target_path, "cannot sync to disk");
  if (close_error != 0) return ErrnoStatus(close_error, state_->target_path, "cannot close");
  const int folder = state_->folder.get();
  if (renameat(folder, state_->temporary_name.c_str(), folder, state_->name.c_str()) != 0) {
    return ErrnoStatus(errno, state_->target_path, "cannot give the result its name");
  }
  state_->temporary_name.clear();
  state_->committed = true;
  // EINVAL: a file system without fsync of folders.
  if (state_->folder_can_sync && fsync(folder) != 0 && errno != EINVAL) {
    return ErrnoStatus(errno, state_->target_path,
                       "is written, but its folder cannot be synced to disk");
  }
  return absl::OkStatus();
}

}  // namespace tiny_knn
