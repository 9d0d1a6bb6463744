#include "daemon/supervisor/authority.h"

#include <algorithm>
#include <variant>

#include "fmt/format.h"

namespace tiny_knn {
namespace {

template <typename Body>
bool Is(const RequestBody& request) {
  return std::holds_alternative<Body>(request);
}

bool IsIn(const Peer& peer, const std::optional<gid_t>& group) {
  return group && (peer.gid == *group ||
                   std::find(peer.groups.begin(), peer.groups.end(), *group) != peer.groups.end());
}

bool RulesDaemon(Role role) {
  return role == Role::kAdmin || role == Role::kKeeper || role == Role::kRoot;
}

ErrorReply NotAllowed(std::string message) {
  return {.code = ErrorCode::kNotAllowed, .message = std::move(message)};
}

}  // namespace

Authority::Authority(uid_t daemon, std::optional<gid_t> group, std::optional<gid_t> admin_group)
    : daemon_(daemon), group_(group), admin_group_(admin_group) {}

Role Authority::RoleOf(const Peer& peer) const {
  if (peer.uid == 0) return Role::kRoot;
  if (peer.uid == daemon_) return Role::kKeeper;
  if (daemon_ != 0) return Role::kStranger;
  if (IsIn(peer, admin_group_)) return Role::kAdmin;
  return IsIn(peer, group_) ? Role::kUser : Role::kStranger;
}

std::optional<ErrorReply> Authority::CheckConnection(const Peer& peer) const {
  if (RoleOf(peer) != Role::kStranger) return std::nullopt;
  constexpr char kOwnDaemon[] = "start your own with 'tiny-knn daemon --background'";
  if (daemon_ != 0) {
    return NotAllowed(fmt::format("this daemon serves user {} only; {}", daemon_, kOwnDaemon));
  }
  if (!group_) {
    return NotAllowed(fmt::format("this daemon serves root{} only; {}",
                                  admin_group_ ? " and its administrators" : "", kOwnDaemon));
  }
  return NotAllowed(
      fmt::format("user {} is not in group {}, which this daemon serves; ask an administrator to "
                  "add it ('getent group {}' tells its name) and log in again, or {}",
                  peer.uid, *group_, *group_, kOwnDaemon));
}

std::optional<ErrorReply> Authority::CheckRequest(const Peer& peer,
                                                  const RequestBody& request) const {
  const Role role = RoleOf(peer);
  if (role == Role::kStranger) return CheckConnection(peer);
  // Only root can become somebody else.
  if (Is<SubmitRequest>(request) && daemon_ != 0 && peer.uid != daemon_) {
    return NotAllowed(fmt::format("this daemon runs jobs as user {} only", daemon_));
  }
  if (RulesDaemon(role)) return std::nullopt;
  // Else whoever asks for the greatest would be served first for ever.
  const auto* const submit = std::get_if<SubmitRequest>(&request);
  if (submit != nullptr && submit->priority > 0) {
    return NotAllowed(
        fmt::format("priority {}: on a daemon of several users only administrators and root may go "
                    "above 0; give those of your jobs that can wait less than 0",
                    submit->priority));
  }
  constexpr char kWho[] = "administrators of the daemon and root";
  if (Is<DrainRequest>(request)) {
    return NotAllowed(fmt::format("only {} may drain it; 'cancel' ends your own jobs", kWho));
  }
  if (Is<ShutdownRequest>(request)) {
    return NotAllowed(fmt::format("only {} may end it; 'cancel' ends your own jobs", kWho));
  }
  return std::nullopt;
}

bool Authority::Owns(const Peer& peer, int64_t owner) const {
  const Role role = RoleOf(peer);
  if (role == Role::kStranger) return false;
  return role == Role::kRoot || owner == static_cast<int64_t>(peer.uid);
}

bool Authority::MayName(const Peer& peer, const RequestBody& request, int64_t owner) const {
  if (Owns(peer, owner)) return true;
  return RoleOf(peer) == Role::kAdmin && Is<CancelRequest>(request);
}

Sight Authority::SightOf(const Peer& peer, const RequestBody& request, int64_t owner) const {
  if (Owns(peer, owner)) return Sight::kWhole;
  if (RoleOf(peer) == Role::kStranger) return Sight::kNothing;
  const auto* const list = std::get_if<ListRequest>(&request);
  const bool everyone = list != nullptr && list->everyone;
  return everyone || MayName(peer, request, owner) ? Sight::kRedacted : Sight::kNothing;
}

}  // namespace tiny_knn
