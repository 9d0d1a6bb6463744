// How long a user's next worker has to wait after some of his have died.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>

namespace tiny_knn {

// Pure: whoever asks says what time it is. Thread-compatible.
class UserBackoff {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // So many users at most are remembered. Of more, the one whose wait ends first is forgotten.
  static constexpr size_t kMostUsers = 1024;

  // `first`: from the second death in a row on; doubled with each one, up to `longest`.
  UserBackoff(std::chrono::milliseconds first, std::chrono::milliseconds longest)
      : first_(first), longest_(longest) {}

  void OnDeath(int64_t uid, Time now);
  void OnSuccess(int64_t uid) { users_.erase(uid); }

  bool MayStart(int64_t uid, Time now) const;
  // When the first of those who may not start now will; nothing when all may.
  std::optional<Time> NextEnd(Time now) const;

 private:
  struct User {
    int deaths = 0;  // in a row
    Time until{};    // of the wait
  };
  const std::chrono::milliseconds first_;
  const std::chrono::milliseconds longest_;
  std::map<int64_t, User> users_;
};

}  // namespace tiny_knn
