// One description of a message's members, run by a writer and by a reader, so that the two never
// differ. A message is described once:
//
//   template <typename V>
//   void Members(V& v, typename V::template Ref<CancelRequest> m) {
//     v.Ids("jobs", m.jobs);
//   }
//
// and is written by Members(writer, message), read by Members(reader, message).
//
// The writer takes any values: bytes that are no UTF-8 are replaced, texts beyond their limit cut.
// The reader is strict about the members it is asked for and ignores all others; its first error is
// kept, names the member and says what it has to be, without the peer's bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/job/job_spec.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {

struct Range {
  int64_t least = 0;
  int64_t most = std::numeric_limits<int64_t>::max();
};
inline constexpr Range kAnyCount = {};
inline constexpr Range kAnyJob = {.least = 1};  // ids of jobs start at 1
inline constexpr Range kIntCount = {.most = std::numeric_limits<int>::max()};
inline constexpr Range kUid = {.most = std::numeric_limits<uint32_t>::max()};

struct TextLimit {
  size_t written;          // the writer cuts beyond so many bytes
  size_t read;             // the reader refuses beyond so many
  bool printable = false;  // control characters are replaced by '?', or refused
};
// Of the daemon's own making or checked when it came in.
inline constexpr TextLimit kAnyText = {size_t{1} << 20, size_t{1} << 20};
// One line for people, written by the daemon.
inline constexpr TextLimit kMessageText = {size_t{1} << 14, size_t{1} << 20};
// The same, from a peer that nobody trusts: it ends up in logs too.
inline constexpr TextLimit kPeerText = {size_t{1} << 14, size_t{1} << 14, true};
// Names that end up in logs.
inline constexpr TextLimit kNameText = {256, 256, true};
// What the kernel takes (PATH_MAX less the NUL).
inline constexpr TextLimit kPathText = {4095, 4095};

enum class Presence {
  kRequired,
  kOptional,  // absent: the value stays as it was
};

// The value with every byte that is no UTF-8 replaced by U+FFFD, of at most `most` bytes.
std::string LegalText(std::string_view value, const TextLimit& limit);

// Compact, on one line; never throws.
std::string DumpJson(const nlohmann::json& json);

// A report is as deep as this at most, so that messages that carry it stay within kMostJsonDepth,
// and as long.
inline constexpr int kMostReportDepth = 4;
inline constexpr size_t kMostReportBytes = size_t{1} << 16;

class MemberWriter {
 public:
  template <typename T>
  using Ref = const T&;
  static constexpr bool kReads = false;

  void Int(const char* name, int64_t value, Range = {}, Presence = Presence::kRequired) {
    object_[name] = value;
  }
  void IntRange(const char* name, int least, int greatest) {
    object_[name] = nlohmann::json::array({least, greatest});
  }
  // 0 means unknown, which is null.
  void CountOrNull(const char* name, int64_t value);
  void Bool(const char* name, bool value, Presence = Presence::kRequired) { object_[name] = value; }
  // Not finite and below 0: 0.
  void Number(const char* name, double value);
  void NumberOrNull(const char* name, const std::optional<double>& value);
  void IntOrNull(const char* name, const std::optional<int64_t>& value, Range = {});
  void Text(const char* name, const std::string& value, const TextLimit& limit,
            Presence = Presence::kRequired);
  // The empty text is null.
  void TextOrNull(const char* name, const std::string& value, const TextLimit& limit);
  void Ids(const char* name, const std::vector<int64_t>& ids, size_t /*most*/,
           Presence = Presence::kRequired) {
    object_[name] = ids;
  }
  void Texts(const char* name, const std::vector<std::string>& texts, const TextLimit& limit);
  void Spec(const char* name, const JobSpec& spec);
  // One JSON object as text; what is none, and the empty text, is null.
  void ReportOrNull(const char* name, const std::string& report_json);
  void Put(const char* name, nlohmann::json value) { object_[name] = std::move(value); }

  template <typename T, typename Describe>
  void Object(const char* name, const T& value, const Describe& describe,
              Presence = Presence::kRequired) {
    MemberWriter writer;
    describe(writer, value);
    Keep(writer.status_);
    object_[name] = std::move(writer.object_);
  }
  // Those beyond `most` are left out.
  template <typename T, typename Describe>
  void Objects(const char* name, const std::vector<T>& values, size_t most,
               const Describe& describe, Presence = Presence::kRequired) {
    nlohmann::json array = nlohmann::json::array();
    for (size_t i = 0; i < values.size() && i < most; ++i) {
      MemberWriter writer;
      describe(writer, values[i]);
      Keep(writer.status_);
      array.push_back(std::move(writer.object_));
    }
    object_[name] = std::move(array);
  }

  // Only Spec can fail.
  const absl::Status& status() const { return status_; }
  nlohmann::json Take() { return std::move(object_); }

 private:
  void Keep(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  nlohmann::json object_ = nlohmann::json::object();
  absl::Status status_;
};

// Keeps a reference to the JSON value, which has to live as long.
class MemberReader {
 public:
  template <typename T>
  using Ref = T&;
  static constexpr bool kReads = true;

  // `where` stands before the members' names in messages: "shape.".
  explicit MemberReader(const nlohmann::json& object, std::string where = "");

  void Int(const char* name, int64_t& value, Range range = {},
           Presence presence = Presence::kRequired);
  // REQUIRES: the range is one of int.
  void Int(const char* name, int& value, Range range, Presence presence = Presence::kRequired);
  // Two numbers of at least 1, the first at most the second.
  void IntRange(const char* name, int& least, int& greatest);
  void CountOrNull(const char* name, int64_t& value);
  void Bool(const char* name, bool& value, Presence presence = Presence::kRequired);
  void Number(const char* name, double& value);  // finite, at least 0
  void NumberOrNull(const char* name, std::optional<double>& value);
  void IntOrNull(const char* name, std::optional<int64_t>& value, Range range = {});
  void Text(const char* name, std::string& value, const TextLimit& limit,
            Presence presence = Presence::kRequired);
  void TextOrNull(const char* name, std::string& value, const TextLimit& limit);
  // Each at least 1. More of them than `most` is OutOfRange.
  void Ids(const char* name, std::vector<int64_t>& ids, size_t most,
           Presence presence = Presence::kRequired);
  void Texts(const char* name, std::vector<std::string>& texts, const TextLimit& limit);
  void Spec(const char* name, JobSpec& spec);
  void ReportOrNull(const char* name, std::string& report_json);

  template <typename T, typename Describe>
  void Object(const char* name, T& value, const Describe& describe,
              Presence presence = Presence::kRequired) {
    const nlohmann::json* const json = Find(name, presence);
    if (json == nullptr) return;
    MemberReader reader(*json, where_ + name + ".");
    if (!json->is_object()) return Fail(name, "an object");
    describe(reader, value);
    Keep(reader.status_);
  }
  template <typename T, typename Describe>
  void Objects(const char* name, std::vector<T>& values, size_t most, const Describe& describe,
               Presence presence = Presence::kRequired) {
    const nlohmann::json* const json = Find(name, presence);
    if (json == nullptr) return;
    if (!json->is_array() || json->size() > most) {
      return Fail(name, "a list of at most " + std::to_string(most) + " objects");
    }
    values.clear();
    for (const nlohmann::json& element : *json) {
      if (!element.is_object()) return Fail(name, "a list of objects");
      MemberReader reader(element, where_ + name + "[" + std::to_string(values.size()) + "].");
      describe(reader, values.emplace_back());
      Keep(reader.status_);
    }
  }

  // The member; null when it is not there, which is an error if it is required.
  const nlohmann::json* Find(const char* name, Presence presence);
  // "`where.name` has to be {what}".
  void Fail(const char* name, const std::string& what);
  void Keep(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  // "where.name", as messages say it.
  std::string NameOf(const char* name) const { return where_ + name; }

  // OK, InvalidArgument, or OutOfRange (see Ids).
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& object_;
  const std::string where_;
  absl::Status status_;
};

namespace json_members_internal {
template <typename Variant, size_t... kIndex>
void EmplaceAlternative(Variant& variant, size_t index, std::index_sequence<kIndex...> /*all*/) {
  ((index == kIndex ? static_cast<void>(variant.template emplace<kIndex>()) : void()), ...);
}
}  // namespace json_members_internal

// The alternative of `Variant` that `names` calls so, with its defaults; nothing when none is.
template <typename Variant>
std::optional<Variant> AlternativeNamed(
    const std::array<std::string_view, std::variant_size_v<Variant>>& names,
    std::string_view name) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != name) continue;
    std::optional<Variant> variant(std::in_place);
    json_members_internal::EmplaceAlternative(
        *variant, i, std::make_index_sequence<std::variant_size_v<Variant>>());
    return variant;
  }
  return std::nullopt;
}

}  // namespace tiny_knn
