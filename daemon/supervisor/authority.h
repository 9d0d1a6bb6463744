// Who may do what: the one place that decides it. Pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "daemon/protocol/client_messages.h"
#include "daemon/supervisor/peer.h"

namespace tiny_knn {

// What a peer is to this daemon.
enum class Role {
  kStranger,  // may not connect
  kUser,      // everything on own jobs; of others' jobs, that they are there
  kAdmin,     // the same, and cancels others' jobs, drains and shuts down; reads nothing of theirs
  kKeeper,    // the user of a daemon that is not root: as kUser, and drains and shuts down
  kRoot,      // everything, but that jobs of root run by a daemon of root only
};

// What a peer is told of a job.
enum class Sight {
  kNothing,
  kRedacted,  // RedactedView
  kWhole,
};

// Thread-compatible.
class Authority {
 public:
  // `daemon` is whom the supervisor runs as. The groups count for a daemon of root only.
  Authority(uid_t daemon, std::optional<gid_t> group, std::optional<gid_t> admin_group);

  Role RoleOf(const Peer& peer) const;

  // Why the peer may not connect, and what to do; nothing when it may.
  std::optional<ErrorReply> CheckConnection(const Peer& peer) const;

  // Why the peer may not ask this at all; nothing when it may, of some jobs at least.
  std::optional<ErrorReply> CheckRequest(const Peer& peer, const RequestBody& request) const;

  // Whether the request may name a job of `owner`. One that it may not name is answered like one
  // that is not there.
  bool MayName(const Peer& peer, const RequestBody& request, int64_t owner) const;

  // What a job of `owner` looks like wherever the peer comes across it. kNothing but where the
  // request is about others' jobs: a list of everyone's, and what MayName lets through.
  Sight SightOf(const Peer& peer, const RequestBody& request, int64_t owner) const;

  // Whether the peer may see all of a job of `owner`: it is his, or he is root.
  bool Owns(const Peer& peer, int64_t owner) const;

 private:
  const uid_t daemon_;
  const std::optional<gid_t> group_;
  const std::optional<gid_t> admin_group_;
};

}  // namespace tiny_knn
