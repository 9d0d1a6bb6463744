"""Two users with fifty jobs each: whose turn it is follows from what each has had."""

import subprocess
import sys
import unittest

sys.path.insert(0, "tests/daemon")
import fault_rules
from fault_rules import ALWAYS, DELAY, WORKER
from users_harness import UsersTestCase

NUM_JOBS = 50
LONG_MS = 500


class FairShare(UsersTestCase):
    def setUp(self):
        super().setUp()
        self.of_ann = self.connect(self.ann)
        self.of_bea = self.connect(self.bea)
        self.of_root = self.daemon.client()
        self.addCleanup(self.of_root.close)

    def queue_fifty_each(self, long_jobs=(), holder=None):
        """ann's fifty first, then bea's, behind a held job of the administrator's; gives that one's rule."""
        self.ann.save("long.npy", self.doc_rows)
        self.daemon.faults.rule(WORKER, fault_rules.OPEN, DELAY, path="*/games/long.npy", amount=LONG_MS, last=1)
        holder = holder or self.admin
        _, hold, _ = self.hold_at_write(holder, self.connect(holder))
        self.addCleanup(hold.remove)
        self.jobs = {self.ann.uid: [], self.bea.uid: []}
        for number in range(NUM_JOBS):
            docs = "long.npy" if number in long_jobs else "docs.npy"
            self.jobs[self.ann.uid].append(self.submit_as(self.ann, self.of_ann, f"{number}.pkl", docs=docs))
        for number in range(NUM_JOBS):
            self.jobs[self.bea.uid].append(self.submit_as(self.bea, self.of_bea, f"{number}.pkl"))
        return hold

    def run_all(self, hold):
        """What ran, in the order of its starts, of ann and bea."""
        hold.remove()
        self.of_root.wait(*self.jobs[self.ann.uid], *self.jobs[self.bea.uid], timeout=120)
        ran = [job for job in self.of_root.jobs().values() if job["uid"] in self.jobs]
        for job in ran:
            self.assertEqual(job["state"], "done", job)
        self.assertEqual(len(ran), 2 * NUM_JOBS)
        ran.sort(key=lambda job: job["started_at"])
        return ran

    def test_neither_of_two_users_waits_longer_than_the_others_job_and_the_own_share(self):
        hold = self.queue_fifty_each(long_jobs=(7,))
        ran = self.run_all(hold)
        used = {uid: 0.0 for uid in self.jobs}
        left = {uid: NUM_JOBS for uid in self.jobs}
        longest = {uid: max(job["elapsed_seconds"] for job in ran if job["uid"] == uid) for uid in self.jobs}
        self.assertGreater(longest[self.ann.uid], LONG_MS / 1000)
        turns = 0
        for before, job in zip([None, *ran], ran):
            uid = job["uid"]
            other = self.ann.uid + self.bea.uid - uid
            if left[other] > 0:
                # Who still waits has not had less, but for the one job that ran when the balance tipped.
                self.assertLessEqual(used[uid], used[other], job)
                self.assertLessEqual(used[other] - used[uid], longest[other], job)
            if before is not None and before["uid"] != uid:
                turns += 1
            used[uid] += job["elapsed_seconds"]
            left[uid] -= 1
        print(f"100 jobs of two users: {turns} turns, {used[self.ann.uid]:.2f} s and {used[self.bea.uid]:.2f} s")
        self.assertGreater(turns, 10)
        # A user's own jobs keep their order.
        for uid, jobs in self.jobs.items():
            self.assertEqual([job["id"] for job in ran if job["uid"] == uid], jobs)

    def test_long_job_is_paid_for_with_the_others_short_ones(self):
        hold = self.queue_fifty_each(long_jobs=(0,))
        ran = self.run_all(hold)
        long = next(number for number, job in enumerate(ran) if job["id"] == self.jobs[self.ann.uid][0])
        after = 0.0
        for job in ran[long + 1 :]:
            if job["uid"] == self.ann.uid:
                break
            after += job["elapsed_seconds"]
        bea_had_all = all(job["uid"] == self.ann.uid for job in ran[-5:])
        self.assertTrue(after >= LONG_MS / 1000 * 0.9 or bea_had_all, after)

    def test_reason_of_a_waiting_job_names_whose_jobs_are_before_it(self):
        hold = self.queue_fifty_each()
        of_bea = [self.of_bea.job(job) for job in self.jobs[self.bea.uid]]
        last = {entry["uid"]: entry["jobs"] for entry in of_bea[-1]["jobs_before"]}
        self.assertEqual(last[self.admin.uid], 1)  # the running one
        self.assertEqual(last[self.bea.uid], NUM_JOBS - 1)
        # Interleaved as they will be, not behind all of ann's fifty and before none.
        first = {entry["uid"]: entry["jobs"] for entry in of_bea[0]["jobs_before"]}
        self.assertEqual(first.get(self.bea.uid, 0), 0)
        self.assertLess(first.get(self.ann.uid, 0), 5)
        self.assertGreater(last[self.ann.uid], NUM_JOBS // 2)
        positions = [sum(entry["jobs"] for entry in job["jobs_before"]) for job in of_bea]
        self.assertEqual(positions, sorted(positions))
        text = self.bea.run(_status, self.daemon.binary, self.daemon.socket_path)
        self.assertIn("of games", text)
        hold.remove()
        self.of_bea.call("cancel", jobs=self.jobs[self.bea.uid])
        self.of_ann.call("cancel", jobs=self.jobs[self.ann.uid])

    def test_third_user_who_comes_late_is_served_next(self):
        """Fifty jobs each are before his, and he waits for the one that runs."""
        hold = self.queue_fifty_each(holder=self.ann)
        hold.remove()
        self.of_root.wait(self.jobs[self.bea.uid][3])
        late = self.connect(self.admin)
        job = self.submit_as(self.admin, late, "late.pkl")
        job = late.wait(job)[job]
        begun_before = [
            other["id"]
            for other in self.of_root.jobs().values()
            if other["started_at"] and job["submitted_at"] < other["started_at"] < job["started_at"]
        ]
        self.assertLessEqual(len(begun_before), 1, begun_before)
        self.of_bea.call("cancel", jobs=self.jobs[self.bea.uid])
        self.of_ann.call("cancel", jobs=self.jobs[self.ann.uid])
        self.of_root.wait(*self.jobs[self.ann.uid], *self.jobs[self.bea.uid])

    def test_priority_above_others_is_not_for_users(self):
        """Users may stand back, and administrators may push in."""
        with self.assert_refused("not_allowed"):
            self.submit_as(self.ann, self.of_ann, "first.pkl", priority=1)
        for user, client, priority in ((self.ann, self.of_ann, -5), (self.admin, self.connect(self.admin), 1)):
            job = self.submit_as(user, client, "first.pkl", priority=priority)
            self.assertEqual(client.wait(job)[job]["state"], "done")

    def test_failing_jobs_are_charged_too(self):
        """ann's fifty jobs all die; bea's are not behind them."""
        self.daemon.faults.rule(WORKER, fault_rules.WRITE, fault_rules.KILL, path="*/games/*.tmp", last=ALWAYS)
        of_ann = [self.submit_as(self.ann, self.of_ann, f"{number}.pkl") for number in range(5)]
        for _ in range(5):
            self.assert_works_for(self.bea, self.of_bea, within=5)
        for job in self.of_ann.wait(*of_ann).values():
            self.assertEqual((job["state"], job["error_code"]), ("failed", "aborted"), job)


def _status(binary, socket):
    command = [binary, "status", "--socket", socket]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout


if __name__ == "__main__":
    unittest.main()
