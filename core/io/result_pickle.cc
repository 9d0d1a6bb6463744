#include "core/io/result_pickle.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string_view>

#include "core/io/python_string.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays are written as they lie in memory, as '<i8' and '<f4'");

// The opcodes of a result, from the pickle module's documentation (Lib/pickletools.py).
constexpr char kProto = '\x80';
constexpr char kEmptyDict = '}';
constexpr char kMark = '(';
constexpr char kSetItems = 'u';
constexpr char kStop = '.';
constexpr char kShortBinUnicode = '\x8c';
constexpr char kBinUnicode = 'X';
constexpr char kShortBinBytes = 'C';
constexpr char kBinBytes8 = '\x8e';
constexpr char kBinInt = 'J';
constexpr char kBinInt1 = 'K';
constexpr char kBinInt2 = 'M';
constexpr char kLong1 = '\x8a';
constexpr char kNone = 'N';
constexpr char kNewTrue = '\x88';
constexpr char kNewFalse = '\x89';
constexpr char kTuple = 't';
constexpr char kTuple1 = '\x85';
constexpr char kTuple2 = '\x86';
constexpr char kTuple3 = '\x87';
constexpr char kStackGlobal = '\x93';
constexpr char kReduce = 'R';
constexpr char kBuild = 'b';

// Appends pickle opcodes to a string.
class PickleText {
 public:
  PickleText& Op(char opcode) {
    text_ += opcode;
    return *this;
  }

  // `value`, little-endian, in `bytes` bytes.
  PickleText& Number(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i) & 0xFF);
    return *this;
  }

  PickleText& Int(int64_t value) {
    if (value >= 0 && value <= 0xFF) return Op(kBinInt1).Number(static_cast<uint64_t>(value), 1);
    if (value >= 0 && value <= 0xFFFF) return Op(kBinInt2).Number(static_cast<uint64_t>(value), 2);
    if (value >= std::numeric_limits<int32_t>::min() &&
        value <= std::numeric_limits<int32_t>::max()) {
      return Op(kBinInt).Number(static_cast<uint64_t>(value), 4);
    }
    return Op(kLong1).Number(8, 1).Number(static_cast<uint64_t>(value), 8);
  }

  PickleText& Str(std::string_view bytes) {
    const std::string text = FileNameToPythonUtf8(bytes);
    if (text.size() <= 0xFF) {
      Op(kShortBinUnicode).Number(text.size(), 1);
    } else {
      Op(kBinUnicode).Number(text.size(), 4);
    }
    text_ += text;
    return *this;
  }

  PickleText& Global(std::string_view module, std::string_view name) {
    return Str(module).Str(name).Op(kStackGlobal);
  }

  // numpy.dtype("f4"), little-endian.
  PickleText& Dtype(std::string_view code) {
    Global("numpy", "dtype");
    Str(code).Op(kNewFalse).Op(kNewTrue).Op(kTuple3).Op(kReduce);
    Op(kMark).Int(3).Str("<").Op(kNone).Op(kNone).Op(kNone).Int(-1).Int(-1).Int(0).Op(kTuple);
    return Op(kBuild);
  }

  // An array [rows, columns] up to its data, which must follow, and then EndArray.
  PickleText& BeginArray(int64_t rows, int64_t columns, std::string_view code, int64_t data_bytes) {
    Global("numpy.core.multiarray", "_reconstruct");
    Global("numpy", "ndarray").Int(0).Op(kTuple1);
    Op(kShortBinBytes).Number(1, 1).Op('b').Op(kTuple3).Op(kReduce);
    Op(kMark).Int(1).Int(rows).Int(columns).Op(kTuple2).Dtype(code);
    return Op(kNewFalse).Op(kBinBytes8).Number(static_cast<uint64_t>(data_bytes), 8);
  }
  PickleText& EndArray() { return Op(kTuple).Op(kBuild); }

  int64_t size() const { return static_cast<int64_t>(text_.size()); }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(text_)); }

 private:
  std::string text_;
};

// Bytes of an array, or nothing when they do not fit int64_t.
std::optional<int64_t> ArrayBytes(int64_t rows, int64_t columns, int64_t item) {
  // Room for the rest of the file too.
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 4;
  if (rows < 0 || columns < 0) return std::nullopt;
  if (columns > 0 && rows > kMost / item / columns) return std::nullopt;
  return rows * columns * item;
}

}  // namespace

struct ResultPickleWriter::State {
  std::unique_ptr<AtomicFile> file;
  int64_t num_queries = 0;
  int64_t k = 0;
  int64_t score_size = 0;      // bytes of one score
  int64_t indices_offset = 0;  // of row 0 in the file
  int64_t scores_offset = 0;
  std::map<int64_t, int64_t> written;  // disjoint ranges of rows, first -> end

  void MarkWritten(int64_t first, int64_t end) {
    auto next = written.upper_bound(first);
    if (next != written.begin() && std::prev(next)->second >= first) {
      --next;
      first = next->first;
    }
    while (next != written.end() && next->first <= end) {
      end = std::max(end, next->second);
      next = written.erase(next);
    }
    written[first] = end;
  }
};

ResultPickleWriter::ResultPickleWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
ResultPickleWriter::~ResultPickleWriter() = default;

absl::StatusOr<std::unique_ptr<ResultPickleWriter>> ResultPickleWriter::Create(
    const std::string& path, const ResultMetadata& metadata, const AtomicFileOptions& options) {
  if (metadata.score_dtype != DType::kFloat32 && metadata.score_dtype != DType::kFloat64) {
    return absl::InvalidArgumentError(fmt::format("{}: scores are {}, expected float32 or float64",
                                                  path, DTypeName(metadata.score_dtype)));
  }
  auto state = std::make_unique<State>();
  state->num_queries = metadata.num_queries;
  state->k = metadata.k;
  state->score_size = ItemSize(metadata.score_dtype);
  const auto indices_bytes = ArrayBytes(metadata.num_queries, metadata.k, 8);
  const auto scores_bytes = ArrayBytes(metadata.num_queries, metadata.k, state->score_size);
  if (!indices_bytes.has_value() || !scores_bytes.has_value()) {
    return absl::InvalidArgumentError(
        fmt::format("{}: a result of {} queries x k={} is larger than any file; use a smaller k",
                    path, metadata.num_queries, metadata.k));
  }

  PickleText head;
  head.Op(kProto).Number(4, 1).Op(kEmptyDict).Op(kMark).Str("indices");
  head.BeginArray(metadata.num_queries, metadata.k, "i8", *indices_bytes);
  PickleText middle;
  middle.EndArray().Str("scores");
  middle.BeginArray(metadata.num_queries, metadata.k,
                    metadata.score_dtype == DType::kFloat32 ? "f4" : "f8", *scores_bytes);
  PickleText tail;
  tail.EndArray();
  tail.Str("queries_path").Str(metadata.queries_path);
  tail.Str("docs_path").Str(metadata.docs_path);
  tail.Str("k").Int(metadata.k);
  tail.Str("batch_size").Int(metadata.batch_size);
  tail.Str("dtype").Str(metadata.dtype);
  tail.Str("device").Str(metadata.device);
  tail.Str("metric").Str(metadata.metric);
  tail.Str("tiny_knn_version").Str(metadata.tiny_knn_version);
  tail.Op(kSetItems).Op(kStop);

  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path, options);
  if (!file.ok()) return file.status();
  state->file = *std::move(file);
  state->indices_offset = head.size();
  const int64_t middle_offset = state->indices_offset + *indices_bytes;
  state->scores_offset = middle_offset + middle.size();
  const int64_t tail_offset = state->scores_offset + *scores_bytes;
  absl::Status status = state->file->Reserve(tail_offset + tail.size());
  if (status.ok()) status = state->file->WriteAt(0, head.bytes());
  if (status.ok()) status = state->file->WriteAt(middle_offset, middle.bytes());
  if (status.ok()) status = state->file->WriteAt(tail_offset, tail.bytes());
  if (!status.ok()) return status;
  return std::unique_ptr<ResultPickleWriter>(new ResultPickleWriter(std::move(state)));
}

absl::Status ResultPickleWriter::WriteRows(int64_t first_query, int64_t num_queries,
                                           const int64_t* indices, const void* scores) {
  State& s = *state_;
  if (first_query < 0 || num_queries < 0 || first_query > s.num_queries - num_queries) {
    return absl::InternalError(fmt::format("{}: rows [{}, {}+{}) written of {}",
                                           s.file->target_path(), first_query, first_query,
                                           num_queries, s.num_queries));
  }
  const int64_t first = first_query * s.k;
  const auto count = static_cast<size_t>(num_queries * s.k);
  const auto score_bytes = count * static_cast<size_t>(s.score_size);
  absl::Status status =
      s.file->WriteAt(s.indices_offset + first * 8, std::as_bytes(std::span(indices, count)));
  if (status.ok()) {
    status = s.file->WriteAt(s.scores_offset + first * s.score_size,
                             {static_cast<const std::byte*>(scores), score_bytes});
  }
  if (status.ok() && num_queries > 0) s.MarkWritten(first_query, first_query + num_queries);
  return status;
}

absl::Status ResultPickleWriter::Commit() {
  const State& s = *state_;
  const bool complete =
      s.num_queries == 0 || (s.written.size() == 1 && s.written.begin()->first == 0 &&
                             s.written.begin()->second == s.num_queries);
  if (!complete) {
    return absl::FailedPreconditionError(
        fmt::format("{}: committed before every row was written", s.file->target_path()));
  }
  return s.file->Commit();
}

}  // namespace tiny_knn
