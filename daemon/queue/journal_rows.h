// Jobs as rows of the journal's table.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/queue/job.h"
#include "daemon/queue/sqlite.h"

namespace tiny_knn {

extern const char* const kInsertJobSql;
extern const char* const kUpdateJobSql;
extern const char* const kDeleteJobSql;

// Runs the statement of that name. `job` is not copied; numbers that are not finite become 0.
absl::Status RunInsert(SqliteStatement& statement, const Job& job);
absl::Status RunUpdate(SqliteStatement& statement, const Job& job);
absl::Status RunDelete(SqliteStatement& statement, int64_t id);

// Every row by id. DataLoss for one that no job can be.
absl::StatusOr<std::vector<Job>> ReadJobs(SqliteDatabase& database);

}  // namespace tiny_knn
