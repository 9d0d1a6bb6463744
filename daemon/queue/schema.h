// The versions of a database file, and how an older one becomes the newest.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "daemon/queue/sqlite.h"

namespace tiny_knn {

// migrations[v] makes version v + 1 out of version v; version 0 is an empty file.
struct Schema {
  int32_t application_id = 0;  // of SQLite's file header: says whose file it is
  std::span<const char* const> migrations;
};

// FailedPrecondition, naming the file, if it is another program's database or was written by a
// newer version of this one. Changes nothing.
absl::Status CheckSchema(SqliteDatabase& database, const Schema& schema);

// Brings a file that CheckSchema accepts to the newest version, in one transaction: all of it or
// nothing.
absl::Status Migrate(SqliteDatabase& database, const Schema& schema);

// The journal's.
extern const Schema kJournalSchema;

}  // namespace tiny_knn
