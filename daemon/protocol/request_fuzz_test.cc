// Any bytes at all come from a client: lines, requests, what the daemon would answer. Nothing may
// crash, and what is accepted keeps the promises of client_messages.h and means the same when it is
// said again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/line_decoder.h"

namespace tiny_knn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckIds(const std::vector<int64_t>& jobs) {
  Require(jobs.size() <= size_t{kMostJobsPerRequest});
  for (const int64_t job : jobs) Require(job >= 1);
}

void CheckBody(const RequestBody& body) {
  if (const auto* status = std::get_if<StatusRequest>(&body)) CheckIds(status->jobs);
  if (const auto* wait = std::get_if<WaitRequest>(&body)) CheckIds(wait->jobs);
  if (const auto* cancel = std::get_if<CancelRequest>(&body)) CheckIds(cancel->jobs);
  if (const auto* subscribe = std::get_if<SubscribeRequest>(&body)) CheckIds(subscribe->jobs);
  if (const auto* list = std::get_if<ListRequest>(&body)) {
    Require(list->limit >= 1 && list->limit <= kMostJobsPerRequest && list->after_job >= 0);
  }
  if (const auto* log = std::get_if<LogRequest>(&body)) Require(log->job >= 1 && log->offset >= 0);
  if (const auto* hello = std::get_if<HelloRequest>(&body)) {
    Require(hello->least_protocol >= 1 && hello->least_protocol <= hello->greatest_protocol);
    for (const char c : hello->client) Require(static_cast<unsigned char>(c) >= ' ');
  }
  if (const auto* submit = std::get_if<SubmitRequest>(&body)) {
    Require(!submit->key.empty() && submit->key.size() <= kMostKeyBytes);
    for (const char c : submit->key) Require(c > ' ' && c <= '~');
    Require(submit->priority >= kLeastPriority && submit->priority <= kGreatestPriority);
    Require(submit->timeout_seconds >= 0 && submit->timeout_seconds <= kMostTimeoutSeconds);
    const JobSpec& spec = submit->spec;
    Require(!spec.queries_path.empty() && !spec.docs_path.empty() && !spec.output_path.empty());
    for (const std::string* path : {&spec.queries_path, &spec.docs_path, &spec.output_path}) {
      Require(path->find('\0') == std::string::npos && path->size() < 4096);
      Require(!spec.working_folder.empty() || path->starts_with('/'));
    }
    const JobShape& shape = submit->shape;
    Require(shape.num_queries >= 0 && shape.num_docs >= 0 && shape.dim >= 0 && shape.k >= 0 &&
            shape.docs_bytes >= 0);
  }
}

void CheckLine(const std::string& line) {
  Require(line.size() <= kMostLineBytes && line.find('\n') == std::string::npos);
  const std::variant<Request, RequestError> decoded = DecodeRequest(line);
  if (const auto* refused = std::get_if<RequestError>(&decoded)) {
    Require(refused->id >= 0 && !refused->error.message.empty());
    const std::string answer = EncodeReply({.id = refused->id, .body = refused->error});
    Require(answer.size() <= kMostLineBytes && DecodeServerMessage(answer).ok());
    return;
  }
  const auto& request = std::get<Request>(decoded);
  Require(request.id >= 1);
  CheckBody(request.body);
  const absl::StatusOr<std::string> encoded = EncodeRequest(request);
  Require(encoded.ok());
  const std::variant<Request, RequestError> again = DecodeRequest(*encoded);
  Require(std::holds_alternative<Request>(again));
  Require(std::get<Request>(again).body.index() == request.body.index());
  const absl::StatusOr<std::string> encoded_again = EncodeRequest(std::get<Request>(again));
  Require(encoded_again.ok() && *encoded_again == *encoded);
}

// The lines of `bytes` that come in pieces of `step`.
std::vector<std::string> Lines(std::string_view bytes, size_t step) {
  LineDecoder decoder;
  std::vector<std::string> lines;
  for (size_t i = 0; i < bytes.size(); i += step) {
    Require(decoder.Feed(bytes.substr(i, step)).ok());
    while (auto line = decoder.Next()) lines.push_back(*std::move(line));
  }
  Require(decoder.pending_bytes() <= bytes.size());
  return lines;
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<char> bytes(data, data + size);
  const std::string_view stream(bytes.data(), bytes.size());
  const std::vector<std::string> lines = tiny_knn::Lines(stream, 4096);
  tiny_knn::Require(lines == tiny_knn::Lines(stream, 1 + size % 7));
  for (const std::string& line : lines) tiny_knn::CheckLine(line);
  // What no line end follows is a line too, so that the fuzzer need not find one.
  if (stream.find('\n') == std::string_view::npos) tiny_knn::CheckLine(std::string(stream));
  return 0;
}
