"""The state folder on a file system of 12 MiB that is really full."""

import os
import subprocess
import sys
import unittest

import fault_rules
from daemon_client import Refused
from daemon_harness import DaemonTestCase, wait_for
from fault_rules import HOLD, WORKER

# Set in the process that has the small disk: where it is.
_DISK = "TINY_KNN_TEST_SMALL_DISK"


class SmallDisk(unittest.TestCase):
    def test_full_disk_under_the_state_folder(self):
        """Runs FullDisk in a mount namespace of its own."""
        script = f'd=$(mktemp -d) && mount -t tmpfs -o size=12m none "$d" || exit 99; {_DISK}="$d" exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, sys.argv[0], "FullDisk"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240)
        if done.returncode == 99 or "unshare" in done.stderr:
            print(f"NOT RUN: this machine lets no test mount a small disk ({done.stderr.strip()})", flush=True)
            self.skipTest("no user namespaces")
        print(done.stdout + done.stderr, flush=True)
        self.assertEqual(done.returncode, 0)


@unittest.skipUnless(_DISK in os.environ, "the small disk is made by SmallDisk")
class FullDisk(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        self.disk = os.environ[_DISK]
        self.daemon.state = os.path.join(self.disk, "state")
        self.expected()

    def fill(self, name, leave=0):
        """Takes all space but `leave` bytes."""
        with open(os.path.join(self.disk, name), "wb", buffering=0) as file:
            while True:
                left = os.statvfs(self.disk)
                left = left.f_bavail * left.f_frsize - leave
                if left <= 0:
                    return
                try:
                    file.write(bytes(min(left, 1 << 20)))
                except OSError:
                    return

    def submit_until_refused(self, client):
        """Returns the ids of the jobs that were accepted."""
        accepted = []
        while True:
            try:
                accepted.append(self.submit(client, f"{len(accepted)}.pkl"))
            except Refused as refused:
                self.assertEqual(refused.code, "journal_full", refused.message)
                self.assertIn(self.daemon.state, refused.message)
                return accepted
            self.assertLess(len(accepted), 20000)

    def test_what_is_in_hand_goes_on_and_all_goes_on_when_space_returns(self):
        daemon = self.daemon.start()
        with daemon.client() as client:
            hold = daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
            first = self.submit(client, "first.pkl")
            hold.wait()
            self.assertGreaterEqual(os.path.getsize(os.path.join(daemon.state, "reserve")), 4 << 20)
            self.fill("filler", leave=64 << 10)
            accepted = self.submit_until_refused(client)
            print(f"{len(accepted)} jobs were accepted into the last 64 KiB")
            # Status, cancel and completion go on.
            self.assertEqual(client.job(first)["state"], "running")
            self.assertNotEqual(client.call("stats")["journal"], "ok")
            if accepted:
                client.call("cancel", jobs=[accepted[0]])
                self.assertEqual(client.wait(accepted[0])[accepted[0]]["state"], "cancelled")
            hold.remove()
            self.assert_done(client.wait(first)[first])
            # Also the room that the reserve gave is taken.
            self.fill("filler2")
            with self.assert_refused("journal_full"):
                self.submit(client, "no.pkl")
            os.unlink(os.path.join(self.disk, "filler"))
            os.unlink(os.path.join(self.disk, "filler2"))

            def accepts():
                try:
                    return self.submit(client, "later.pkl", key="later")
                except Refused as refused:
                    self.assertEqual(refused.code, "journal_full", refused.message)
                    return 0

            later = wait_for(accepts, "a submission after space has returned", 30)
            jobs = client.wait(later, *accepted)
            self.assert_done(jobs[later])
            wait_for(
                lambda: os.path.exists(os.path.join(daemon.state, "reserve"))
                and os.path.getsize(os.path.join(daemon.state, "reserve")) >= 4 << 20,
                "the reserve",
                30,
            )
        daemon.kill()
        daemon.start()
        with daemon.client() as client:
            after = client.jobs()
            self.assertEqual(after[first]["state"], "done")
            self.assertEqual(after[later]["state"], "done")
            for number in accepted:
                self.assertEqual(after[number]["state"], jobs[number]["state"])
        daemon.stop()

    def test_daemon_does_not_start_without_space_and_says_so(self):
        self.fill("filler")
        process = self.daemon.spawn()
        self.assertEqual(process.wait(30), 2)
        message = self.daemon.messages().strip().splitlines()[-1]
        self.assertIn(self.daemon.state, message)
        self.assertIn("space", message.lower())
        os.unlink(os.path.join(self.disk, "filler"))
        self.daemon.start()
        self.assert_works()
        self.daemon.stop()

    def tearDown(self):
        self.daemon.close()
        subprocess.run(["rm", "-rf", self.disk + "/state", self.disk + "/filler", self.disk + "/filler2"], check=True)
        super().tearDown()


if __name__ == "__main__":
    unittest.main()
