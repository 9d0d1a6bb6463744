#include "daemon/supervisor/worker_identity.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <pwd.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace tiny_knn {
namespace {

IdentityFailure Failed(const char* step, int error) { return {kExitNotTheUser, step, error}; }

std::vector<gid_t> Sorted(std::vector<gid_t> groups) {
  std::sort(groups.begin(), groups.end());
  groups.erase(std::unique(groups.begin(), groups.end()), groups.end());
  return groups;
}

using Capabilities = std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3>;

__user_cap_header_struct OwnCapabilities() {
  return {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
}

// What is left of root's would survive: setresuid clears no inheritable ones, and with odd
// securebits none at all.
bool DropCapabilities() {
  __user_cap_header_struct header = OwnCapabilities();
  const Capabilities none{};
  return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
         syscall(SYS_capset, &header, none.data()) == 0;
}

bool HasNoCapability() {
  __user_cap_header_struct header = OwnCapabilities();
  Capabilities found{};
  if (syscall(SYS_capget, &header, found.data()) != 0) return false;
  for (const __user_cap_data_struct& part : found) {
    if (part.permitted != 0 || part.effective != 0 || part.inheritable != 0) return false;
  }
  for (uint64_t one = 0; one < 8 * sizeof(uint64_t); ++one) {
    const int is_set = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, one, 0, 0);
    if (is_set < 0) return errno == EINVAL && one > 0;  // beyond the last one that the kernel knows
    if (is_set != 0) return false;
  }
  return true;
}

bool HasIds(const UserIdentity& identity) {
  uid_t uids[3];
  gid_t gids[3];
  if (getresuid(&uids[0], &uids[1], &uids[2]) != 0) return false;
  if (getresgid(&gids[0], &gids[1], &gids[2]) != 0) return false;
  for (const uid_t uid : uids) {
    if (uid != identity.uid) return false;
  }
  for (const gid_t gid : gids) {
    if (gid != identity.gid) return false;
  }
  // -1 changes nothing and returns what is.
  return setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(identity.uid) &&
         setfsgid(static_cast<gid_t>(-1)) == static_cast<int>(identity.gid);
}

bool HasGroups(const UserIdentity& identity) {
  const int count = getgroups(0, nullptr);
  if (count < 0) return false;
  std::vector<gid_t> groups(static_cast<size_t>(count));
  if (getgroups(count, groups.data()) != count) return false;
  return Sorted(groups) == identity.groups;
}

// Whoever started the daemon may have keys in the session's keyring, which would stay within reach.
bool LeaveKeyring() {
  if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nullptr) >= 0) return true;
  // Where the call is not there or not allowed, it is not for the user either.
  return errno == ENOSYS || errno == EPERM;
}

// Any of which would be a way back, so every one has to fail.
bool CannotReturn() {
  const auto keep = static_cast<uid_t>(-1);
  return setuid(0) != 0 && seteuid(0) != 0 && setresuid(0, keep, keep) != 0 &&
         setresuid(keep, keep, 0) != 0 && setgroups(0, nullptr) != 0;
}

// Root is not left for root, and -1 would mean "as it is" to the calls that change.
bool IsUser(uid_t uid) { return uid != 0 && uid != static_cast<uid_t>(-1); }

}  // namespace

IdentityFailure LookUpUser(uid_t uid, UserIdentity& identity) {
  if (!IsUser(uid)) return Failed("a check of the user's number", 0);
  errno = 0;
  const passwd* entry = getpwuid(uid);
  if (entry == nullptr) {
    // What getpwuid(3) lists for "was not found".
    constexpr std::array<int, 5> kNotFound = {0, ENOENT, ESRCH, EBADF, EPERM};
    if (std::find(kNotFound.begin(), kNotFound.end(), errno) != kNotFound.end()) {
      return {kExitNoSuchUser, "getpwuid", 0};
    }
    return Failed("getpwuid", errno);
  }
  if (entry->pw_uid != uid) return Failed("a check of getpwuid's answer", 0);
  identity.uid = uid;
  identity.gid = entry->pw_gid;
  const std::string name = entry->pw_name;  // the next call may overwrite it
  int count = 64;
  while (true) {
    const int room = count;
    identity.groups.resize(static_cast<size_t>(room));
    if (getgrouplist(name.c_str(), identity.gid, identity.groups.data(), &count) >= 0) break;
    if (count <= room) return Failed("getgrouplist", errno);
  }
  identity.groups.resize(static_cast<size_t>(count));
  identity.groups = Sorted(std::move(identity.groups));
  return {};
}

IdentityFailure BecomeUser(const UserIdentity& identity) {
  const uid_t uid = identity.uid;
  const gid_t gid = identity.gid;
  if (!IsUser(uid)) return Failed("a check of the user's number", 0);
  if (setgroups(identity.groups.size(), identity.groups.data()) != 0) {
    return Failed("setgroups", errno);
  }
  if (setresgid(gid, gid, gid) != 0) return Failed("setresgid", errno);
  if (setresuid(uid, uid, uid) != 0) return Failed("setresuid", errno);
  if (!DropCapabilities()) return Failed("capset", errno);
  if (!LeaveKeyring()) return Failed("keyctl", errno);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return Failed("PR_SET_NO_NEW_PRIVS", errno);

  // What the kernel says now counts, not that every call returned 0.
  if (!HasIds(identity)) return Failed("a check of the user's ids", 0);
  if (!HasGroups(identity)) return Failed("a check of the user's groups", 0);
  if (!HasNoCapability()) return Failed("a check of capabilities", 0);
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return Failed("a check of no_new_privs", 0);
  if (!CannotReturn()) return Failed("a check that there is no way back to root", 0);
  return {};
}

}  // namespace tiny_knn
