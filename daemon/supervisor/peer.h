// Who is on the other end of a connection, as the kernel says.
#pragma once

#include <sys/types.h>

#include <vector>

#include "absl/status/statusor.h"

namespace tiny_knn {

// Taken when the connection was made (SO_PEERCRED, SO_PEERGROUPS): what the process at the other
// end becomes later does not matter, and its pid says nothing, because it may be another process by
// now.
struct Peer {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
};

// Of a connected AF_UNIX socket. Internal when the kernel does not tell.
absl::StatusOr<Peer> PeerOf(int socket);

}  // namespace tiny_knn
