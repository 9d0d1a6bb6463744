#include "daemon/queue/schema.h"

#include <string>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// Ids are never given twice, also when the greatest job was removed: AUTOINCREMENT.
constexpr const char* kVersion1 = R"sql(
  CREATE TABLE meta (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  INSERT INTO meta VALUES ('tag', lower(hex(randomblob(4))));
  CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id > 0),
    uid INTEGER NOT NULL,
    key TEXT NOT NULL,
    priority INTEGER NOT NULL,
    timeout_seconds INTEGER NOT NULL,
    spec TEXT NOT NULL,
    num_queries INTEGER NOT NULL,
    num_docs INTEGER NOT NULL,
    dim INTEGER NOT NULL,
    k INTEGER NOT NULL,
    docs_bytes INTEGER NOT NULL,
    queries_path TEXT NOT NULL,
    docs_path TEXT NOT NULL,
    output_path TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    submitted_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    ran_seconds REAL,
    error_code TEXT NOT NULL,
    error TEXT NOT NULL,
    device TEXT NOT NULL,
    docs TEXT NOT NULL,
    report TEXT NOT NULL,
    search_seconds REAL NOT NULL,
    leftover_attempt INTEGER NOT NULL,
    UNIQUE (uid, key)
  ) STRICT;
)sql";

constexpr const char* kJournalMigrations[] = {kVersion1};

}  // namespace

const Schema kJournalSchema = {.application_id = 0x746b6e6e,  // "tknn"
                               .migrations = kJournalMigrations};

absl::Status CheckSchema(SqliteDatabase& database, const Schema& schema) {
  const absl::StatusOr<int64_t> owner = database.QueryInteger("PRAGMA application_id");
  if (!owner.ok()) return owner.status();
  const absl::StatusOr<int64_t> version = database.QueryInteger("PRAGMA user_version");
  if (!version.ok()) return version.status();
  const absl::StatusOr<int64_t> tables =
      database.QueryInteger("SELECT count(*) FROM sqlite_schema");
  if (!tables.ok()) return tables.status();
  if (*owner == 0 && *version == 0 && *tables == 0) return absl::OkStatus();
  if (*owner != schema.application_id) {
    return absl::FailedPreconditionError(fmt::format(
        "{}: is another program's database; use another folder, or move it away", database.path()));
  }
  const auto newest = static_cast<int64_t>(schema.migrations.size());
  if (*version < 1 || *version > newest) {
    return absl::FailedPreconditionError(
        fmt::format("{}: has schema version {}, this program knows up to {}; use the newer "
                    "version of tiny-knn that wrote it",
                    database.path(), *version, newest));
  }
  return absl::OkStatus();
}

absl::Status Migrate(SqliteDatabase& database, const Schema& schema) {
  const absl::StatusOr<int64_t> version = database.QueryInteger("PRAGMA user_version");
  if (!version.ok()) return version.status();
  const auto newest = static_cast<int64_t>(schema.migrations.size());
  if (*version == newest) return absl::OkStatus();
  std::string sql = "BEGIN IMMEDIATE;";
  for (int64_t i = *version; i < newest; ++i) sql += schema.migrations[static_cast<size_t>(i)];
  sql += fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}; COMMIT",
                     schema.application_id, newest);
  absl::Status status = database.Execute(sql.c_str());
  if (!status.ok()) database.Rollback();
  return status;
}

}  // namespace tiny_knn
