#include "daemon/protocol/json_members.h"

#include <algorithm>
#include <cmath>

#include "core/job/job_spec_json.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Json = nlohmann::json;

bool IsControl(char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; }

std::string DescribeRange(const Range& range) {
  if (range.most == std::numeric_limits<int64_t>::max()) {
    return fmt::format("a whole number of at least {}", range.least);
  }
  return fmt::format("a whole number from {} to {}", range.least, range.most);
}

std::optional<int64_t> IntOf(const Json& json, const Range& range) {
  // Fractions and exponents were read as doubles, and so was what no 64 bits hold.
  if (!json.is_number_integer()) return std::nullopt;
  if (json.is_number_unsigned() &&
      json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    return std::nullopt;
  }
  const auto value = json.get<int64_t>();
  if (value < range.least || value > range.most) return std::nullopt;
  return value;
}

// Why `json` is no such text; nothing when it is.
std::optional<std::string> WhatTextHasToBe(const Json& json, const TextLimit& limit) {
  if (!json.is_string()) return "a string";
  const auto& text = json.get_ref<const std::string&>();
  if (text.size() > limit.read) return fmt::format("a string of at most {} bytes", limit.read);
  if (limit.printable) {
    for (const char c : text) {
      if (IsControl(c)) return "a string without control characters";
    }
  }
  return std::nullopt;
}

// At most `most` bytes of the text, no character cut in two.
std::string_view Clip(std::string_view text, size_t most) {
  if (text.size() <= most) return text;
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

int DepthOf(const Json& json) {
  int depth = 0;
  if (json.is_structured()) {
    for (const Json& element : json) depth = std::max(depth, DepthOf(element));
    ++depth;
  }
  return depth;
}

}  // namespace

std::string LegalText(std::string_view value, const TextLimit& limit) {
  // Text only grows when it is made legal, so what is cut off first would not be kept anyway.
  std::string text(Clip(value, limit.written));
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (!std::all_of(text.begin(), text.end(), is_ascii)) {
    const Json legal = Json::parse(DumpJson(Json(text)), nullptr, false);
    if (legal.is_string()) text = Clip(legal.get_ref<const std::string&>(), limit.written);
  }
  if (limit.printable) {
    for (char& c : text) {
      if (IsControl(c)) c = '?';
    }
  }
  return text;
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void MemberWriter::CountOrNull(const char* name, int64_t value) {
  object_[name] = value == 0 ? Json() : Json(value);
}

void MemberWriter::Number(const char* name, double value) {
  object_[name] = std::isfinite(value) && value > 0 ? value : 0.0;
}

void MemberWriter::NumberOrNull(const char* name, const std::optional<double>& value) {
  if (value.has_value()) {
    Number(name, *value);
  } else {
    object_[name] = nullptr;
  }
}

void MemberWriter::IntOrNull(const char* name, const std::optional<int64_t>& value,
                             Range /*range*/) {
  object_[name] = value ? Json(*value) : Json();
}

void MemberWriter::Text(const char* name, const std::string& value, const TextLimit& limit,
                        Presence /*presence*/) {
  object_[name] = LegalText(value, limit);
}

void MemberWriter::TextOrNull(const char* name, const std::string& value, const TextLimit& limit) {
  if (value.empty()) {
    object_[name] = nullptr;
  } else {
    Text(name, value, limit);
  }
}

void MemberWriter::Texts(const char* name, const std::vector<std::string>& texts,
                         const TextLimit& limit) {
  Json array = Json::array();
  for (const std::string& text : texts) array.push_back(LegalText(text, limit));
  object_[name] = std::move(array);
}

void MemberWriter::Spec(const char* name, const JobSpec& spec) {
  const absl::StatusOr<std::string> text = JobSpecToJson(spec);
  if (!text.ok()) return Keep(text.status());
  object_[name] = Json::parse(*text, nullptr, false);
}

void MemberWriter::ReportOrNull(const char* name, const std::string& report_json) {
  Json report =
      report_json.size() <= kMostReportBytes ? Json::parse(report_json, nullptr, false) : Json();
  const bool legal = report.is_object() && DepthOf(report) <= kMostReportDepth;
  object_[name] = legal ? std::move(report) : Json();
}

MemberReader::MemberReader(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {}

void MemberReader::Int(const char* name, int64_t& value, Range range, Presence presence) {
  const Json* const json = Find(name, presence);
  if (json == nullptr) return;
  const std::optional<int64_t> found = IntOf(*json, range);
  if (!found) return Fail(name, DescribeRange(range));
  value = *found;
}

void MemberReader::Int(const char* name, int& value, Range range, Presence presence) {
  int64_t wide = value;
  Int(name, wide, range, presence);
  value = static_cast<int>(wide);
}

void MemberReader::IntRange(const char* name, int& least, int& greatest) {
  const Json* const json = Find(name, Presence::kRequired);
  if (json == nullptr) return;
  std::optional<int64_t> first;
  std::optional<int64_t> second;
  if (json->is_array() && json->size() == 2) {
    first = IntOf((*json)[0], {1, kIntCount.most});
    second = IntOf((*json)[1], {1, kIntCount.most});
  }
  if (!first || !second || *first > *second) {
    return Fail(name, "two whole numbers of at least 1, the lesser first");
  }
  least = static_cast<int>(*first);
  greatest = static_cast<int>(*second);
}

void MemberReader::CountOrNull(const char* name, int64_t& value) {
  const Json* const json = Find(name, Presence::kOptional);
  value = 0;
  if (json == nullptr || json->is_null()) return;
  const std::optional<int64_t> found = IntOf(*json, {});
  if (!found) return Fail(name, "null or " + DescribeRange({}));
  value = *found;
}

void MemberReader::Bool(const char* name, bool& value, Presence presence) {
  const Json* const json = Find(name, presence);
  if (json == nullptr) return;
  if (!json->is_boolean()) return Fail(name, "true or false");
  value = json->get<bool>();
}

void MemberReader::Number(const char* name, double& value) {
  const Json* const json = Find(name, Presence::kRequired);
  if (json == nullptr) return;
  if (!json->is_number() || !(json->get<double>() >= 0)) {
    return Fail(name, "a number of at least 0");
  }
  value = json->get<double>();
}

void MemberReader::NumberOrNull(const char* name, std::optional<double>& value) {
  const Json* const json = Find(name, Presence::kOptional);
  value = std::nullopt;
  if (json == nullptr || json->is_null()) return;
  if (!json->is_number() || !(json->get<double>() >= 0)) {
    return Fail(name, "null or a number of at least 0");
  }
  value = json->get<double>();
}

void MemberReader::IntOrNull(const char* name, std::optional<int64_t>& value, Range range) {
  const Json* const json = Find(name, Presence::kOptional);
  value = std::nullopt;
  if (json == nullptr || json->is_null()) return;
  value = IntOf(*json, range);
  if (!value) Fail(name, "null or " + DescribeRange(range));
}

void MemberReader::Text(const char* name, std::string& value, const TextLimit& limit,
                        Presence presence) {
  const Json* const json = Find(name, presence);
  if (json == nullptr) return;
  if (const auto what = WhatTextHasToBe(*json, limit)) return Fail(name, *what);
  value = json->get<std::string>();
}

void MemberReader::TextOrNull(const char* name, std::string& value, const TextLimit& limit) {
  const Json* const json = Find(name, Presence::kOptional);
  value.clear();
  if (json == nullptr || json->is_null()) return;
  if (const auto what = WhatTextHasToBe(*json, limit)) return Fail(name, "null or " + *what);
  value = json->get<std::string>();
}

void MemberReader::Ids(const char* name, std::vector<int64_t>& ids, size_t most,
                       Presence presence) {
  const Json* const json = Find(name, presence);
  if (json == nullptr) return;
  if (!json->is_array()) return Fail(name, "a list of job ids");
  if (json->size() > most) {
    return Keep(absl::OutOfRangeError(fmt::format(
        "`{}` has {} ids, and at most {} are answered at once; ask for the others in another "
        "request",
        NameOf(name), json->size(), most)));
  }
  ids.clear();
  for (const Json& element : *json) {
    const std::optional<int64_t> id = IntOf(element, kAnyJob);
    if (!id) return Fail(name, "a list of job ids, whole numbers of at least 1");
    ids.push_back(*id);
  }
}

void MemberReader::Texts(const char* name, std::vector<std::string>& texts,
                         const TextLimit& limit) {
  const Json* const json = Find(name, Presence::kRequired);
  if (json == nullptr) return;
  if (!json->is_array()) return Fail(name, "a list of strings");
  texts.clear();
  for (const Json& element : *json) {
    if (const auto what = WhatTextHasToBe(element, limit)) return Fail(name, "a list of " + *what);
    texts.push_back(element.get<std::string>());
  }
}

void MemberReader::Spec(const char* name, JobSpec& spec) {
  const Json* const json = Find(name, Presence::kRequired);
  if (json == nullptr) return;
  if (!json->is_object()) return Fail(name, "an object");
  absl::StatusOr<JobSpec> parsed = JobSpecFromJson(DumpJson(*json));
  if (!parsed.ok()) {
    return Keep(absl::InvalidArgumentError(
        fmt::format("in `{}`: {}", NameOf(name), std::string(parsed.status().message()))));
  }
  spec = *std::move(parsed);
  // The queue and every message about the job hold these paths, so no kernel-refused ones come in.
  for (const std::string* path : {&spec.queries_path, &spec.docs_path, &spec.output_path,
                                  &spec.checkpoint_path, &spec.working_folder}) {
    if (path->size() <= kPathText.read) continue;
    return Keep(
        absl::InvalidArgumentError(fmt::format("in `{}`: a path of {} bytes; a path has at most {}",
                                               NameOf(name), path->size(), kPathText.read)));
  }
}

void MemberReader::ReportOrNull(const char* name, std::string& report_json) {
  const Json* const json = Find(name, Presence::kOptional);
  report_json.clear();
  if (json == nullptr || json->is_null()) return;
  if (!json->is_object() || DepthOf(*json) > kMostReportDepth) {
    return Fail(name, fmt::format("null or an object nested {} deep at most", kMostReportDepth));
  }
  std::string text = DumpJson(*json);
  if (text.size() > kMostReportBytes) {
    return Fail(name, fmt::format("null or an object of at most {} bytes", kMostReportBytes));
  }
  report_json = std::move(text);
}

const Json* MemberReader::Find(const char* name, Presence presence) {
  const auto found = object_.find(name);
  if (found != object_.end()) return &*found;
  if (presence == Presence::kRequired) {
    Keep(absl::InvalidArgumentError(fmt::format("`{}` is missing", NameOf(name))));
  }
  return nullptr;
}

void MemberReader::Fail(const char* name, const std::string& what) {
  Keep(absl::InvalidArgumentError(fmt::format("`{}` has to be {}", NameOf(name), what)));
}

}  // namespace tiny_knn
