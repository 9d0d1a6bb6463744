#include "core/job/checkpoint_file.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "core/io/atomic_file.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

static_assert(std::endian::native == std::endian::little,
              "numbers are written as they lie in memory");

using Json = nlohmann::ordered_json;

constexpr std::string_view kMagic = "tiny-knn checkpoint 1\n";
constexpr size_t kRunIdDigits = 16;
constexpr int64_t kCountBytes = 8;
constexpr int64_t kDocBytes = 16;
constexpr int64_t kCrcBytes = 4;
constexpr size_t kBufferBytes = size_t{1} << 20;

// Visits every count of a report with its name.
template <typename Report, typename Visit>
void VisitCounts(Report& report, const Visit& visit) {
  visit("nonfinite_query_rows", report.nonfinite_query_rows);
  visit("nonfinite_doc_rows", report.nonfinite_doc_rows);
  visit("infs_made_in_queries", report.infs_made_in_queries);
  visit("infs_made_in_docs", report.infs_made_in_docs);
  visit("queries_with_tie_at_k", report.queries_with_tie_at_k);
  visit("rescored_pairs", report.rescored_pairs);
  visit("refined_pairs", report.refined_pairs);
  visit("repeated_queries", report.repeated_queries);
}

std::string HeaderOf(const CheckpointData& data) {
  Json identity = Json::array();
  for (const auto& [name, value] : data.identity) identity.push_back({name, value});
  Json report = Json::object();
  VisitCounts(data.state.report,
              [&](const char* name, const int64_t& count) { report[name] = count; });
  Json spans = Json::array();
  for (const SearchSpan& span : data.state.spans) {
    spans.push_back({{"first_query", span.first_query},
                     {"queries", span.num_queries},
                     {"docs_done", span.docs_done},
                     {"docs", span.docs.size()}});
  }
  return Json({{"search", identity},
               {"run", data.run_id},
               {"finished_queries", data.state.finished_queries},
               {"rows_crc32", data.rows_crc32},
               {"report", report},
               {"spans", spans}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Appends to a file, and sums up what it appends.
class Appender {
 public:
  explicit Appender(AtomicFile& file) : file_(file) {}

  void Add(const void* data, size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    buffer_.insert(buffer_.end(), from, from + bytes);
    if (buffer_.size() >= kBufferBytes) Flush();
  }
  absl::Status Finish() {
    Flush();
    const uint32_t crc = crc_;
    Add(&crc, sizeof(crc));
    Flush();
    return status_;
  }

 private:
  void Flush() {
    if (buffer_.empty() || !status_.ok()) return;
    crc_ = static_cast<uint32_t>(
        crc32_z(crc_, reinterpret_cast<const Bytef*>(buffer_.data()), buffer_.size()));
    status_ = file_.WriteAt(offset_, buffer_);
    offset_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
  }

  AtomicFile& file_;
  std::vector<std::byte> buffer_;
  int64_t offset_ = 0;
  uint32_t crc_ = 0;
  absl::Status status_;
};

absl::Status NoCheckpoint() { return absl::InvalidArgumentError("is no checkpoint of tiny-knn"); }
absl::Status Damaged() {
  return absl::InvalidArgumentError("is a damaged checkpoint, or one of another version");
}

// Takes numbers from the front.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  int64_t left() const { return static_cast<int64_t>(bytes_.size()); }
  // REQUIRES: so many are left.
  std::span<const uint8_t> Take(size_t bytes) {
    const std::span<const uint8_t> taken = bytes_.first(bytes);
    bytes_ = bytes_.subspan(bytes);
    return taken;
  }
  template <typename T>
  T Number() {
    T value;
    std::memcpy(&value, Take(sizeof(T)).data(), sizeof(T));
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
};

// A whole number of at least 0.
bool ReadCount(const Json& json, const char* name, int64_t& value) {
  const auto found = json.find(name);
  if (found == json.end() || !found->is_number_integer()) return false;
  if (found->is_number_unsigned() && found->get<uint64_t>() > uint64_t{INT64_MAX}) return false;
  value = found->get<int64_t>();
  return value >= 0;
}

bool IsRunId(const Json& json) {
  if (!json.is_string()) return false;
  const auto& text = json.get_ref<const std::string&>();
  return text.size() == kRunIdDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

bool ReadIdentity(const Json& json, CheckpointData& data) {
  if (!json.is_array()) return false;
  for (const Json& pair : json) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) {
      return false;
    }
    data.identity.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>());
  }
  return true;
}

// Fills in all but the spans' docs; `num_docs` gets how many each span has.
bool ReadHeader(const Json& json, CheckpointData& data, std::vector<int64_t>& num_docs) {
  if (!json.is_object()) return false;
  for (const char* const name : {"search", "run", "report", "spans"}) {
    if (!json.contains(name)) return false;
  }
  int64_t crc = 0;
  if (!ReadIdentity(json["search"], data) || !IsRunId(json["run"]) ||
      !ReadCount(json, "rows_crc32", crc) || crc > int64_t{UINT32_MAX} ||
      !ReadCount(json, "finished_queries", data.state.finished_queries) ||
      !json["report"].is_object() || !json["spans"].is_array()) {
    return false;
  }
  data.run_id = json["run"].get<std::string>();
  data.rows_crc32 = static_cast<uint32_t>(crc);
  bool complete = true;
  VisitCounts(data.state.report, [&](const char* name, int64_t& count) {
    complete = complete && ReadCount(json["report"], name, count);
  });
  for (const Json& span_json : json["spans"]) {
    SearchSpan span;
    if (!span_json.is_object() || !ReadCount(span_json, "first_query", span.first_query) ||
        !ReadCount(span_json, "queries", span.num_queries) ||
        !ReadCount(span_json, "docs_done", span.docs_done) ||
        !ReadCount(span_json, "docs", num_docs.emplace_back())) {
      return false;
    }
    data.state.spans.push_back(std::move(span));
  }
  return complete;
}

}  // namespace

absl::Status WriteCheckpoint(const std::string& path, const std::string& temporary_tag,
                             const CheckpointData& data) {
  const absl::StatusOr<std::unique_ptr<AtomicFile>> file =
      AtomicFile::Create(path, {temporary_tag});
  if (!file.ok()) return file.status();
  const std::string header = HeaderOf(data);
  const uint64_t header_bytes = header.size();
  Appender appender(**file);
  appender.Add(kMagic.data(), kMagic.size());
  appender.Add(&header_bytes, sizeof(header_bytes));
  appender.Add(header.data(), header.size());
  for (const SearchSpan& span : data.state.spans) {
    appender.Add(span.counts.data(), span.counts.size() * sizeof(span.counts[0]));
    for (const SavedDoc& doc : span.docs) {
      appender.Add(&doc.key, sizeof(doc.key));
      appender.Add(&doc.index, sizeof(doc.index));
    }
  }
  const absl::Status written = appender.Finish();
  return written.ok() ? (*file)->Commit() : written;
}

absl::StatusOr<CheckpointData> ParseCheckpoint(std::span<const uint8_t> bytes) {
  if (bytes.size() < kMagic.size() ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return NoCheckpoint();
  }
  if (bytes.size() < kMagic.size() + sizeof(uint64_t) + kCrcBytes) return Damaged();
  uint32_t crc;
  std::memcpy(&crc, bytes.data() + bytes.size() - kCrcBytes, kCrcBytes);
  const std::span<const uint8_t> summed = bytes.first(bytes.size() - kCrcBytes);
  if (crc32_z(0, summed.data(), summed.size()) != crc) return Damaged();
  Reader reader(summed.subspan(kMagic.size()));
  const auto header_bytes = reader.Number<uint64_t>();
  if (header_bytes > static_cast<uint64_t>(reader.left())) return Damaged();
  const std::span<const uint8_t> header = reader.Take(header_bytes);
  CheckpointData data;
  std::vector<int64_t> num_docs;
  if (!ReadHeader(Json::parse(header.begin(), header.end(), nullptr, false), data, num_docs)) {
    return Damaged();
  }
  for (size_t i = 0; i < data.state.spans.size(); ++i) {
    SearchSpan& span = data.state.spans[i];
    if (span.num_queries > reader.left() / kCountBytes) return Damaged();
    for (int64_t query = 0; query < span.num_queries; ++query) {
      span.counts.push_back(reader.Number<int64_t>());
    }
    if (num_docs[i] > reader.left() / kDocBytes) return Damaged();
    for (int64_t doc = 0; doc < num_docs[i]; ++doc) {
      const auto key = reader.Number<uint64_t>();
      span.docs.push_back({key, reader.Number<int64_t>()});
    }
  }
  if (reader.left() != 0) return Damaged();
  return data;
}

}  // namespace tiny_knn
