// SQLite's C API with owners for its handles and its errors as Status. Only what a journal needs.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tiny_knn {

// What a failed call means to whoever keeps a file, from SQLite's extended result code and the
// errno behind it:
//   ResourceExhausted   no space or quota, found while writing; never from a sync
//   DataLoss            damaged, or no database at all
//   FailedPrecondition  another process holds it, or the file system cannot lock
//   PermissionDenied    not ours to read or write
//   Internal            everything else, a failed sync among it
absl::StatusCode SqliteStatusCode(int extended_code, int error_number);

// One connection. Closing it writes nothing: no checkpoint, no sync. Thread-compatible.
class SqliteDatabase {
 public:
  // Opens a file that exists, by SQLite's default VFS; reads nothing yet.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path);
  ~SqliteDatabase();
  SqliteDatabase(const SqliteDatabase&) = delete;
  SqliteDatabase& operator=(const SqliteDatabase&) = delete;

  // Runs statements whose rows nobody wants.
  absl::Status Execute(const char* sql);
  // The first column of the first row; NotFound without one.
  absl::StatusOr<int64_t> QueryInteger(const char* sql);
  absl::StatusOr<std::string> QueryText(const char* sql);

  // Copies the write-ahead log into the database and syncs both. Returns how many pages the log
  // still holds that are not copied.
  absl::StatusOr<int> Checkpoint();
  // Pages in the write-ahead log after the last commit.
  int wal_pages() const { return wal_pages_; }

  // Ends a transaction without its changes; nothing when there is none.
  void Rollback();
  // What the last call on this connection failed of: "{path}: cannot {action}: ...".
  absl::Status Error(std::string_view action) const;

  const std::string& path() const { return path_; }
  sqlite3* handle() const { return handle_; }

 private:
  explicit SqliteDatabase(std::string path);
  const std::string path_;
  sqlite3* handle_ = nullptr;
  int wal_pages_ = 0;
};

// A prepared statement. Columns and parameters are counted as SQLite counts them: parameters from
// 1, columns from 0. Thread-compatible; must not outlive its database.
class SqliteStatement {
 public:
  static absl::StatusOr<SqliteStatement> Prepare(SqliteDatabase& database, const char* sql);

  // Ready to be bound and run again.
  void Reset();
  void BindInteger(int parameter, int64_t value);
  void BindReal(int parameter, std::optional<double> value);  // nothing: NULL
  // Not copied: must live until the statement is run or reset.
  void BindText(int parameter, std::string_view value);

  // True: there is a row.
  absl::StatusOr<bool> Step();
  // Steps a statement that has no rows.
  absl::Status Run();

  int64_t Integer(int column) const;
  double Real(int column) const;
  std::optional<double> OptionalReal(int column) const;
  std::string Text(int column) const;

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  SqliteStatement(SqliteDatabase& database, sqlite3_stmt* statement)
      : database_(&database), statement_(statement) {}
  // A parameter that could not be bound (out of memory, a number that is none) fails the next Step.
  void Note(int code);

  SqliteDatabase* database_;
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
  int bind_code_ = SQLITE_OK;
};

}  // namespace tiny_knn
