"""What one user hears of another's jobs: that they are there, how far they are, and nothing else."""

import json
import os
import signal
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, "tests/daemon")
from daemon_client import Client, Refused
from daemon_harness import wait_for
from users_harness import ADMIN_GROUP, GROUP, UsersTestCase

# In every path, key and text of bea's jobs.
SECRET = "bea-alone-knows"

OPEN_TO_ALL = {"id", "uid", "state", "priority", "submitted_at", "started_at", "finished_at", "elapsed_seconds"}
OPEN_TO_ALL |= {"progress", "eta_seconds", "reason", "jobs_before", "redacted"}


class PrivacyTestCase(UsersTestCase):
    def setUp(self):
        super().setUp()
        self.of_ann = self.connect(self.ann)
        self.of_bea = self.connect(self.bea)
        self.bea.save(f"{SECRET}-docs.npy", self.doc_rows)
        self.bea.save(f"{SECRET}-queries.npy", self.query_rows)

    def submit_secret(self, output="out.pkl", **more):
        spec = {"queries": f"{SECRET}-queries.npy", "docs": f"{SECRET}-docs.npy", **more}
        return self.submit_as(self.bea, self.of_bea, f"{SECRET}-{output}", key=f"{SECRET}-{self.new_key()}"[-128:], **spec)

    def jobs_in_all_states(self):
        """bea's jobs: {state: id}, the running one held."""
        jobs = {"done": self.submit_secret("done.pkl"), "failed": self.submit_secret("x.pkl", docs=f"{SECRET}-none.npy")}
        self.of_bea.wait(*jobs.values())
        jobs["running"], self.hold, self.worker = self.hold_at_write(
            self.bea, self.of_bea, f"{SECRET}-r.pkl", docs=f"{SECRET}-docs.npy", key=f"{SECRET}-held"
        )
        jobs["queued"] = self.submit_secret("queued.pkl")
        jobs["cancelled"] = self.submit_secret("cancelled.pkl")
        self.of_bea.call("cancel", jobs=[jobs["cancelled"]])
        for state, job in jobs.items():
            self.assertEqual(self.of_bea.job(job)["state"], state)
        return jobs

    def assert_redacted(self, job):
        text = json.dumps(job)
        self.assertNotIn(SECRET, text)
        self.assertNotIn(self.bea.home, text)
        self.assertIs(job["redacted"], True)
        for name, value in job.items():
            if name not in OPEN_TO_ALL:
                self.assertIn(value, (None, "", 0), name)
        self.assertEqual(job["uid"], self.bea.uid)


class OthersJobs(PrivacyTestCase):
    def test_jobs_of_others_are_unknown_whatever_is_asked(self):
        """No answer tells a job of another from one that never was."""
        jobs = self.jobs_in_all_states()
        never = 999
        for kind in ("status", "wait", "subscribe", "cancel", "log"):
            for state, job in (*jobs.items(), ("never", never), ("never", 1 << 62)):
                with self.subTest(kind=kind, state=state):
                    with self.assertRaises(Refused) as caught:
                        self.of_ann.call(kind, **({"job": job} if kind == "log" else {"jobs": [job]}))
                    self.assertEqual(caught.exception.code, "unknown_job")
                    text = caught.exception.message.replace(str(job), "ID")
                    if kind == "status" and state == "done":
                        self.text = text
                    self.assertEqual(text, self.text)
        for state, job in jobs.items():
            self.assertEqual(self.of_bea.job(job)["state"], state)

    def test_every_id_is_guessed_and_none_answers(self):
        jobs = self.jobs_in_all_states()
        own = self.submit_as(self.ann, self.of_ann)
        answered = []
        for number in range(1, max(jobs.values()) + 50):
            for kind, more in (("status", {"jobs": [number]}), ("log", {"job": number}), ("cancel", {"jobs": [number, own]}),
                               ("wait", {"jobs": [own, number]}), ("subscribe", {"jobs": [number]})):  # fmt: skip
                if number == own:
                    continue
                try:
                    self.of_ann.call(kind, timeout=5, **more)
                    answered.append((kind, number))
                except Refused as error:
                    self.assertEqual(error.code, "unknown_job")
        self.assertEqual(answered, [])
        self.assertEqual(self.of_ann.job(own)["state"], "queued")
        self.assertEqual(self.of_bea.job(jobs["running"])["state"], "running")

    def test_own_list_and_events_are_of_own_jobs(self):
        self.of_ann.call("subscribe")
        jobs = self.jobs_in_all_states()
        self.hold.remove()
        self.of_bea.wait(jobs["running"], jobs["queued"])
        own = self.submit_as(self.ann, self.of_ann)
        self.assert_done_as(self.ann, self.of_ann.wait(own)[own])
        self.assertEqual(set(self.of_ann.jobs()), {own})
        while not any(event["job"]["state"] == "done" for event in self.of_ann.events):
            self.of_ann.read_message(10)
        self.assertEqual({event["job"]["id"] for event in self.of_ann.events}, {own})

    def test_list_of_everyone_is_redacted(self):
        jobs = self.jobs_in_all_states()
        own = self.submit_as(self.ann, self.of_ann)
        for user in (self.ann, self.admin):
            with self.subTest(user=user.name), user.connect(self.daemon.socket_path) as client:
                found = {job["id"]: job for job in client.call("list", everyone=True)["jobs"]}
                self.assertEqual(set(found), {*jobs.values(), own})
                for state, job in jobs.items():
                    self.assertEqual(found[job]["state"], state)
                    self.assert_redacted(found[job])
                if user is self.ann:
                    self.assertIs(found[own]["redacted"], False)
                    self.assertEqual(found[own]["docs_path"], "docs.npy")
        root = {job["id"]: job for job in self.daemon.client().call("list", everyone=True)["jobs"]}
        self.assertIn(SECRET, json.dumps(root[jobs["done"]]))

    def test_administrator_reads_no_log_and_no_path(self):
        jobs = self.jobs_in_all_states()
        with self.admin.connect(self.daemon.socket_path) as client:
            for job in jobs.values():
                for kind, more in (("status", {"jobs": [job]}), ("log", {"job": job}), ("wait", {"jobs": [job]}),
                                   ("subscribe", {"jobs": [job]})):  # fmt: skip
                    with self.subTest(kind=kind, job=job), self.assert_refused("unknown_job"):
                        client.call(kind, **more)
            self.assertEqual(client.jobs(), {})

    def test_stats_tell_whose_job_runs_and_no_more(self):
        self.daemon.faults.set_clock_offset(10)  # files as fresh as these are not kept
        self.jobs_in_all_states()
        for user in (self.ann, self.admin):
            with self.subTest(user=user.name), user.connect(self.daemon.socket_path) as client:
                stats = client.call("stats")
                self.assertNotIn(SECRET, json.dumps(stats))
                self.assertEqual(stats["warm_docs"], [])
                self.assertEqual(stats["running_uid"], self.bea.uid)
                self.assertEqual((stats["queued"], stats["running"]), (1, 1))
        self.hold.remove()
        self.of_bea.wait(*self.of_bea.jobs())
        self.assertNotIn(SECRET, json.dumps(self.of_ann.call("stats")))
        self.assertIn(SECRET, json.dumps(self.of_bea.call("stats")["warm_docs"]))  # there is something to hide

    def test_reason_of_a_waiting_job_names_no_path(self):
        self.jobs_in_all_states()
        job = self.of_ann.job(self.submit_as(self.ann, self.of_ann))
        self.assertNotIn(SECRET, json.dumps(job))
        self.assertIn(self.bea.uid, [entry["uid"] for entry in job["jobs_before"]])

    def test_what_the_program_prints_of_everyone(self):
        self.jobs_in_all_states()
        command = [self.daemon.binary, "status", "--everyone", "--socket", self.daemon.socket_path]
        for more in ([], ["--json"], ["--all"]):
            with self.subTest(more=more):
                done = self.ann.run(_captured, [*command, *more])
                self.assertEqual(done[0], 0, done)
                self.assertNotIn(SECRET, done[1])
                self.assertIn("daemon" if "--json" not in more else '"uid"', done[1])


def _captured(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False)
    return done.returncode, done.stdout


class Keys(PrivacyTestCase):
    def test_key_of_another_is_no_key_of_ones_own(self):
        theirs = self.submit_as(self.bea, self.of_bea, key="nightly")
        for more in ({}, {"metric": "cosine"}):  # the same but for the folder, and something else
            reply = self.of_ann.call("submit", key="nightly", spec=self.spec_of(self.ann, "first.pkl"))
            self.assertNotEqual(reply["job"]["id"], theirs)
        self.assertTrue(reply["existed"])  # ann's own, the second time
        own = reply["job"]["id"]
        with self.assert_refused("key_conflict"):
            self.submit_as(self.ann, self.of_ann, "other.pkl", key="nightly")
        self.assert_done_as(self.ann, self.of_ann.wait(own)[own])
        self.assert_done_as(self.bea, self.of_bea.wait(theirs)[theirs])
        # Word for word the same spec, by two users.
        spec = self.spec_of(self.bea, "same.pkl")
        job = self.of_bea.call("submit", key="same", spec=spec)
        copy = self.of_ann.call("submit", key="same", spec=spec)
        self.assertEqual((job["existed"], copy["existed"]), (False, False))
        self.assertNotEqual(job["job"]["id"], copy["job"]["id"])
        self.assertEqual(self.of_ann.wait(copy["job"]["id"])[copy["job"]["id"]]["error_code"], "permission_denied")

    def test_same_key_of_two_users_after_a_crash(self):
        _, hold, _ = self.hold_at_write(self.bea, self.of_bea, "held.pkl")
        jobs = {}
        for user, client in ((self.ann, self.of_ann), (self.bea, self.of_bea)):
            jobs[user.uid] = self.submit_as(user, client, key="both")
        self.daemon.kill(signal.SIGKILL)
        hold.remove()
        wait_for(lambda: not self.daemon.workers(), "the worker's end")
        self.start()
        for user in (self.ann, self.bea):
            with user.connect(self.daemon.socket_path) as client:
                reply = client.call("submit", key="both", spec=self.spec_of(user))
                self.assertEqual((reply["existed"], reply["job"]["id"]), (True, jobs[user.uid]))
                self.assert_done_as(user, client.wait(jobs[user.uid])[jobs[user.uid]])


class State(PrivacyTestCase):
    def test_state_of_the_daemon_is_roots_alone(self):
        job = self.submit_secret()
        self.of_bea.wait(job)
        for folder, folders, files in os.walk(self.daemon.state):
            for name in [*folders, *files]:
                found = os.lstat(os.path.join(folder, name))
                self.assertEqual((found.st_uid, found.st_mode & 0o022), (0, 0), name)
        self.assertEqual(stat.S_IMODE(os.stat(self.daemon.state).st_mode), 0o700)

        def look():
            worked = []
            for name in ("", "logs", f"logs/{job}.log", "journal.db", "journal.db-wal", "reserve", "lock"):
                path = os.path.join(self.daemon.state, name)
                for attempt in (os.listdir, os.stat, open, os.unlink, lambda path: open(path, "ab")):
                    try:
                        attempt(path)
                        worked.append((name, attempt))
                    except OSError:
                        pass
            return [str(item) for item in worked if item[0] or item[1] is not os.stat]

        for user in (self.ann, self.admin, self.bea):
            self.assertEqual(user.run(look), [], user.name)

    def test_log_of_a_daemon_in_the_background_is_roots_alone(self):
        self.daemon.stop()
        self.daemon.spawn("--background")
        self.assertEqual(self.daemon.process.wait(30), 0, self.daemon.messages())
        log = os.path.join(self.daemon.state, "daemon.log")
        found = os.stat(log)
        self.assertEqual((found.st_uid, stat.S_IMODE(found.st_mode)), (0, 0o600))
        with Client(self.daemon.socket_path) as client:
            client.call("shutdown")
        wait_for(lambda: not self.daemon.processes(), "the daemon's end")

    def test_socket_is_for_the_group_in_a_folder_of_roots(self):
        found = os.stat(self.daemon.socket_path)
        self.assertEqual((found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)), (0, GROUP, 0o660))
        folder = os.stat(os.path.dirname(self.daemon.socket_path))
        self.assertEqual((folder.st_uid, stat.S_IMODE(folder.st_mode)), (0, 0o755))
        lock = os.stat(self.daemon.socket_path + ".lock")
        self.assertEqual((lock.st_uid, stat.S_IMODE(lock.st_mode)), (0, 0o600))
        self.assertNotEqual(GROUP, ADMIN_GROUP)

    def test_messages_of_the_daemon_name_no_users_path(self):
        """Whoever reads the system's journal learns who ran when, not what."""
        jobs = self.jobs_in_all_states()
        self.daemon.kill_worker(self.worker)
        self.hold.remove()
        self.of_bea.wait(*jobs.values())
        self.assertNotIn(SECRET, self.daemon.messages())


if __name__ == "__main__":
    unittest.main()
