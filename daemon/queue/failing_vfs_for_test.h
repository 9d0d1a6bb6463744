// A disk for SQLite that fails when a test says so, and knows what a crash would leave of it.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace tiny_knn {

enum class VfsCall { kOpen, kDelete, kRead, kWrite, kTruncate, kSync, kLock };

struct VfsFault {
  int code = SQLITE_IOERR;
  int error_number = 0;
  bool half = false;  // a write that fails has written half of its bytes
};

// While it lives it is SQLite's default file system, and passes every call on to the one before.
// One at a time, one thread.
class FailingVfs {
 public:
  // Contents by path.
  using Files = std::map<std::string, std::string>;
  // Asked before every call: nothing lets it through.
  using Hook = std::function<std::optional<VfsFault>(VfsCall call, const std::string& path)>;

  FailingVfs();
  ~FailingVfs();
  FailingVfs(const FailingVfs&) = delete;
  FailingVfs& operator=(const FailingVfs&) = delete;

  void set_hook(Hook hook) { hook_ = std::move(hook); }
  int64_t calls(VfsCall call) const;
  // That change what is on disk.
  int64_t changing_calls() const;

  // What SQLite's files in `folder` hold when the process is killed now.
  Files written(const std::string& folder) const { return In(folder, written_); }
  // What they hold when the power fails now and nothing is kept but what was synced.
  Files synced(const std::string& folder) const { return In(folder, synced_); }
  // Before other files come to lie in `folder` than those that SQLite left there.
  void Forget(const std::string& folder);
  // Makes `files` lie in `folder`, under their own names.
  static void WriteInto(const Files& files, const std::string& folder);

 private:
  struct File;
  static const sqlite3_io_methods& Methods();
  static Files In(const std::string& folder, const Files& files);
  static FailingVfs& Of(sqlite3_vfs* vfs) { return *static_cast<FailingVfs*>(vfs->pAppData); }
  int Open(const char* name, File* file, int flags, int* out_flags);
  // The code to fail with; nothing to go on.
  std::optional<VfsFault> Ask(VfsCall call, const std::string& path);

  sqlite3_vfs* const real_;
  sqlite3_vfs vfs_;
  Hook hook_;
  std::map<VfsCall, int64_t> calls_;
  Files written_;
  Files synced_;
};

}  // namespace tiny_knn
