#include "daemon/queue/journal.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <type_traits>
#include <utility>

#include "core/io/errno_status.h"
#include "core/io/unique_fd.h"
#include "daemon/queue/journal_rows.h"
#include "daemon/queue/reserve_file.h"
#include "daemon/queue/schema.h"
#include "daemon/queue/sqlite.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

constexpr int64_t kReserveBytes = int64_t{4} << 20;
// The write-ahead log is brought into the database when it holds so many pages (of 4 KiB).
constexpr int kMostWalPages = 1000;

absl::Status CheckFolder(const std::string& folder) {
  struct stat found;
  if (stat(folder.c_str(), &found) != 0) {
    return ErrnoStatus(errno, folder, "cannot use as the daemon's state folder");
  }
  if (!S_ISDIR(found.st_mode)) {
    return absl::PermissionDeniedError(
        fmt::format("{}: is no folder; the daemon's state needs one", folder));
  }
  if (found.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        fmt::format("{}: belongs to user {}, not to {} who runs this; use another folder", folder,
                    found.st_uid, geteuid()));
  }
  if ((found.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(
        fmt::format("{}: is open to other users (mode {:04o}); run: chmod 700 '{}'", folder,
                    found.st_mode & 07777, folder));
  }
  return absl::OkStatus();
}

absl::Status Damaged(const std::string& path, std::string_view how) {
  return absl::DataLossError(fmt::format(
      "{}: is damaged ({}): move it away together with its -wal, and start again", path, how));
}

// 0 for a file that is not there.
int64_t SizeOf(const std::string& path) {
  struct stat found;
  return lstat(path.c_str(), &found) == 0 ? found.st_size : 0;
}

// Makes the database as an empty file, since SQLite's own would have the mode that the umask
// leaves; its log gets the database's mode. Nobody opens an existing one here: closing any
// descriptor of it would give up this process's locks on it.
absl::Status MakeFile(const std::string& path) {
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (file.valid()) {
    if (fchmod(file.get(), 0600) != 0) return ErrnoStatus(errno, path, "cannot set its mode");
    return absl::OkStatus();
  }
  if (errno != EEXIST) return ErrnoStatus(errno, path, "cannot create");
  struct stat found;
  if (lstat(path.c_str(), &found) != 0) return ErrnoStatus(errno, path, "cannot use");
  if (!S_ISREG(found.st_mode) || found.st_uid != geteuid()) {
    return absl::PermissionDeniedError(
        fmt::format("{}: is no file of user {}; move it away", path, geteuid()));
  }
  if ((found.st_mode & 0777) != 0600 && chmod(path.c_str(), 0600) != 0) {
    return ErrnoStatus(errno, path, "cannot set its mode");
  }
  // SQLite takes what is shorter than its smallest page for a new database, and would write one. An
  // empty one is new unless what comes after it is there.
  constexpr int64_t kSmallestPage = 512;
  if (found.st_size >= kSmallestPage) return absl::OkStatus();
  const std::string folder = path.substr(0, path.rfind('/'));
  const bool was_used = SizeOf(path + "-wal") > 0 || SizeOf(folder + "/reserve") > 0;
  if (found.st_size == 0 && !was_used) return absl::OkStatus();
  return Damaged(path, fmt::format("it was cut to {} bytes", found.st_size));
}

// SQLite syncs the folder too, but tells nobody when that fails.
absl::Status SyncFolder(const std::string& folder) {
  const UniqueFd opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.valid()) return ErrnoStatus(errno, folder, "cannot open");
  // EINVAL: a file system that does not sync folders.
  if (fsync(opened.get()) == 0 || errno == EINVAL) return absl::OkStatus();
  return absl::InternalError(ErrnoStatus(errno, folder, "cannot sync to disk").message());
}

absl::Status CheckIntegrity(SqliteDatabase& database) {
  const absl::StatusOr<std::string> answer = database.QueryText("PRAGMA quick_check(1)");
  if (!answer.ok()) return answer.status();
  if (*answer == "ok") return absl::OkStatus();
  return absl::DataLossError(
      fmt::format("{}: is damaged ({}); move it away together with its -wal, and start again",
                  database.path(), answer->substr(0, answer->find('\n'))));
}

absl::Status Configure(SqliteDatabase& database) {
  absl::Status status = database.Execute(
      "PRAGMA locking_mode = EXCLUSIVE;"  // before anything is read: no shared-memory file
      "PRAGMA trusted_schema = OFF;"
      "PRAGMA cell_size_check = ON;"
      "PRAGMA mmap_size = 0;"  // an I/O error is a code, not a SIGBUS
      "PRAGMA temp_store = MEMORY;"
      "PRAGMA synchronous = FULL");
  if (!status.ok()) return status;
  status = CheckSchema(database, kJournalSchema);
  if (!status.ok()) return status;
  const absl::StatusOr<std::string> mode = database.QueryText("PRAGMA journal_mode = WAL");
  if (!mode.ok()) return mode.status();
  const absl::StatusOr<int64_t> synchronous = database.QueryInteger("PRAGMA synchronous");
  if (!synchronous.ok()) return synchronous.status();
  if (*mode != "wal" || *synchronous != 2) {
    return absl::FailedPreconditionError(
        fmt::format("{}: cannot be kept with a write-ahead log; use a folder on a local disk",
                    database.path()));
  }
  // Cuts a log back that one large transaction has made long.
  status = database.Execute("PRAGMA journal_size_limit = 8388608");
  if (!status.ok()) return status;
  status = CheckIntegrity(database);
  if (!status.ok()) return status;
  return Migrate(database, kJournalSchema);
}

absl::StatusOr<int64_t> NextId(SqliteDatabase& database) {
  const absl::StatusOr<int64_t> greatest = database.QueryInteger(
      "SELECT max(coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'jobs'), 0),"
      " coalesce((SELECT max(id) FROM jobs), 0))");
  if (!greatest.ok()) return greatest.status();
  if (*greatest < 0 || *greatest > INT64_MAX / 2) {
    return Damaged(database.path(), "it has no next job id");
  }
  return *greatest + 1;
}

}  // namespace

struct Journal::State {
  State(std::unique_ptr<SqliteDatabase> opened, ReserveFile reserve_file)
      : database(std::move(opened)), reserve(std::move(reserve_file)) {}

  std::unique_ptr<SqliteDatabase> database;
  ReserveFile reserve;
  // Prepared once: a transaction is short, and parsing these would be a good part of it.
  std::optional<SqliteStatement> begin;
  std::optional<SqliteStatement> commit;
  std::optional<SqliteStatement> insert;
  std::optional<SqliteStatement> update;
  std::optional<SqliteStatement> remove;
  int64_t next_id = 1;
  std::string tag;
  JournalHealth health = JournalHealth::kOk;
  absl::Status failure;  // of kFailed

  absl::Status Prepare();
  absl::Status Fail(absl::Status status);
  absl::Status Apply(const JournalChange& change);
  absl::Status Transact(const std::vector<JournalChange>& changes);
  absl::Status MakeRoom(bool& made);
  absl::Status Checkpoint();
};

absl::Status Journal::State::Prepare() {
  absl::StatusOr<int64_t> id = NextId(*database);
  if (!id.ok()) return id.status();
  next_id = *id;
  absl::StatusOr<std::string> value =
      database->QueryText("SELECT value FROM meta WHERE name = 'tag'");
  if (!value.ok() && !absl::IsNotFound(value.status())) return value.status();
  if (!value.ok() || value->size() != 8 ||
      value->find_first_not_of("0123456789abcdef") != std::string::npos) {
    return Damaged(database->path(), "it has no tag");
  }
  tag = *std::move(value);
  for (const auto& [statement, sql] :
       {std::pair(&begin, "BEGIN IMMEDIATE"), std::pair(&commit, "COMMIT"),
        std::pair(&insert, kInsertJobSql), std::pair(&update, kUpdateJobSql),
        std::pair(&remove, kDeleteJobSql)}) {
    absl::StatusOr<SqliteStatement> prepared = SqliteStatement::Prepare(*database, sql);
    if (!prepared.ok()) return prepared.status();
    statement->emplace(*std::move(prepared));
  }
  return absl::OkStatus();
}

absl::Status Journal::State::Fail(absl::Status status) {
  health = JournalHealth::kFailed;
  failure = std::move(status);
  return failure;
}

absl::Status Journal::State::Apply(const JournalChange& change) {
  return std::visit(
      [this](const auto& one) -> absl::Status {
        using Change = std::decay_t<decltype(one)>;
        if constexpr (std::is_same_v<Change, InsertJob>) {
          return RunInsert(*insert, one.job);
        } else if constexpr (std::is_same_v<Change, UpdateJob>) {
          absl::Status status = RunUpdate(*update, one.job);
          if (status.ok() && sqlite3_changes(database->handle()) != 1) {
            status = absl::InternalError(
                fmt::format("{}: does not have job {}", database->path(), one.job.id));
          }
          return status;
        } else {
          return RunDelete(*remove, one.id);
        }
      },
      change);
}

absl::Status Journal::State::Transact(const std::vector<JournalChange>& changes) {
  begin->Reset();
  absl::Status status = begin->Run();
  for (auto change = changes.begin(); status.ok() && change != changes.end(); ++change) {
    status = Apply(*change);
  }
  if (status.ok()) {
    commit->Reset();
    status = commit->Run();
  }
  if (!status.ok()) database->Rollback();
  return status;
}

// Gives up the reserve, and makes the log's own room usable again. `made`: it is worth trying
// again. Only an error other than no space is one.
absl::Status Journal::State::MakeRoom(bool& made) {
  made = reserve.Release();
  health = JournalHealth::kFull;
  if (database->wal_pages() == 0) return absl::OkStatus();
  const absl::StatusOr<int> left = database->Checkpoint();
  if (left.ok()) {
    made = made || *left == 0;
    return absl::OkStatus();
  }
  return absl::IsResourceExhausted(left.status()) ? absl::OkStatus() : left.status();
}

// After a commit, which is durable whatever happens here.
absl::Status Journal::State::Checkpoint() {
  const absl::StatusOr<int> left = database->Checkpoint();
  if (left.ok()) return absl::OkStatus();
  if (!absl::IsResourceExhausted(left.status())) return left.status();
  bool made = false;
  return MakeRoom(made);
}

Journal::Journal(std::unique_ptr<State> state) : state_(std::move(state)) {}

Journal::~Journal() {
  // Once the disk has failed, nothing is written any more.
  if (state_->health != JournalHealth::kOk) return;
  sqlite3_db_config(state_->database->handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
}

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const std::string& folder) {
  absl::Status status = CheckFolder(folder);
  if (!status.ok()) return status;
  const std::string path = folder + "/journal.db";
  status = MakeFile(path);
  if (!status.ok()) return status;
  absl::StatusOr<std::unique_ptr<SqliteDatabase>> database = SqliteDatabase::Open(path);
  if (!database.ok()) return database.status();
  status = Configure(**database);
  if (!status.ok()) return status;
  auto state = std::make_unique<State>(*std::move(database),
                                       ReserveFile(folder + "/reserve", kReserveBytes));
  status = state->Prepare();
  if (!status.ok()) return status;
  // By now the log is there.
  status = SyncFolder(folder);
  if (!status.ok()) return status;
  // An earlier process may have died, or given up, between writing to the log and syncing it: what
  // is read from it here may not be on disk. This writes it again, and syncs.
  status = state->Checkpoint();
  if (!status.ok()) return status;
  if (!state->reserve.Take().ok()) state->health = JournalHealth::kFull;
  return std::unique_ptr<Journal>(new Journal(std::move(state)));
}

absl::StatusOr<std::vector<Job>> Journal::Load() { return ReadJobs(*state_->database); }

int64_t Journal::next_id() const { return state_->next_id; }
const std::string& Journal::tag() const { return state_->tag; }
JournalHealth Journal::health() const { return state_->health; }
const std::string& Journal::path() const { return state_->database->path(); }

absl::Status Journal::Write(const std::vector<JournalChange>& changes) {
  if (state_->health == JournalHealth::kFailed) return state_->failure;
  if (changes.empty()) return absl::OkStatus();
  absl::Status status = state_->Transact(changes);
  if (absl::IsResourceExhausted(status)) {
    bool made = false;
    const absl::Status room = state_->MakeRoom(made);
    if (!room.ok()) return state_->Fail(room);
    if (made) status = state_->Transact(changes);
    if (absl::IsResourceExhausted(status)) return status;
  }
  if (!status.ok()) return state_->Fail(status);
  for (const JournalChange& change : changes) {
    const auto* insert = std::get_if<InsertJob>(&change);
    if (insert != nullptr && insert->job.id >= state_->next_id) {
      state_->next_id = insert->job.id + 1;
    }
  }
  if (state_->database->wal_pages() >= kMostWalPages) {
    const absl::Status checkpoint = state_->Checkpoint();
    if (!checkpoint.ok()) (void)state_->Fail(checkpoint);
  }
  return absl::OkStatus();
}

void Journal::RestoreReserve() {
  if (state_->health != JournalHealth::kFull) return;
  if (state_->reserve.Take().ok()) state_->health = JournalHealth::kOk;
}

}  // namespace tiny_knn
