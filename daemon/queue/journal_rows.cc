#include "daemon/queue/journal_rows.h"

#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "daemon/protocol/job_view.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

// A worker may say that it took "not a number" seconds, which SQLite would keep as NULL.
double Finite(double value) { return std::isfinite(value) ? value : 0; }
std::optional<double> Finite(std::optional<double> value) {
  if (value) return Finite(*value);
  return value;
}

int IntOr0(int64_t value) { return std::in_range<int>(value) ? static_cast<int>(value) : 0; }

// What both statements bind, from `parameter` on; see kMutableColumns.
void BindMutable(SqliteStatement& statement, int parameter, const Job& job) {
  statement.BindInteger(parameter++, job.priority);
  statement.BindInteger(parameter++, job.timeout_seconds);
  statement.BindText(parameter++, job.queries_path);
  statement.BindText(parameter++, job.docs_path);
  statement.BindText(parameter++, job.output_path);
  statement.BindText(parameter++, JobStateName(job.state));
  statement.BindInteger(parameter++, job.attempt);
  statement.BindInteger(parameter++, job.crashes);
  statement.BindReal(parameter++, Finite(job.submitted_at));
  statement.BindReal(parameter++, Finite(job.started_at));
  statement.BindReal(parameter++, Finite(job.finished_at));
  statement.BindReal(parameter++, Finite(job.ran_seconds));
  statement.BindText(parameter++, job.error_code);
  statement.BindText(parameter++, job.error);
  statement.BindText(parameter++, job.device);
  statement.BindText(parameter++, job.docs);
  statement.BindText(parameter++, job.report_json);
  statement.BindReal(parameter++, Finite(job.search_seconds));
  statement.BindInteger(parameter++, job.leftover_attempt);
}

constexpr const char* kSelectJobsSql =
    "SELECT id, uid, key, spec, num_queries, num_docs, dim, k, docs_bytes, priority, "
    "timeout_seconds, queries_path, docs_path, output_path, state, attempt, crashes, submitted_at, "
    "started_at, finished_at, ran_seconds, error_code, error, device, docs, report, "
    "search_seconds, leftover_attempt FROM jobs ORDER BY id";

// The row that `row` stands on; nothing if its state is none.
std::optional<Job> ReadJob(const SqliteStatement& row) {
  Job job;
  int column = 0;
  job.id = row.Integer(column++);
  job.uid = row.Integer(column++);
  job.key = row.Text(column++);
  job.spec_json = row.Text(column++);
  job.shape.num_queries = row.Integer(column++);
  job.shape.num_docs = row.Integer(column++);
  job.shape.dim = row.Integer(column++);
  job.shape.k = row.Integer(column++);
  job.shape.docs_bytes = row.Integer(column++);
  job.priority = IntOr0(row.Integer(column++));
  job.timeout_seconds = row.Integer(column++);
  job.queries_path = row.Text(column++);
  job.docs_path = row.Text(column++);
  job.output_path = row.Text(column++);
  const std::optional<JobState> state = ParseJobState(row.Text(column++));
  job.attempt = IntOr0(row.Integer(column++));
  job.crashes = IntOr0(row.Integer(column++));
  job.submitted_at = row.Real(column++);
  job.started_at = row.OptionalReal(column++);
  job.finished_at = row.OptionalReal(column++);
  job.ran_seconds = row.OptionalReal(column++);
  job.error_code = row.Text(column++);
  job.error = row.Text(column++);
  job.device = row.Text(column++);
  job.docs = row.Text(column++);
  job.report_json = row.Text(column++);
  job.search_seconds = row.Real(column++);
  job.leftover_attempt = IntOr0(row.Integer(column++));
  if (!state || job.id <= 0) return std::nullopt;
  job.state = *state;
  return job;
}

}  // namespace

const char* const kInsertJobSql =
    "INSERT INTO jobs (id, uid, key, spec, num_queries, num_docs, dim, k, docs_bytes, priority, "
    "timeout_seconds, queries_path, docs_path, output_path, state, attempt, crashes, submitted_at, "
    "started_at, finished_at, ran_seconds, error_code, error, device, docs, report, "
    "search_seconds, leftover_attempt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
    "?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)";

const char* const kUpdateJobSql =
    "UPDATE jobs SET priority = ?2, timeout_seconds = ?3, queries_path = ?4, docs_path = ?5, "
    "output_path = ?6, state = ?7, attempt = ?8, crashes = ?9, submitted_at = ?10, started_at = "
    "?11, finished_at = ?12, ran_seconds = ?13, error_code = ?14, error = ?15, device = ?16, docs "
    "= ?17, report = ?18, search_seconds = ?19, leftover_attempt = ?20 WHERE id = ?1";

const char* const kDeleteJobSql = "DELETE FROM jobs WHERE id = ?1";

absl::Status RunInsert(SqliteStatement& statement, const Job& job) {
  statement.Reset();
  int parameter = 1;
  statement.BindInteger(parameter++, job.id);
  statement.BindInteger(parameter++, job.uid);
  statement.BindText(parameter++, job.key);
  statement.BindText(parameter++, job.spec_json);
  statement.BindInteger(parameter++, job.shape.num_queries);
  statement.BindInteger(parameter++, job.shape.num_docs);
  statement.BindInteger(parameter++, job.shape.dim);
  statement.BindInteger(parameter++, job.shape.k);
  statement.BindInteger(parameter++, job.shape.docs_bytes);
  BindMutable(statement, parameter, job);
  return statement.Run();
}

absl::Status RunUpdate(SqliteStatement& statement, const Job& job) {
  statement.Reset();
  statement.BindInteger(1, job.id);
  BindMutable(statement, 2, job);
  return statement.Run();
}

absl::Status RunDelete(SqliteStatement& statement, int64_t id) {
  statement.Reset();
  statement.BindInteger(1, id);
  return statement.Run();
}

absl::StatusOr<std::vector<Job>> ReadJobs(SqliteDatabase& database) {
  absl::StatusOr<SqliteStatement> rows = SqliteStatement::Prepare(database, kSelectJobsSql);
  if (!rows.ok()) return rows.status();
  std::vector<Job> jobs;
  while (true) {
    const absl::StatusOr<bool> row = rows->Step();
    if (!row.ok()) return row.status();
    if (!*row) return jobs;
    std::optional<Job> job = ReadJob(*rows);
    if (!job) {
      return absl::DataLossError(fmt::format(
          "{}: row {} is no job; the file is damaged: move it away together with its -wal, and "
          "start again",
          database.path(), rows->Integer(0)));
    }
    jobs.push_back(*std::move(job));
  }
}

}  // namespace tiny_knn
