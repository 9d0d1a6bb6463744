// Where the daemon's socket and its state lie when nobody says.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tiny_knn {

using Environment = std::function<const char*(const char* name)>;

// $TINY_KNN_SOCKET, else /run/tiny-knn/daemon.sock for root, else
// $XDG_RUNTIME_DIR/tiny-knn/daemon.sock, else <state folder>/daemon.sock. Never in /tmp.
// InvalidArgument when the path is longer than a socket's may be (107 bytes) or relative.
absl::StatusOr<std::string> DefaultSocketPath(bool is_root, const Environment& environment);

// /var/lib/tiny-knn for root, else $XDG_STATE_HOME/tiny-knn, else $HOME/.local/state/tiny-knn.
// FailedPrecondition when none of them is set; relative values are ignored, as XDG says.
absl::StatusOr<std::string> DefaultStateFolder(bool is_root, const Environment& environment);

// Sockets that a client without --socket tries, in this order: the user's own, then the system's
// /run/tiny-knn/daemon.sock. Never empty.
std::vector<std::string> SocketsToTry(bool is_root, const Environment& environment);

// InvalidArgument when `path` cannot be a socket's: relative, empty, or longer than 107 bytes.
absl::Status CheckSocketPath(const std::string& path);

}  // namespace tiny_knn
