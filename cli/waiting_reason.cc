#include "cli/waiting_reason.h"

#include <cstddef>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

// A line holds no more.
constexpr size_t kMostNamed = 3;

}  // namespace

std::string BehindText(std::span<const JobsOfUser> before, int64_t own,
                       const std::function<std::string(int64_t uid)>& name_of) {
  if (before.empty()) return "";
  // One who is left is named, rather than counted.
  const size_t named = before.size() > kMostNamed + 1 ? kMostNamed : before.size();
  std::string text = "behind ";
  for (size_t i = 0; i < named; ++i) {
    const auto& [uid, jobs] = before[i];
    if (i > 0) text += i + 1 == before.size() ? " and " : ", ";
    text += fmt::format("{}", jobs);
    if (i == 0) text += jobs == 1 ? " job" : " jobs";
    text += fmt::format(" of {}", uid == own ? "yours" : name_of(uid));
  }
  if (named < before.size()) {
    int64_t others = 0;
    for (const JobsOfUser& rest : before.subspan(named)) others += rest.jobs;
    text += fmt::format(" and {} of {} others", others, before.size() - named);
  }
  return text;
}

}  // namespace tiny_knn
