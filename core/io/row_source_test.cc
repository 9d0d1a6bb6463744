#include "core/io/row_source.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/io/numbered_npy_for_test.h"
#include "core/io/unprivileged_for_test.h"
#include "core/matrix/dtype.h"
#include "core/matrix/matrix_view.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

void ExpectRows(RowSource& source, int64_t begin, int64_t end) {
  const auto view = source.Rows(begin, end);
  ASSERT_TRUE(view.ok()) << view.status();
  ASSERT_EQ(view->rows, end - begin);
  ASSERT_EQ(reinterpret_cast<uintptr_t>(view->data) % 4, 0u) << "unaligned";
  for (int64_t i = begin; i < end; ++i) {
    const auto* row = static_cast<const int32_t*>(view->Row(i - begin));
    for (int64_t j = 0; j < source.dim(); ++j) ASSERT_EQ(row[j], Value(i, j)) << i << " " << j;
  }
}

std::string Refused(const std::string& path, absl::StatusCode code) {
  const auto source = OpenNpyRowSource(path, std::nullopt);
  if (source.ok()) return "(accepted)";
  EXPECT_EQ(source.status().code(), code) << source.status();
  const std::string message(source.status().message());
  EXPECT_TRUE(message.starts_with(path + ": ")) << message;
  return message.substr(path.size() + 2);
}

// Kilobytes of this process's memory of one kind, from /proc/self/smaps_rollup or status.
int64_t ResidentFileKb() {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.starts_with("RssFile:")) return std::atoll(line.c_str() + 8);
  }
  return -1;
}

TEST(RowSourceTest, EveryLayoutGivesTheSameRows) {
  // Shapes around the transposer's panel of 16 columns and piece of 32 Ki rows.
  for (const auto& [rows, dim] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                          {1, 17},
                                                                          {17, 1},
                                                                          {3, 15},
                                                                          {5, 16},
                                                                          {7, 17},
                                                                          {2, 100},
                                                                          {32768, 2},
                                                                          {40000, 3},
                                                                          {65537, 17}}) {
    for (const Layout& layout :
         {Layout{}, Layout{.fortran = true}, Layout{.big_endian = true},
          Layout{.fortran = true, .big_endian = true}, Layout{.header_padding = 1},
          Layout{.fortran = true, .header_padding = 3}}) {
      SCOPED_TRACE(fmt::format("{} x {} fortran={} big={} padding={}", rows, dim, layout.fortran,
                               layout.big_endian, layout.header_padding));
      const std::string path = TestPath("m.npy");
      WriteFile(path, NpyBytes(rows, dim, layout));
      const auto source = OpenNpyRowSource(path, std::nullopt);
      ASSERT_TRUE(source.ok()) << source.status();
      EXPECT_EQ((*source)->rows(), rows);
      EXPECT_EQ((*source)->dim(), dim);
      EXPECT_EQ((*source)->stored_bytes(), rows * dim * 4);
      EXPECT_EQ((*source)->name(), path);
      ExpectRows(**source, 0, rows);
      ExpectRows(**source, rows / 3, rows - rows / 4);
      (*source)->Release();
      ExpectRows(**source, rows - 1, rows);
      ExpectRows(**source, 0, 0);
      ExpectRows(**source, rows, rows);
      EXPECT_TRUE((*source)->CheckUnchanged().ok());
    }
  }
}

TEST(RowSourceTest, UnalignedDataIsBufferedAndAlignedDataIsNot) {
  for (int padding : {0, 1, 2, 3, 4}) {
    const std::string path = TestPath("m.npy");
    WriteFile(path, NpyBytes(3, 5, {.header_padding = padding}));
    const auto source = OpenNpyRowSource(path, std::nullopt);
    ASSERT_TRUE(source.ok());
    EXPECT_EQ((*source)->buffer_bytes_per_row(), padding % 4 == 0 ? 0 : 20) << padding;
    ExpectRows(**source, 0, 3);
  }
}

TEST(RowSourceTest, BytesAfterTheDataAreIgnored) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(3, 5, {}) + "and a postscript");
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok()) << source.status();
  ExpectRows(**source, 0, 3);
}

TEST(RowSourceTest, TruncatedDataSaysBytesFoundAndExpected) {
  const std::string path = TestPath("m.npy");
  std::string bytes = NpyBytes(3, 5, {});
  bytes.pop_back();
  WriteFile(path, bytes);
  EXPECT_EQ(Refused(path, absl::StatusCode::kDataLoss),
            "is truncated: 187 bytes found, 188 expected for 3 rows of 5 int32 values; copy or "
            "write it again");
}

TEST(RowSourceTest, PathsThatAreNoReadableRegularFileAreRefusedAtOnce) {
  EXPECT_EQ(Refused(TestPath("missing.npy"), absl::StatusCode::kNotFound),
            "cannot open, expected an .npy file: No such file or directory");
  const std::string folder = TestPath("folder");
  mkdir(folder.c_str(), 0777);
  EXPECT_EQ(Refused(folder, absl::StatusCode::kInvalidArgument),
            "is a directory; expected an .npy file");
  const std::string fifo = TestPath("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0666), 0);
  EXPECT_EQ(Refused(fifo, absl::StatusCode::kInvalidArgument),
            "is a FIFO (named pipe); expected an .npy file");
  EXPECT_EQ(Refused("/dev/null", absl::StatusCode::kInvalidArgument),
            "is a device; expected an .npy file");
  EXPECT_EQ(Refused(TestPath("folder") + "/../missing/x.npy", absl::StatusCode::kNotFound),
            "cannot open, expected an .npy file: No such file or directory");
  const std::string empty = TestPath("empty.npy");
  WriteFile(empty, "");
  EXPECT_EQ(Refused(empty, absl::StatusCode::kInvalidArgument), "is empty; expected an .npy file");
  EXPECT_EQ(Refused(empty + "/below.npy", absl::StatusCode::kInvalidArgument),
            "cannot open, expected an .npy file: Not a directory");
}

TEST(RowSourceTest, SocketIsRefused) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  // Relative: absolute paths of tests are longer than a socket's name may be.
  const std::string name = "row_source_test.socket";
  std::memcpy(address.sun_path, name.c_str(), name.size());
  const std::string folder = TestPath("");
  const int back = open(".", O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(chdir(folder.c_str()), 0);
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM, 0);
  unlink(name.c_str());
  ASSERT_EQ(bind(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(Refused(name, absl::StatusCode::kInvalidArgument),
            "is a socket; expected an .npy file");
  close(socket_fd);
  ASSERT_EQ(fchdir(back), 0);
  close(back);
}

TEST(RowSourceTest, UnreadableFileIsPermissionDenied) {
  const ScopedUnprivileged unprivileged;
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(1, 1, {}));
  chmod(path.c_str(), 0);
  EXPECT_EQ(Refused(path, absl::StatusCode::kPermissionDenied),
            "cannot open, expected an .npy file: Permission denied");
}

TEST(RowSourceTest, FileTruncatedUnderTheMappingIsDataLossNotSigbus) {
  const std::string path = TestPath("m.npy");
  const std::string bytes = NpyBytes(100000, 5, {});
  WriteFile(path, bytes);
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  ExpectRows(**source, 0, 10);
  ASSERT_EQ(truncate(path.c_str(), 8192), 0);
  const auto view = (*source)->Rows(0, 100000);
  ASSERT_TRUE(view.ok());
  int64_t sum = 0;
  for (int64_t i = 0; i < 100000; ++i) sum += static_cast<const int32_t*>(view->Row(i))[0];
  EXPECT_NE(sum, 0);
  EXPECT_EQ(static_cast<const int32_t*>(view->Row(99999))[0], 0);
  EXPECT_EQ(std::string((*source)->CheckUnchanged().message()),
            fmt::format("{}: changed while it was read: 8192 bytes found, {} expected; run again "
                        "when nothing writes to it",
                        path, bytes.size()));
  EXPECT_EQ((*source)->CheckUnchanged().code(), absl::StatusCode::kDataLoss);
  (*source)->Release();
  ASSERT_TRUE((*source)->Rows(0, 100000).ok()) << "still safe to read";
}

TEST(RowSourceTest, FileTruncatedUnderTheBufferIsDataLoss) {
  const std::string path = TestPath("m.npy");
  const std::string bytes = NpyBytes(1000, 5, {.fortran = true});
  WriteFile(path, bytes);
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  ASSERT_EQ(truncate(path.c_str(), 300), 0);
  const absl::Status status = (*source)->Rows(0, 1000).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::string(status.message()),
            fmt::format("{}: was truncated while it was read: it ends at byte 300, {} bytes "
                        "expected",
                        path, bytes.size()));
  EXPECT_FALSE((*source)->CheckUnchanged().ok());
}

TEST(RowSourceTest, RewrittenFileOfTheSameSizeIsNoticed) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(10, 5, {}));
  struct stat before;
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  EXPECT_TRUE((*source)->CheckUnchanged().ok());
  // In place, and with the old modification time put back: ctime still tells.
  usleep(20000);  // the kernel's clock for files ticks every few milliseconds
  const int fd = open(path.c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, "x", 1, 150), 1);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(futimens(fd, times), 0);
  close(fd);
  EXPECT_EQ((*source)->CheckUnchanged().code(), absl::StatusCode::kDataLoss);
}

TEST(RowSourceTest, AChangeOfMetadataAloneIsCalledThat) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(10, 5, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  usleep(20000);  // the kernel's clock for files ticks every few milliseconds
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  EXPECT_EQ(std::string((*source)->CheckUnchanged().message()),
            path +
                ": changed while it was read: its metadata changed (renamed, replaced or chmod); "
                "run again when nothing changes it");
}

TEST(RowSourceTest, ReplacedFileGoesOnServingWhatWasOpened) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(10, 5, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  ASSERT_EQ(unlink(path.c_str()), 0);
  WriteFile(path, "something else");
  ExpectRows(**source, 0, 10);
}

TEST(RowSourceTest, ReleaseKeepsResidentFilePagesBounded) {
  const std::string path = TestPath("m.npy");
  constexpr int64_t kRows = 64 * 1024;
  constexpr int64_t kDim = 256;  // 64 MiB
  WriteFile(path, NpyBytes(kRows, kDim, {}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  ASSERT_EQ((*source)->buffer_bytes_per_row(), 0);
  const int64_t before = ResidentFileKb();
  int64_t most = 0;
  constexpr int64_t kChunk = kRows / 16;
  for (int64_t begin = 0; begin < kRows; begin += kChunk) {
    ExpectRows(**source, begin, begin + kChunk);
    most = std::max(most, ResidentFileKb() - before);
    (*source)->Release();
  }
  EXPECT_GE(most, 4 * 1024) << "a chunk of 4 MiB was read: the test measures nothing";
  EXPECT_LE(most, 8 * 1024);
  EXPECT_LE(ResidentFileKb() - before, 1024);
}

TEST(RowSourceTest, BuffersAreKeptWhenTheyAreLargeEnough) {
  const std::string path = TestPath("m.npy");
  WriteFile(path, NpyBytes(100, 5, {.big_endian = true}));
  const auto source = OpenNpyRowSource(path, std::nullopt);
  ASSERT_TRUE(source.ok());
  const void* first = (*source)->Rows(0, 100)->data;
  (*source)->Release();
  EXPECT_EQ((*source)->Rows(50, 60)->data, first);
}

}  // namespace
}  // namespace tiny_knn
