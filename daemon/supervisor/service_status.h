// What the service manager is told while the daemon lives: `systemctl status` shows it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "daemon/supervisor/service_manager.h"

namespace tiny_knn {

// Keeps a service manager up to date: at most one message in `interval`, and none where nothing
// that it shows has changed. READY and STOPPING go at once. Event loop only.
class ServiceStatus {
 public:
  struct State {
    std::optional<int64_t> running;  // job
    int64_t waiting = 0;             // jobs
    bool draining = false;
    bool stopping = false;
  };

  // `state` is asked whenever something is told.
  ServiceStatus(boost::asio::io_context& loop, ServiceManager manager, std::function<State()> state,
                std::chrono::milliseconds interval = std::chrono::seconds(1));

  void Ready();
  // Something may be another now. Cheap: called for every change of every job.
  void Changed();

  // "idle", "job 12 runs, 3 wait", "3 jobs wait", "takes no new jobs; job 12 runs". Ids and counts
  // only: whoever may ask the service manager is not always one who may ask the daemon.
  static std::string Describe(const State& state);

 private:
  void Tell();
  void Note(const absl::Status& status);

  ServiceManager manager_;
  const std::function<State()> state_;
  const std::chrono::milliseconds interval_;
  boost::asio::steady_timer timer_;
  std::string told_;
  bool ready_ = false;
  bool pending_ = false;  // the timer runs: something was told within the last interval
  bool changed_ = false;  // since then
  bool stopping_ = false;
  bool complained_ = false;
};

}  // namespace tiny_knn
