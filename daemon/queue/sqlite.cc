#include "daemon/queue/sqlite.h"

#include <cerrno>
#include <system_error>
#include <utility>

#include "core/io/errno_status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

bool IsSyncError(int code) {
  return code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC ||
         code == SQLITE_IOERR_CLOSE || code == SQLITE_IOERR_DIR_CLOSE;
}

bool IsLockError(int code) {
  return code == SQLITE_IOERR_LOCK || code == SQLITE_IOERR_UNLOCK || code == SQLITE_IOERR_RDLOCK ||
         code == SQLITE_IOERR_CHECKRESERVEDLOCK || code == SQLITE_PROTOCOL || code == SQLITE_NOLFS;
}

// What to do about it; begins with "; " unless empty.
std::string_view Advice(int code, absl::StatusCode status) {
  switch (status) {
    case absl::StatusCode::kResourceExhausted:
      return "; free some disk space";
    case absl::StatusCode::kDataLoss:
      return "; it is damaged: move it away together with its -wal, and start again";
    case absl::StatusCode::kFailedPrecondition:
      return IsLockError(code) ? "; its file system cannot lock files: use a folder on a local disk"
                               : "; another process holds it: stop that one first";
    case absl::StatusCode::kPermissionDenied:
      return "; it must belong to the user who runs this";
    default:
      return "";
  }
}

// The errno behind the last error, as far as it is known. sqlite3_system_errno is what errno was
// when the statement had ended, by when rolling back may have changed it; the files remember
// theirs.
int ErrorNumber(sqlite3* handle) {
  int of_database = 0;
  sqlite3_file_control(handle, "main", SQLITE_FCNTL_LAST_ERRNO, &of_database);
  if (IsNoSpace(of_database)) return of_database;
  sqlite3_file* log = nullptr;
  sqlite3_file_control(handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
  if (log != nullptr && log->pMethods != nullptr) {
    int of_log = 0;
    log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &of_log);
    if (IsNoSpace(of_log)) return of_log;
  }
  return sqlite3_system_errno(handle);
}

}  // namespace

absl::StatusCode SqliteStatusCode(int extended_code, int error_number) {
  if (IsSyncError(extended_code)) return absl::StatusCode::kInternal;
  if (IsLockError(extended_code)) return absl::StatusCode::kFailedPrecondition;
  switch (extended_code & 0xff) {
    case SQLITE_FULL:
      return absl::StatusCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR:  // our statements are right: the tables are not what they were
      return absl::StatusCode::kDataLoss;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::StatusCode::kFailedPrecondition;
    case SQLITE_IOERR:
      if (extended_code == SQLITE_IOERR_CORRUPTFS || extended_code == SQLITE_IOERR_DATA) {
        return absl::StatusCode::kDataLoss;
      }
      // SQLite itself says SQLITE_FULL for ENOSPC, but not for a quota.
      return IsNoSpace(error_number) ? absl::StatusCode::kResourceExhausted
                                     : absl::StatusCode::kInternal;
    case SQLITE_CANTOPEN:
      if (IsNoSpace(error_number)) return absl::StatusCode::kResourceExhausted;
      return error_number == EACCES || error_number == EPERM || error_number == EROFS
                 ? absl::StatusCode::kPermissionDenied
                 : absl::StatusCode::kInternal;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return absl::StatusCode::kPermissionDenied;
    default:
      return absl::StatusCode::kInternal;
  }
}

SqliteDatabase::SqliteDatabase(std::string path) : path_(std::move(path)) {}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path) {
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(path));
  // Debian's SQLite reads names that begin with "file:" as URIs.
  const std::string name = path.starts_with('/') ? path : "./" + path;
  const int code =
      sqlite3_open_v2(name.c_str(), &database->handle_,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_EXRESCODE,
                      /*zVfs=*/nullptr);
  if (database->handle_ == nullptr) return absl::InternalError(path + ": out of memory");
  if (code != SQLITE_OK) return database->Error("open");
  sqlite3* const handle = database->handle_;
  for (const auto& [option, value] :
       {std::pair(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1), std::pair(SQLITE_DBCONFIG_DEFENSIVE, 1),
        std::pair(SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0), std::pair(SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        std::pair(SQLITE_DBCONFIG_ENABLE_VIEW, 0)}) {
    if (sqlite3_db_config(handle, option, value, nullptr) != SQLITE_OK) {
      return database->Error("configure");
    }
  }
  // Instead of SQLite's own checkpoints, whose errors nobody would hear of.
  sqlite3_wal_hook(
      handle,
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<SqliteDatabase*>(self)->wal_pages_ = pages;
        return SQLITE_OK;
      },
      database.get());
  return database;
}

SqliteDatabase::~SqliteDatabase() { sqlite3_close_v2(handle_); }

absl::Status SqliteDatabase::Error(std::string_view action) const {
  const int code = sqlite3_extended_errcode(handle_);
  const int error_number = ErrorNumber(handle_);
  const absl::StatusCode status = SqliteStatusCode(code, error_number);
  const std::string system =
      error_number == 0 ? "" : fmt::format(" ({})", std::generic_category().message(error_number));
  return {status, fmt::format("{}: cannot {}: {}{} [SQLite {}]{}", path_, action,
                              sqlite3_errmsg(handle_), system, code, Advice(code, status))};
}

absl::Status SqliteDatabase::Execute(const char* sql) {
  if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) == SQLITE_OK) return absl::OkStatus();
  return Error("read or write");
}

absl::StatusOr<int64_t> SqliteDatabase::QueryInteger(const char* sql) {
  absl::StatusOr<SqliteStatement> statement = SqliteStatement::Prepare(*this, sql);
  if (!statement.ok()) return statement.status();
  absl::StatusOr<bool> row = statement->Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError(path_ + ": nothing found");
  return statement->Integer(0);
}

absl::StatusOr<std::string> SqliteDatabase::QueryText(const char* sql) {
  absl::StatusOr<SqliteStatement> statement = SqliteStatement::Prepare(*this, sql);
  if (!statement.ok()) return statement.status();
  absl::StatusOr<bool> row = statement->Step();
  if (!row.ok()) return row.status();
  if (!*row) return absl::NotFoundError(path_ + ": nothing found");
  return statement->Text(0);
}

absl::StatusOr<int> SqliteDatabase::Checkpoint() {
  int pages = 0;
  int copied = 0;
  // Nobody else reads or writes, so that a passive one copies all there is.
  if (sqlite3_wal_checkpoint_v2(handle_, "main", SQLITE_CHECKPOINT_PASSIVE, &pages, &copied) !=
      SQLITE_OK) {
    return Error("bring its log into it");
  }
  wal_pages_ = pages - copied;
  return wal_pages_;
}

void SqliteDatabase::Rollback() {
  // Some errors have ended the transaction already.
  if (sqlite3_get_autocommit(handle_) != 0) return;
  sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
}

absl::StatusOr<SqliteStatement> SqliteStatement::Prepare(SqliteDatabase& database,
                                                         const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(database.handle(), sql, /*nByte=*/-1, &statement, nullptr) != SQLITE_OK) {
    return database.Error("read");
  }
  return SqliteStatement(database, statement);
}

void SqliteStatement::Note(int code) {
  if (code != SQLITE_OK) bind_code_ = code;
}

void SqliteStatement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  bind_code_ = SQLITE_OK;
}

void SqliteStatement::BindInteger(int parameter, int64_t value) {
  Note(sqlite3_bind_int64(statement_.get(), parameter, value));
}

void SqliteStatement::BindReal(int parameter, std::optional<double> value) {
  Note(value ? sqlite3_bind_double(statement_.get(), parameter, *value)
             : sqlite3_bind_null(statement_.get(), parameter));
}

void SqliteStatement::BindText(int parameter, std::string_view value) {
  // A null pointer would bind NULL.
  Note(sqlite3_bind_text64(statement_.get(), parameter, value.empty() ? "" : value.data(),
                           value.size(), SQLITE_STATIC, SQLITE_UTF8));
}

absl::StatusOr<bool> SqliteStatement::Step() {
  if (bind_code_ != SQLITE_OK) {
    return absl::InternalError(fmt::format("{}: cannot bind a value: {} [SQLite {}]",
                                           database_->path(), sqlite3_errstr(bind_code_),
                                           bind_code_));
  }
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->Error("read or write");
}

absl::Status SqliteStatement::Run() {
  const absl::StatusOr<bool> row = Step();
  return row.status();
}

int64_t SqliteStatement::Integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double SqliteStatement::Real(int column) const {
  return sqlite3_column_double(statement_.get(), column);
}

std::optional<double> SqliteStatement::OptionalReal(int column) const {
  if (sqlite3_column_type(statement_.get(), column) == SQLITE_NULL) return std::nullopt;
  return Real(column);
}

std::string SqliteStatement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return "";
  return {reinterpret_cast<const char*>(text),
          static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
}

}  // namespace tiny_knn
