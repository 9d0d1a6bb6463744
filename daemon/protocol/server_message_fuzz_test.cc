// Any bytes at all come from what a client took for a daemon: nothing may crash, and what is
// accepted means the same when it is said again.
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

std::string Encode(const ServerMessage& message) {
  const auto* const event = std::get_if<JobEvent>(&message);
  return event != nullptr ? EncodeEvent(*event) : EncodeReply(std::get<Reply>(message));
}

void CheckLine(std::string_view line) {
  const absl::StatusOr<ServerMessage> message = DecodeServerMessage(line);
  if (!message.ok()) {
    Require(message.status().code() == absl::StatusCode::kInvalidArgument);
    const std::string text(message.status().message());
    Require(!text.empty() && text.size() < 1000);
    for (const char c : text) Require(c >= ' ' && c <= '~');
    return;
  }
  const std::string encoded = Encode(*message);
  const absl::StatusOr<ServerMessage> again = DecodeServerMessage(encoded);
  Require(again.ok() && again->index() == message->index());
  Require(Encode(*again) == encoded);
}

}  // namespace
}  // namespace tiny_knn

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // An exact copy on the heap: reading one byte beyond it is seen.
  const std::vector<char> bytes(data, data + size);
  tiny_knn::CheckLine({bytes.data(), bytes.size()});
  return 0;
}
