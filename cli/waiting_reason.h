// Why a job waits, in words and with names. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// "behind 2 jobs of bea and 1 of yours", where `own` is who asks. Of many users the first few are
// named. Empty when nothing is before.
std::string BehindText(std::span<const JobsOfUser> before, int64_t own,
                       const std::function<std::string(int64_t uid)>& name_of);

}  // namespace tiny_knn
