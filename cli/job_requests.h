// Requests about any number of jobs, where one request and one reply have their limits.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/client/client.h"
#include "daemon/protocol/client_messages.h"
#include "daemon/protocol/job_view.h"

namespace tiny_knn {

// Each of these jobs, in the order of `ids`. NotFound naming the first that is not there; errors as
// DaemonClient::Call.
absl::StatusOr<std::vector<JobView>> AskForJobs(DaemonClient& client,
                                                const std::vector<int64_t>& ids);

// The jobs as they are once they were told to stop, in the order of `ids`. NotFound as above, and
// then none was told.
absl::StatusOr<std::vector<JobView>> CancelJobs(DaemonClient& client,
                                                const std::vector<int64_t>& ids);

// What the request asks for, page by page and oldest first.
absl::StatusOr<std::vector<JobView>> ListAllJobs(DaemonClient& client, ListRequest request);

}  // namespace tiny_knn
