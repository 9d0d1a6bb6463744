#include "core/io/result_pickle.h"

#include <bit>
#include <limits>
#include <span>
#include <string_view>

#include "core/io/python_string.h"
#include "core/io/result_rows.h"

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

  PickleText& Field(const std::string& text) { return Str(text); }
  PickleText& Field(int64_t number) { return Int(number); }
  PickleText& Field(bool value) { return Op(value ? kNewTrue : kNewFalse); }

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

}  // namespace

struct ResultPickleWriter::State {
  ResultRows rows;
};

ResultPickleWriter::ResultPickleWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
ResultPickleWriter::~ResultPickleWriter() = default;

absl::StatusOr<std::unique_ptr<ResultPickleWriter>> ResultPickleWriter::Create(
    const std::string& path, const ResultMetadata& metadata, const AtomicFileOptions& options) {
  const absl::StatusOr<ResultSizes> sizes = SizesOf(path, metadata);
  if (!sizes.ok()) return sizes.status();

  PickleText head;
  head.Op(kProto).Number(4, 1).Op(kEmptyDict).Op(kMark).Str("indices");
  head.BeginArray(metadata.num_queries, metadata.k, "i8", sizes->indices_bytes);
  PickleText middle;
  middle.EndArray().Str("scores");
  middle.BeginArray(metadata.num_queries, metadata.k,
                    metadata.score_dtype == DType::kFloat32 ? "f4" : "f8", sizes->scores_bytes);
  PickleText tail;
  tail.EndArray();
  VisitResultFields(metadata, /*all=*/false, [&tail](std::string_view key, const auto& field) {
    tail.Str(key).Field(field);
  });
  tail.Op(kSetItems).Op(kStop);

  const int64_t middle_offset = head.size() + sizes->indices_bytes;
  const int64_t scores_offset = middle_offset + middle.size();
  const int64_t tail_offset = scores_offset + sizes->scores_bytes;
  absl::StatusOr<std::unique_ptr<AtomicFile>> file = AtomicFile::Create(path, options);
  if (!file.ok()) return file.status();
  absl::Status status = (*file)->Reserve(tail_offset + tail.size());
  if (status.ok()) status = (*file)->WriteAt(0, head.bytes());
  if (status.ok()) status = (*file)->WriteAt(middle_offset, middle.bytes());
  if (status.ok()) status = (*file)->WriteAt(tail_offset, tail.bytes());
  if (!status.ok()) return status;
  auto state = std::make_unique<State>(
      State{ResultRows(*std::move(file), metadata, head.size(), scores_offset)});
  return std::unique_ptr<ResultPickleWriter>(new ResultPickleWriter(std::move(state)));
}

absl::Status ResultPickleWriter::WriteRows(int64_t first_query, int64_t num_queries,
                                           const int64_t* indices, const void* scores) {
  return state_->rows.Write(first_query, num_queries, indices, scores);
}

absl::Status ResultPickleWriter::Commit() { return state_->rows.Commit(); }

}  // namespace tiny_knn
