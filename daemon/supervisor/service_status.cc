#include "daemon/supervisor/service_status.h"

#include <utility>

#include "boost/system/error_code.hpp"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace tiny_knn {

ServiceStatus::ServiceStatus(boost::asio::io_context& loop, ServiceManager manager,
                             std::function<State()> state, std::chrono::milliseconds interval)
    : manager_(std::move(manager)), state_(std::move(state)), interval_(interval), timer_(loop) {}

std::string ServiceStatus::Describe(const State& state) {
  const char* const verb = state.waiting == 1 ? "waits" : "wait";
  std::string text = "idle";
  if (state.running) {
    text = fmt::format("job {} runs", *state.running);
    if (state.waiting > 0) text += fmt::format(", {} {}", state.waiting, verb);
  } else if (state.waiting > 0) {
    text = fmt::format("{} job{} {}", state.waiting, state.waiting == 1 ? "" : "s", verb);
  }
  if (state.stopping) return "stopping; " + text;
  return state.draining ? "takes no new jobs; " + text : text;
}

void ServiceStatus::Ready() {
  if (!manager_.exists()) return;
  ready_ = true;
  told_ = Describe(state_());
  Note(manager_.Ready(told_));
}

void ServiceStatus::Changed() {
  if (!ready_) return;
  if (!stopping_) {
    const State state = state_();
    if (state.stopping) {
      stopping_ = true;
      told_ = Describe(state);
      Note(manager_.Stopping(told_));
      return;
    }
  }
  changed_ = true;
  if (!pending_) Tell();
}

void ServiceStatus::Tell() {
  changed_ = false;
  std::string text = Describe(state_());
  if (text == told_) return;
  told_ = std::move(text);
  Note(manager_.Status(told_));
  pending_ = true;
  timer_.expires_after(interval_);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    pending_ = false;
    if (changed_) Tell();
  });
}

void ServiceStatus::Note(const absl::Status& status) {
  if (status.ok() || complained_) return;
  complained_ = true;  // once: it may be so for as long as we live
  spdlog::warn("{}", std::string(status.message()));
}

}  // namespace tiny_knn
