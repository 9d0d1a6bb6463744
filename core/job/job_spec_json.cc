#include "core/job/job_spec_json.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <optional>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "core/job/docs_range.h"
#include "core/matrix/dtype.h"
#include "core/search/search.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kNoMost = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostUmask = 0777;

constexpr std::array<std::string_view, 19> kMembers = {
    "queries",        "docs",        "output",
    "working_folder", "k",           "metric",
    "dtype",          "input_dtype", "batch_size",
    "exclude_self",   "docs_range",  "device",
    "gpu_memory",     "threads",     "memory_limit",
    "verify",         "checkpoint",  "checkpoint_seconds",
    "umask"};

// What was found, as JSON: one line of ASCII whatever is in it, and short.
std::string Quoted(const std::string& text) {
  constexpr size_t kMost = 80;
  const std::string quoted =
      Json(text.substr(0, kMost)).dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > kMost ? quoted + "..." : quoted;
}

// Edits that part two words: insert, delete or replace a byte.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string_view NearestMember(std::string_view name) {
  const std::string_view start = name.substr(0, 64);  // a name may be a megabyte long
  return *std::min_element(kMembers.begin(), kMembers.end(),
                           [&](std::string_view a, std::string_view b) {
                             return Distance(start, a) < Distance(start, b);
                           });
}

// "auto", "cpu", "cuda", "cuda:N": whether there is such a device is for the engine to say.
bool IsDeviceText(std::string_view text) {
  constexpr std::string_view kPrefix = "cuda:";
  if (text == "auto" || text == "cpu" || text == "cuda") return true;
  if (!text.starts_with(kPrefix)) return false;
  const std::string_view index = text.substr(kPrefix.size());
  return !index.empty() && index.size() <= 3 &&
         std::all_of(index.begin(), index.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Hears the JSON text token by token and fills a JobSpec. A spec holds no arrays and no objects, so
// nothing nests deeper than one object in it, whatever was sent.
class SpecReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  absl::StatusOr<JobSpec> Finish() {
    if (!status_.ok()) return status_;
    for (const std::string_view member : {"queries", "docs"}) {
      if (!seen_.contains(std::string(member))) {
        return absl::InvalidArgumentError(
            fmt::format("job spec: '{}' is missing; give an .npy file", member));
      }
    }
    return spec_;
  }

  bool null() override { return WrongType("null"); }
  bool boolean(bool value) override {
    if (member_ != "exclude_self") return WrongType(value ? "true" : "false");
    spec_.exclude_self = value;
    return true;
  }
  bool number_integer(number_integer_t value) override { return Number(value); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(kNoMost)) return WrongType(fmt::to_string(value));
    return Number(static_cast<int64_t>(value));
  }
  bool number_float(number_float_t /*value*/, const string_t& text) override {
    return WrongType(text.substr(0, 40));
  }
  bool string(string_t& value) override {
    if (member_ == "queries") return Path(value, "an .npy file", spec_.queries_path);
    if (member_ == "docs") return Path(value, "an .npy file", spec_.docs_path);
    if (member_ == "output") return Path(value, "a file name", spec_.output_path);
    if (member_ == "checkpoint") return Path(value, "a file name", spec_.checkpoint_path);
    if (member_ == "working_folder") {
      if (!value.starts_with('/')) return Refuse("an absolute path", Quoted(value));
      return Path(value, "an absolute path", spec_.working_folder);
    }
    if (member_ == "device") {
      if (!IsDeviceText(value)) return WrongType(Quoted(value));
      spec_.device = value;
      return true;
    }
    if (member_ == "metric") return Name(ParseMetric(value), value, spec_.metric);
    if (member_ == "dtype") {
      std::optional<DType> dtype = ParseDType(value);
      if (dtype && !IsComputeDType(*dtype)) dtype.reset();
      return Name(dtype, value, spec_.compute_dtype);
    }
    if (member_ == "input_dtype") return Name(ParseDType(value), value, spec_.input_dtype);
    if (member_ == "docs_range") {
      const absl::StatusOr<DocsRange> range = ParseDocsRange(value);
      if (!range.ok()) return WrongType(Quoted(value));
      spec_.docs_range = *range;
      return true;
    }
    return WrongType(Quoted(value));
  }
  bool binary(binary_t& /*value*/) override { return WrongType("binary data"); }
  bool start_object(std::size_t /*elements*/) override {
    if (open_) return WrongType("an object");
    open_ = true;
    return true;
  }
  bool key(string_t& value) override {
    if (std::find(kMembers.begin(), kMembers.end(), value) == kMembers.end()) {
      return Fail(fmt::format("job spec: unknown member {}; did you mean '{}'?", Quoted(value),
                              NearestMember(value)));
    }
    if (!seen_.insert(value).second) {
      return Fail(fmt::format("job spec: '{}' is given twice; give it once", value));
    }
    member_ = value;
    return true;
  }
  bool end_object() override { return true; }
  bool start_array(std::size_t /*elements*/) override { return WrongType("an array"); }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string& /*last_token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    // The library's own text quotes the input, which may be anything.
    return Fail(
        fmt::format("job spec: no valid JSON at byte {}; expected one object in UTF-8", position));
  }

 private:
  bool Fail(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
    return false;
  }
  bool Refuse(std::string_view expected, std::string_view found) {
    return Fail(fmt::format("job spec: '{}' expects {}, found {}", member_, expected, found));
  }

  struct Range {
    int64_t least = 0;
    int64_t most = kNoMost;
  };
  Range NumberRange() const {
    if (member_ == "k" || member_ == "batch_size") return {1, kNoMost};
    if (member_ == "threads") return {0, kMostThreads};
    if (member_ == "umask") return {0, kMostUmask};
    if (member_ == "checkpoint_seconds") return {0, kMostCheckpointSeconds};
    return {0, kNoMost};
  }

  // What the present member accepts.
  std::string Expected() const {
    if (member_ == "queries" || member_ == "docs") return "the path of an .npy file";
    if (member_ == "output" || member_ == "checkpoint") return "the path of a file";
    if (member_ == "working_folder") return "an absolute path";
    if (member_ == "metric") return "\"ip\", \"cosine\" or \"l2\"";
    if (member_ == "dtype") return fmt::format("one of {}", ComputeDTypeNames());
    if (member_ == "input_dtype") return fmt::format("one of {}", FileDTypeNames());
    if (member_ == "device") return "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\"";
    if (member_ == "exclude_self") return "true or false";
    if (member_ == "docs_range") return "a range of docs such as \"0:1000\" or \"1000:\"";
    const auto [least, most] = NumberRange();
    return most == kNoMost ? fmt::format("a whole number of at least {}", least)
                           : fmt::format("a whole number from {} to {}", least, most);
  }
  bool WrongType(std::string_view found) {
    if (!open_) return Fail(fmt::format("job spec: expected one JSON object, found {}", found));
    return Refuse(Expected(), found);
  }

  bool Number(int64_t value) {
    const auto [least, most] = NumberRange();
    const bool fits = value >= least && value <= most;
    if (member_ == "k" && fits) {
      spec_.k = value;
    } else if (member_ == "batch_size" && fits) {
      spec_.batch_size = value;
    } else if (member_ == "gpu_memory" && fits) {
      spec_.gpu_memory_bytes = value;
    } else if (member_ == "threads" && fits) {
      spec_.threads = static_cast<int>(value);
    } else if (member_ == "memory_limit" && fits) {
      spec_.memory_limit_bytes = value;
    } else if (member_ == "verify" && fits) {
      spec_.verify_queries = value;
    } else if (member_ == "checkpoint_seconds" && fits) {
      spec_.checkpoint_seconds = value;
    } else if (member_ == "umask" && fits) {
      spec_.umask = static_cast<int>(value);
    } else {
      return WrongType(fmt::to_string(value));
    }
    return true;
  }

  template <typename Parsed, typename T>
  bool Name(const std::optional<Parsed>& parsed, const std::string& text, T& value) {
    if (!parsed) return WrongType(Quoted(text));
    value = *parsed;
    return true;
  }

  bool Path(const std::string& text, std::string_view expected, std::string& path) {
    if (text.empty()) return Refuse(expected, "an empty name");
    if (text.find('\0') != std::string::npos) return Refuse(expected, "a name with a NUL in it");
    path = text;
    return true;
  }

  JobSpec spec_;
  absl::Status status_;
  bool open_ = false;
  std::string member_;  // whose value comes next
  std::set<std::string> seen_;
};

}  // namespace

std::span<const std::string_view> JobSpecMembers() { return kMembers; }

absl::StatusOr<std::string> JobSpecToJson(const JobSpec& spec) {
  const JobSpec defaults;
  Json json = {{"queries", spec.queries_path}, {"docs", spec.docs_path}};
  const auto add = [&](const char* name, const auto& value, const auto& usual) {
    if (value != usual) json[name] = value;
  };
  const auto add_optional = [&](const char* name, const auto& value) {
    if (value) json[name] = *value;
  };
  add("output", spec.output_path, defaults.output_path);
  add("working_folder", spec.working_folder, defaults.working_folder);
  add_optional("k", spec.k);
  add("metric", MetricName(spec.metric), MetricName(defaults.metric));
  add("dtype", DTypeName(spec.compute_dtype), DTypeName(defaults.compute_dtype));
  if (spec.input_dtype) json["input_dtype"] = DTypeName(*spec.input_dtype);
  add_optional("batch_size", spec.batch_size);
  add("exclude_self", spec.exclude_self, defaults.exclude_self);
  if (spec.docs_range) json["docs_range"] = DocsRangeText(*spec.docs_range);
  add("device", spec.device, defaults.device);
  add("gpu_memory", spec.gpu_memory_bytes, defaults.gpu_memory_bytes);
  add("threads", spec.threads, defaults.threads);
  add("memory_limit", spec.memory_limit_bytes, defaults.memory_limit_bytes);
  add("verify", spec.verify_queries, defaults.verify_queries);
  add("checkpoint", spec.checkpoint_path, defaults.checkpoint_path);
  add("checkpoint_seconds", spec.checkpoint_seconds, defaults.checkpoint_seconds);
  add_optional("umask", spec.umask);
  try {
    return json.dump();
  } catch (const Json::type_error&) {
    // Only texts can be at fault; which one is worth a second look.
    for (const auto& [name, value] : json.items()) {
      if (!value.is_string()) continue;
      const auto& text = value.get_ref<const std::string&>();
      if (value.dump(-1, ' ', false, Json::error_handler_t::ignore) !=
          value.dump(-1, ' ', false, Json::error_handler_t::replace)) {
        return absl::InvalidArgumentError(
            fmt::format("job spec: '{}' is not UTF-8, which JSON cannot carry: {}; rename the file",
                        name, Quoted(text)));
      }
    }
    return absl::InvalidArgumentError("job spec: a text is not UTF-8, which JSON cannot carry");
  }
}

absl::StatusOr<JobSpec> JobSpecFromJson(std::string_view json) {
  // The library takes a NUL for the end.
  if (const size_t nul = json.find('\0'); nul != std::string_view::npos) {
    return absl::InvalidArgumentError(
        fmt::format("job spec: no valid JSON at byte {}; expected one object in UTF-8", nul + 1));
  }
  SpecReader reader;
  nlohmann::json::sax_parse(json.begin(), json.end(), &reader);
  return reader.Finish();
}

}  // namespace tiny_knn
