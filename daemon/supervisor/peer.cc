#include "daemon/supervisor/peer.h"

#include <sys/socket.h>

#include <cerrno>

#include "absl/status/status.h"

namespace tiny_knn {

absl::StatusOr<Peer> PeerOf(int socket) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return absl::ErrnoToStatus(errno, "cannot tell who connected");
  }
  Peer peer{credentials.uid, credentials.gid, {}};
  peer.groups.resize(32);
  for (int i = 0; i < 2; ++i) {  // the kernel says how many there are when they do not fit
    size = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
    const int result = getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &size);
    const int error = result == 0 ? 0 : errno;
    peer.groups.resize(size / sizeof(gid_t));
    if (error == 0) return peer;
    if (error != ERANGE)
      return absl::ErrnoToStatus(error, "cannot tell the groups of who connected");
  }
  return absl::InternalError("the groups of who connected keep changing");
}

}  // namespace tiny_knn
