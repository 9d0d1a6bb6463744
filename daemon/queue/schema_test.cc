#include "daemon/queue/schema.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

// A schema that has grown over three versions.
constexpr const char* kGrown[] = {
    "CREATE TABLE things (id INTEGER PRIMARY KEY); INSERT INTO things VALUES (1), (2);",
    "ALTER TABLE things ADD COLUMN name TEXT NOT NULL DEFAULT 'nameless';",
    "UPDATE things SET name = 'thing ' || id;",
};
constexpr const char* kBroken[] = {kGrown[0], "DELETE FROM things; CREATE TABLE things (id);"};

Schema Version(size_t version) {
  return {.application_id = 77, .migrations = std::span(kGrown).first(version)};
}

class SchemaTest : public testing::Test {
 protected:
  SchemaTest() {
    path_ = testing::TempDir() + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::ofstream(path_, std::ios::trunc).close();
    Reopen();
  }
  void Reopen() {
    database_.reset();
    absl::StatusOr<std::unique_ptr<SqliteDatabase>> opened = SqliteDatabase::Open(path_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    database_ = *std::move(opened);
  }
  int64_t Number(const char* sql) { return database_->QueryInteger(sql).value_or(-1); }

  std::string path_;
  std::unique_ptr<SqliteDatabase> database_;
};

TEST_F(SchemaTest, BringsEveryOlderVersionToTheNewest) {
  for (size_t from = 0; from <= 3; ++from) {
    std::filesystem::remove(path_);
    std::ofstream(path_, std::ios::trunc).close();
    Reopen();
    if (from > 0) {
      ASSERT_TRUE(CheckSchema(*database_, Version(from)).ok());
      ASSERT_TRUE(Migrate(*database_, Version(from)).ok());
      EXPECT_EQ(Number("PRAGMA user_version"), static_cast<int64_t>(from));
    }
    Reopen();
    ASSERT_TRUE(CheckSchema(*database_, Version(3)).ok()) << from;
    ASSERT_TRUE(Migrate(*database_, Version(3)).ok()) << from;
    EXPECT_EQ(Number("PRAGMA user_version"), 3);
    EXPECT_EQ(Number("PRAGMA application_id"), 77);
    EXPECT_EQ(database_->QueryText("SELECT group_concat(name) FROM things").value(),
              "thing 1,thing 2");
  }
}

TEST_F(SchemaTest, RefusesNewerVersionsAndOtherProgramsFiles) {
  ASSERT_TRUE(Migrate(*database_, Version(3)).ok());
  const absl::Status newer = CheckSchema(*database_, Version(2));
  EXPECT_EQ(newer.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(newer.message().find("version 3, this program knows up to 2"), std::string_view::npos);
  Schema other = Version(3);
  other.application_id = 78;
  EXPECT_EQ(CheckSchema(*database_, other).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(database_->Execute("PRAGMA user_version = 0").ok());
  EXPECT_EQ(CheckSchema(*database_, Version(3)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(SchemaTest, LeavesTheOldVersionWhenAMigrationFails) {
  ASSERT_TRUE(Migrate(*database_, Version(1)).ok());
  EXPECT_FALSE(Migrate(*database_, {.application_id = 77, .migrations = kBroken}).ok());
  EXPECT_EQ(Number("PRAGMA user_version"), 1);
  EXPECT_EQ(Number("SELECT count(*) FROM things"), 2);
  Reopen();
  EXPECT_TRUE(Migrate(*database_, Version(3)).ok());
}

TEST(SqliteStatusCodeTest, TellsNoSpaceFromABrokenDisk) {
  EXPECT_EQ(SqliteStatusCode(SQLITE_FULL, 0), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_WRITE, ENOSPC), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_WRITE, EDQUOT), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_WRITE, EIO), absl::StatusCode::kInternal);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_FSYNC, ENOSPC), absl::StatusCode::kInternal);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_DIR_FSYNC, ENOSPC), absl::StatusCode::kInternal);
  EXPECT_EQ(SqliteStatusCode(SQLITE_IOERR_LOCK, ENOLCK), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SqliteStatusCode(SQLITE_CANTOPEN, EACCES), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(SqliteStatusCode(SQLITE_CORRUPT_INDEX, 0), absl::StatusCode::kDataLoss);
  EXPECT_EQ(SqliteStatusCode(SQLITE_NOMEM, ENOSPC), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace tiny_knn
