#include "daemon/supervisor/authority.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tiny_knn {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr gid_t kGroup = 100;
constexpr gid_t kAdmins = 50;
constexpr uid_t kAna = 1000;
constexpr uid_t kBea = 1001;

Peer PeerWith(uid_t uid, std::vector<gid_t> groups = {}) { return {uid, 60, std::move(groups)}; }

std::vector<RequestBody> EveryRequest() {
  return {HelloRequest{},
          SubmitRequest{},
          StatusRequest{},
          ListRequest{},
          WaitRequest{},
          SubscribeRequest{},
          CancelRequest{},
          LogRequest{},
          CleanRequest{},
          StatsRequest{},
          DrainRequest{},
          ShutdownRequest{},
          ListRequest{.everyone = true}};
}

// What a peer may do with a request, one letter each, in the order of EveryRequest:
//   -  not at all          o  with own jobs
//   r  own jobs, and others' redacted    A  with everybody's
//                             hello submit status list wait subscribe cancel log clean stats drain
//                             shutdown list-everyone
std::string MayDo(const Authority& authority, const Peer& peer) {
  std::string letters;
  for (const RequestBody& request : EveryRequest()) {
    const int64_t own = peer.uid;
    const int64_t other = own == kBea ? kAna : kBea;
    if (authority.CheckRequest(peer, request)) {
      letters += '-';
      continue;
    }
    EXPECT_TRUE(authority.MayName(peer, request, own));
    EXPECT_EQ(authority.SightOf(peer, request, own), Sight::kWhole);
    const bool names = authority.MayName(peer, request, other);
    switch (authority.SightOf(peer, request, other)) {
      case Sight::kNothing:
        EXPECT_FALSE(names);
        letters += 'o';
        break;
      case Sight::kRedacted:
        // A list names no jobs; a cancel that shows them may name them.
        EXPECT_EQ(names, std::holds_alternative<CancelRequest>(request));
        letters += 'r';
        break;
      case Sight::kWhole:
        EXPECT_TRUE(names);
        letters += 'A';
        break;
    }
  }
  return letters;
}

TEST(Authority, EveryRoleAndEveryRequest) {
  ASSERT_EQ(EveryRequest().size(), std::variant_size_v<RequestBody> + 1);
  const Authority of_root(0, kGroup, kAdmins);
  const Authority of_ana(kAna, kGroup, kAdmins);
  struct Row {
    const Authority& daemon;
    Peer peer;
    Role role;
    std::string may;
  };
  for (const Row& row : {
           Row{of_root, PeerWith(kBea, {7, 8}), Role::kStranger, "-------------"},
           Row{of_root, PeerWith(kBea, {7, kGroup}), Role::kUser, "oooooooooo--r"},
           Row{of_root, PeerWith(kBea, {7, kAdmins}), Role::kAdmin, "oooooorooooor"},
           Row{of_root, PeerWith(kBea, {kGroup, kAdmins}), Role::kAdmin, "oooooorooooor"},
           Row{of_root, PeerWith(0), Role::kRoot, "AAAAAAAAAAAAA"},
           // One that is not root knows no groups.
           Row{of_ana, PeerWith(kAna), Role::kKeeper, "oooooooooooor"},
           Row{of_ana, PeerWith(kBea, {kGroup, kAdmins}), Role::kStranger, "-------------"},
           Row{of_ana, PeerWith(0), Role::kRoot, "A-AAAAAAAAAAA"},
       }) {
    EXPECT_EQ(row.daemon.RoleOf(row.peer), row.role);
    EXPECT_EQ(MayDo(row.daemon, row.peer), row.may) << static_cast<int>(row.role);
    EXPECT_EQ(row.daemon.CheckConnection(row.peer).has_value(), row.role == Role::kStranger);
  }
}

TEST(Authority, AStrangerSeesAndNamesNothingNotEvenHisOwn) {
  const Authority authority(0, kGroup, kAdmins);
  const Peer stranger = PeerWith(kBea);
  for (const RequestBody& request : EveryRequest()) {
    for (const int64_t owner : {int64_t{0}, int64_t{kAna}, int64_t{kBea}}) {
      EXPECT_FALSE(authority.MayName(stranger, request, owner));
      EXPECT_EQ(authority.SightOf(stranger, request, owner), Sight::kNothing);
    }
  }
}

TEST(Authority, TheFirstGroupCountsAsTheOthersDo) {
  const Authority authority(0, kGroup, kAdmins);
  EXPECT_EQ(authority.RoleOf({kAna, kGroup, {}}), Role::kUser);
  EXPECT_EQ(authority.RoleOf({kAna, kAdmins, {}}), Role::kAdmin);
}

TEST(Authority, WithoutGroupsADaemonOfRootServesRootOnly) {
  const Authority authority(0, std::nullopt, std::nullopt);
  // Group 0 is no group that was named.
  EXPECT_EQ(authority.RoleOf({kAna, 0, {0, kGroup, kAdmins}}), Role::kStranger);
  EXPECT_EQ(authority.RoleOf(PeerWith(0)), Role::kRoot);
  const Authority with_admins(0, std::nullopt, kAdmins);
  EXPECT_EQ(with_admins.RoleOf(PeerWith(kAna, {kAdmins})), Role::kAdmin);
  EXPECT_EQ(with_admins.RoleOf(PeerWith(kAna, {kGroup})), Role::kStranger);
}

TEST(Authority, GroupsOfUsersMakeNobodyAnother) {
  const Authority authority(0, kGroup, kAdmins);
  // Root's group and a number as large as a user's.
  EXPECT_FALSE(authority.Owns({kAna, 0, {0, kBea, kGroup}}, kBea));
  EXPECT_FALSE(authority.Owns(PeerWith(kAna, {kGroup}), int64_t{kAna} + (int64_t{1} << 32)));
}

TEST(Authority, PriorityAboveZeroIsForThoseWhoRule) {
  const Authority shared(0, gid_t{100}, gid_t{50});
  const auto allowed = [](const Authority& authority, const Peer& peer, int priority) {
    SubmitRequest request;
    request.priority = priority;
    return !authority.CheckRequest(peer, request).has_value();
  };
  const Peer user{1000, 1000, {100}};
  EXPECT_FALSE(allowed(shared, user, 1));
  EXPECT_TRUE(allowed(shared, user, 0));
  EXPECT_TRUE(allowed(shared, user, -100));
  EXPECT_TRUE(allowed(shared, {1000, 1000, {50}}, 100));
  EXPECT_TRUE(allowed(shared, {0, 0, {}}, 100));
  // One's own daemon has nobody to be fair to.
  EXPECT_TRUE(allowed(Authority(1000, std::nullopt, std::nullopt), user, 100));
}

TEST(Authority, RefusalsSayWhatToDo) {
  const auto message = [](const Authority& authority) {
    const std::optional<ErrorReply> error = authority.CheckConnection(PeerWith(kBea, {7}));
    EXPECT_TRUE(error);
    EXPECT_EQ(error->code, ErrorCode::kNotAllowed);
    EXPECT_THAT(error->message, Not(HasSubstr("\n")));
    return error->message;
  };
  EXPECT_EQ(message(Authority(kAna, kGroup, kAdmins)),
            "this daemon serves user 1000 only; start your own with 'tiny-knn daemon "
            "--background'");
  EXPECT_THAT(message(Authority(0, kGroup, kAdmins)), HasSubstr("user 1001 is not in group 100"));
  EXPECT_THAT(message(Authority(0, {}, {})), HasSubstr("serves root only"));
  EXPECT_THAT(message(Authority(0, {}, kAdmins)), HasSubstr("root and its administrators only"));
}

}  // namespace
}  // namespace tiny_knn
