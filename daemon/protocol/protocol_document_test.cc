// docs/protocol.md says what the code does: its frames decode, and it names what the code names.
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/line_decoder.h"
#include "daemon/protocol/status_code_name.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tiny_knn {
namespace {

std::string Page() {
  std::ifstream file("docs/protocol.md");
  return {std::istreambuf_iterator<char>(file), {}};
}

// Prints what is missing, not the whole page.
void ExpectOnPage(const std::string& page, const std::string& text) {
  EXPECT_NE(page.find(text), std::string::npos) << "docs/protocol.md lacks: " << text;
}

// The lines of the page's json blocks.
std::vector<std::string> Frames() {
  std::istringstream page(Page());
  std::vector<std::string> frames;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) {
      inside = line == "```json";
    } else if (inside) {
      frames.push_back(line);
    }
  }
  return frames;
}

template <typename Variant>
std::set<size_t> AllAlternatives() {
  std::set<size_t> all;
  for (size_t i = 0; i < std::variant_size_v<Variant>; ++i) all.insert(i);
  return all;
}

// The names of a message's members, those of its objects included; a spec and a report describe
// themselves.
void AddMembers(const nlohmann::json& json, std::set<std::string>& names) {
  for (const auto& [name, value] : json.items()) {
    if (json.is_object()) names.insert(name);
    if (value.is_structured() && name != "spec" && name != "report") AddMembers(value, names);
  }
}

TEST(ProtocolDocument, EveryFrameDecodesAndEveryKindIsShown) {
  std::set<size_t> requests;
  std::set<size_t> replies;
  bool event = false;
  for (const std::string& frame : Frames()) {
    const nlohmann::json json = nlohmann::json::parse(frame, nullptr, false);
    ASSERT_TRUE(json.is_object()) << frame;
    if (!json.contains("ok") && !json.contains("event")) {
      const std::variant<Request, RequestError> request = DecodeRequest(frame);
      ASSERT_TRUE(std::holds_alternative<Request>(request))
          << frame << ": " << std::get<RequestError>(request).error.message;
      requests.insert(std::get<Request>(request).body.index());
      continue;
    }
    const absl::StatusOr<ServerMessage> message = DecodeServerMessage(frame);
    ASSERT_TRUE(message.ok()) << frame << ": " << message.status();
    const auto* const reply = std::get_if<Reply>(&*message);
    if (reply == nullptr) {
      event = true;
      // No member is missing from the page's frames, and none is only there.
      EXPECT_EQ(nlohmann::json::parse(EncodeEvent(std::get<JobEvent>(*message))), json);
    } else {
      replies.insert(reply->body.index());
      EXPECT_EQ(nlohmann::json::parse(EncodeReply(*reply)), json);
    }
  }
  EXPECT_EQ(requests, AllAlternatives<RequestBody>());
  EXPECT_EQ(replies, AllAlternatives<ReplyBody>());
  EXPECT_TRUE(event);
}

TEST(ProtocolDocument, EveryRequestHasItsSection) {
  const std::string page = Page();
  const auto expect_section = [&page](const RequestBody& body) {
    ExpectOnPage(page, "\n### " + std::string(RequestName(body)) + "\n");
  };
  for (const RequestBody& body : std::vector<RequestBody>{
           HelloRequest{}, SubmitRequest{}, StatusRequest{}, ListRequest{}, WaitRequest{},
           SubscribeRequest{}, CancelRequest{}, LogRequest{}, CleanRequest{}, StatsRequest{},
           DrainRequest{}, ShutdownRequest{}}) {
    expect_section(body);
  }
}

TEST(ProtocolDocument, EveryStateAndErrorCodeHasItsRow) {
  const std::string page = Page();
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    const std::string name(ErrorCodeName(static_cast<ErrorCode>(i)));
    ExpectOnPage(page, "\n| `" + name + "` | ");
  }
  for (const JobState state : {JobState::kQueued, JobState::kRunning, JobState::kDone,
                               JobState::kFailed, JobState::kCancelled}) {
    ExpectOnPage(page, "\n| `" + std::string(JobStateName(state)) + "` | ");
  }
  for (int i = 1; i <= 16; ++i) {
    const std::string name(StatusCodeName(static_cast<absl::StatusCode>(i)));
    ExpectOnPage(page, "`" + name + "`");
  }
}

TEST(ProtocolDocument, EveryMemberIsExplained) {
  const std::string page = Page();
  std::set<std::string> names;
  SubmitRequest submit{.key = "k", .spec = {}, .shape = {}};
  submit.spec.queries_path = submit.spec.docs_path = submit.spec.output_path = "/f";
  for (const RequestBody& body :
       std::vector<RequestBody>{HelloRequest{}, submit, StatusRequest{}, ListRequest{},
                                LogRequest{}, DrainRequest{}, ShutdownRequest{}}) {
    AddMembers(nlohmann::json::parse(*EncodeRequest({.id = 1, .body = body})), names);
  }
  AddMembers(JobViewToJson({}), names);
  for (const std::string& name : names) ExpectOnPage(page, "`" + name + "`");
}

TEST(ProtocolDocument, LimitsAreThoseOfTheCode) {
  const std::string page = Page();
  ExpectOnPage(page, "| " + std::to_string(kMostLineBytes) + " bytes a line");
  ExpectOnPage(page, "| " + std::to_string(kMostJobsPerRequest) + " ids in one request");
  ExpectOnPage(page, "1 to " + std::to_string(kMostKeyBytes) + " printable ASCII");
  ExpectOnPage(page, "| 0 to " + std::to_string(kMostTimeoutSeconds) + ",");
  ExpectOnPage(page, "| " + std::to_string(kLeastPriority) + " to " +
                         std::to_string(kGreatestPriority) + ",");
  ExpectOnPage(page, "nested 16 deep");
}

}  // namespace
}  // namespace tiny_knn
