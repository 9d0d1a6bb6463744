#include "daemon/protocol/json_object.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"

namespace tiny_knn {
namespace {

using Json = nlohmann::json;

// Builds the value that nlohmann's parser (which keeps a stack of its own) reports piece by piece,
// and stops it at what is refused here. Each function's result says whether to go on; the names are
// the library's.
class Builder {
 public:
  bool null() { return Add(nullptr) != nullptr; }
  bool boolean(bool value) { return Add(value) != nullptr; }
  bool number_integer(int64_t value) { return Add(value) != nullptr; }
  bool number_unsigned(uint64_t value) { return Add(value) != nullptr; }
  bool number_float(double value, const std::string& /*text*/) { return Add(value) != nullptr; }
  bool string(std::string& value) { return Add(std::move(value)) != nullptr; }
  bool binary(Json::binary_t& /*value*/) { return false; }

  bool start_object(size_t /*size*/) { return Open(Json::object()); }
  bool start_array(size_t /*size*/) { return Open(Json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }

  bool key(std::string& name) {
    if (open_.back()->contains(name)) {
      error_ = "a member is given twice";
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& error) {
    // 406: a number that no double can hold.
    error_ = error.id == 406
                 ? "a number is too great"
                 : fmt::format("not one JSON object: wrong syntax at byte {}", position);
    return false;
  }

  const std::string& error() const { return error_; }
  Json TakeRoot() { return std::move(root_); }

 private:
  // Puts a value where it belongs; null when it may not stand there.
  Json* Add(Json value) {
    if (open_.empty()) {
      if (!value.is_object()) {
        error_ = "not a JSON object";
        return nullptr;
      }
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool Open(Json value) {
    if (open_.size() == size_t{kMostJsonDepth}) {
      error_ = fmt::format("objects and arrays are nested deeper than {}", kMostJsonDepth);
      return false;
    }
    // What is open stays where it is: only the innermost value grows.
    Json* const added = Add(std::move(value));
    if (added == nullptr) return false;
    open_.push_back(added);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  Json root_;
  std::vector<Json*> open_;  // from the root to the innermost object or array, inside root_
  std::string key_;
  std::string error_;
};

}  // namespace

absl::StatusOr<Json> ParseJsonObject(std::string_view line) {
  // The parser takes a NUL for the end, and skips a byte order mark.
  for (const char c : line) {
    if (static_cast<unsigned char>(c) < ' ' && c != '\t' && c != '\r') {
      return absl::InvalidArgumentError("a control character stands in the line");
    }
  }
  if (line.starts_with("\xEF\xBB\xBF")) {
    return absl::InvalidArgumentError("a byte order mark stands before the JSON object");
  }
  Builder builder;
  if (!Json::sax_parse(line.begin(), line.end(), &builder)) {
    return absl::InvalidArgumentError(builder.error());
  }
  return builder.TakeRoot();
}

}  // namespace tiny_knn
