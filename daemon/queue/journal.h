// The queue on disk: what makes an acknowledged job survive everything but the disk. SQLite, WAL,
// synchronous=FULL, locking_mode=EXCLUSIVE; one process, one thread.
//
// A folder of mode 0700 with journal.db, its -wal, and reserve (4 MiB that are given up when the
// disk is full, so that what is in hand can still be written down).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/queue/job.h"

namespace tiny_knn {

struct InsertJob {
  Job job;
};
struct UpdateJob {  // everything but id, uid, key, spec and shape, which never change
  Job job;
};
struct DeleteJob {
  int64_t id = 0;
};
using JournalChange = std::variant<InsertJob, UpdateJob, DeleteJob>;

enum class JournalHealth {
  kOk,
  kFull,    // a write found no space and the reserve is given up; the next may succeed again
  kFailed,  // a sync or the database failed: nothing will be written any more
};

// Thread-compatible.
class Journal {
 public:
  // Opens or makes the journal in `folder`, which exists and is this user's alone, and checks its
  // schema; an older one is migrated. What an earlier process committed, or may have, is synced
  // again. Errors name the file: FailedPrecondition (a newer schema, another process holds it, a
  // network file system that cannot lock), NotFound, PermissionDenied, ResourceExhausted, DataLoss
  // (damaged: says to move it away). A disk without space is no error when nothing needs to be
  // written: health() is kFull.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& folder);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Every job, by id. Once, before any Write.
  absl::StatusOr<std::vector<Job>> Load();

  // The id that the next job should get: greater than every id there ever was, removed ones
  // included.
  int64_t next_id() const;

  // Distinguishes the temporary files of this journal from those of others: 8 hexadecimal digits
  // that stay the same for the journal's life.
  const std::string& tag() const;

  // All of the changes in one transaction, durable when this returns OK; none of them otherwise.
  // ResourceExhausted (no space; the reserve is given up first) leaves the journal usable, any
  // other error makes health() kFailed: after a failed sync nobody knows what is on disk (the next
  // process may find these changes there), so nothing is tried again, not even when closing.
  absl::Status Write(const std::vector<JournalChange>& changes);

  JournalHealth health() const;
  // Takes the reserve back once there is space again (twice as much as it takes), after which
  // health() is kOk again. Called now and then; cheap.
  void RestoreReserve();

  // The database, for messages.
  const std::string& path() const;

 private:
  struct State;
  explicit Journal(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tiny_knn
