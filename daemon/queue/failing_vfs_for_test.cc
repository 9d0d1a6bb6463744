#include "daemon/queue/failing_vfs_for_test.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>

namespace tiny_knn {

// What SQLite allocates for each open file; the real one's follows it.
struct FailingVfs::File {
  sqlite3_file base;
  FailingVfs* owner;
  std::string* path;
  int last_errno;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
  static File& Of(sqlite3_file* file) { return *reinterpret_cast<File*>(file); }
  const sqlite3_io_methods& methods() { return *real()->pMethods; }
};

FailingVfs::FailingVfs() : real_(sqlite3_vfs_find(nullptr)), vfs_(*real_) {
  vfs_.szOsFile = static_cast<int>(sizeof(File)) + real_->szOsFile;
  vfs_.zName = "failing";
  vfs_.pNext = nullptr;
  vfs_.pAppData = this;
  vfs_.xOpen = [](sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
                  int* out_flags) {
    return Of(vfs).Open(name, reinterpret_cast<File*>(file), flags, out_flags);
  };
  vfs_.xDelete = [](sqlite3_vfs* vfs, const char* name, int sync_folder) {
    FailingVfs& self = Of(vfs);
    if (const std::optional<VfsFault> fault = self.Ask(VfsCall::kDelete, name)) return fault->code;
    const int code = self.real_->xDelete(self.real_, name, sync_folder);
    if (code == SQLITE_OK) {
      self.written_.erase(name);
      self.synced_.erase(name);
    }
    return code;
  };
  sqlite3_vfs_register(&vfs_, /*makeDflt=*/1);
}

FailingVfs::~FailingVfs() {
  sqlite3_vfs_register(real_, /*makeDflt=*/1);
  sqlite3_vfs_unregister(&vfs_);
}

std::optional<VfsFault> FailingVfs::Ask(VfsCall call, const std::string& path) {
  ++calls_[call];
  std::optional<VfsFault> fault;
  if (hook_) fault = hook_(call, path);
  // Only opening leaves its errno; what fails later has others after it.
  if (fault) errno = call == VfsCall::kOpen ? fault->error_number : 0;
  return fault;
}

int64_t FailingVfs::calls(VfsCall call) const {
  const auto found = calls_.find(call);
  return found == calls_.end() ? 0 : found->second;
}

int64_t FailingVfs::changing_calls() const {
  return calls(VfsCall::kDelete) + calls(VfsCall::kWrite) + calls(VfsCall::kTruncate) +
         calls(VfsCall::kSync);
}

int FailingVfs::Open(const char* name, File* file, int flags, int* out_flags) {
  file->base.pMethods = nullptr;
  const std::string path = name == nullptr ? "" : name;
  if (const std::optional<VfsFault> fault = Ask(VfsCall::kOpen, path)) return fault->code;
  const int code = real_->xOpen(real_, name, file->real(), flags, out_flags);
  if (code != SQLITE_OK) return code;
  file->owner = this;
  file->last_errno = 0;
  file->path = std::make_unique<std::string>(path).release();
  file->base.pMethods = &Methods();
  sqlite3_int64 size = 0;
  file->methods().xFileSize(file->real(), &size);
  std::string content(static_cast<size_t>(size), '\0');
  if (size > 0) file->methods().xRead(file->real(), content.data(), static_cast<int>(size), 0);
  synced_.emplace(path, content);  // a test made it, unless it is known already
  written_[path] = std::move(content);
  return SQLITE_OK;
}

const sqlite3_io_methods& FailingVfs::Methods() {
  // Version 1: without shared memory, which a journal must not need.
  static const sqlite3_io_methods methods = [] {
    sqlite3_io_methods made = {};
    made.iVersion = 1;
    made.xClose = [](sqlite3_file* base) {
      File& file = File::Of(base);
      delete file.path;
      return file.methods().xClose(file.real());
    };
    made.xRead = [](sqlite3_file* base, void* bytes, int size, sqlite3_int64 offset) {
      File& file = File::Of(base);
      if (const auto fault = file.owner->Ask(VfsCall::kRead, *file.path)) return fault->code;
      return file.methods().xRead(file.real(), bytes, size, offset);
    };
    made.xWrite = [](sqlite3_file* base, const void* bytes, int size, sqlite3_int64 offset) {
      File& file = File::Of(base);
      const std::optional<VfsFault> fault = file.owner->Ask(VfsCall::kWrite, *file.path);
      if (fault) {
        file.last_errno = fault->error_number;
        if (!fault->half) return fault->code;
        size /= 2;
      }
      const int code = file.methods().xWrite(file.real(), bytes, size, offset);
      if (code != SQLITE_OK) return code;
      std::string& content = file.owner->written_[*file.path];
      const auto begin = static_cast<size_t>(offset);
      const auto count = static_cast<size_t>(size);
      content.resize(std::max(content.size(), begin + count));
      content.replace(begin, count, static_cast<const char*>(bytes), count);
      return fault ? fault->code : SQLITE_OK;
    };
    made.xTruncate = [](sqlite3_file* base, sqlite3_int64 size) {
      File& file = File::Of(base);
      if (const auto fault = file.owner->Ask(VfsCall::kTruncate, *file.path)) return fault->code;
      const int code = file.methods().xTruncate(file.real(), size);
      if (code == SQLITE_OK) file.owner->written_[*file.path].resize(static_cast<size_t>(size));
      return code;
    };
    made.xSync = [](sqlite3_file* base, int) {
      File& file = File::Of(base);
      if (const auto fault = file.owner->Ask(VfsCall::kSync, *file.path)) return fault->code;
      // The disk itself is not asked: there is no power cut to survive but the one of the test.
      file.owner->synced_[*file.path] = file.owner->written_[*file.path];
      return SQLITE_OK;
    };
    made.xFileSize = [](sqlite3_file* base, sqlite3_int64* size) {
      return File::Of(base).methods().xFileSize(File::Of(base).real(), size);
    };
    made.xLock = [](sqlite3_file* base, int lock) {
      File& file = File::Of(base);
      if (const auto fault = file.owner->Ask(VfsCall::kLock, *file.path)) return fault->code;
      return file.methods().xLock(file.real(), lock);
    };
    made.xUnlock = [](sqlite3_file* base, int lock) {
      return File::Of(base).methods().xUnlock(File::Of(base).real(), lock);
    };
    made.xCheckReservedLock = [](sqlite3_file* base, int* out) {
      return File::Of(base).methods().xCheckReservedLock(File::Of(base).real(), out);
    };
    made.xFileControl = [](sqlite3_file* base, int operation, void* argument) {
      File& file = File::Of(base);
      if (operation == SQLITE_FCNTL_LAST_ERRNO) {
        *static_cast<int*>(argument) = file.last_errno;
        return SQLITE_OK;
      }
      return file.methods().xFileControl(file.real(), operation, argument);
    };
    made.xSectorSize = [](sqlite3_file* base) {
      return File::Of(base).methods().xSectorSize(File::Of(base).real());
    };
    made.xDeviceCharacteristics = [](sqlite3_file* base) {
      return File::Of(base).methods().xDeviceCharacteristics(File::Of(base).real());
    };
    return made;
  }();
  return methods;
}

FailingVfs::Files FailingVfs::In(const std::string& folder, const Files& files) {
  Files found = files;
  std::erase_if(found, [&](const auto& file) { return !file.first.starts_with(folder + "/"); });
  return found;
}

void FailingVfs::Forget(const std::string& folder) {
  for (Files* files : {&written_, &synced_}) {
    std::erase_if(*files, [&](const auto& file) { return file.first.starts_with(folder + "/"); });
  }
}

void FailingVfs::WriteInto(const Files& files, const std::string& folder) {
  for (const auto& [path, content] : files) {
    const std::string name = std::filesystem::path(path).filename().string();
    std::ofstream file(folder + "/" + name, std::ios::binary | std::ios::trunc);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
  }
}

}  // namespace tiny_knn
