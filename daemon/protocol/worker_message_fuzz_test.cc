// A worker's user may make it say anything, so its messages are any bytes at all; and a worker
// reads its supervisor's by the same means. What is accepted is bounded and means the same when it
// is said again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/status_code_name.h"
#include "daemon/protocol/worker_messages.h"

namespace tiny_knn {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckFromWorker(std::string_view line) {
  const absl::StatusOr<FromWorker> message = DecodeFromWorker(line);
  if (!message.ok()) {
    Require(message.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string text(message.status().message());
    Require(!text.empty() && text.size() < 1000);
    for (const char c : text) Require(c >= ' ' && c <= '~');
    return;
  }
  if (const auto* finished = std::get_if<WorkerFinished>(&*message)) {
    Require(finished->job >= 1 && ParseStatusCode(finished->error_code).has_value());
    Require(finished->error.size() <= size_t{1} << 14 && finished->output_path.size() < 4096);
    Require(finished->search_seconds >= 0 && finished->total_seconds >= 0);
    // A client can read what the daemon makes of it.
    JobView job;
    job.id = finished->job;
    job.error_code = finished->error_code;
    job.error = finished->error;
    job.output_path = finished->output_path;
    job.device = finished->device;
    job.docs = finished->docs;
    job.report_json = finished->report_json;
    const std::string event = EncodeEvent({.sequence = 1, .job = job});
    Require(event.size() <= kMostLineBytes);
    const absl::StatusOr<ServerMessage> read = DecodeServerMessage(event);
    Require(read.ok() && std::get<JobEvent>(*read).job.report_json == job.report_json);
  }
  const std::string encoded = EncodeFromWorker(*message);
  Require(encoded.size() <= kMostLineBytes);
  const absl::StatusOr<FromWorker> again = DecodeFromWorker(encoded);
  Require(again.ok() && again->index() == message->index());
  Require(EncodeFromWorker(*again) == encoded);
}

void CheckToWorker(std::string_view line) {
  const absl::StatusOr<ToWorker> message = DecodeToWorker(line);
  if (!message.ok()) return;
  const absl::StatusOr<std::string> encoded = EncodeToWorker(*message);
  Require(encoded.ok());
  const absl::StatusOr<ToWorker> again = DecodeToWorker(*encoded);
  Require(again.ok() && again->index() == message->index());
  const absl::StatusOr<std::string> encoded_again = EncodeToWorker(*again);
  Require(encoded_again.ok() && *encoded_again == *encoded);
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<char> bytes(data, data + size);
  const std::string_view line(bytes.data(), bytes.size());
  tiny_knn::CheckFromWorker(line);
  tiny_knn::CheckToWorker(line);
  return 0;
}
