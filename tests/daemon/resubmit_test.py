"""One key, one job: submitted twice, at once from many sides, and again after a crash."""

import signal
import threading
import unittest

import fault_rules
from daemon_client import Disconnected, Refused
from daemon_harness import DaemonTestCase
from fault_rules import HOLD, SUPERVISOR, WORKER


class Resubmit(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def request(self, key="the-key", output="out.pkl", **more):
        return {"key": key, "spec": self.spec(output), "shape": self.shape(), **more}

    def test_same_key_is_the_same_job_while_it_waits_runs_and_is_done(self):
        self.daemon.start()
        with self.daemon.client() as client, self.daemon.client() as other:
            hold = self.daemon.faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl")
            first = client.call("submit", **self.request("first"))
            hold.wait()
            waits = client.call("submit", **self.request("waits", "waits.pkl"))
            self.assertFalse(first["existed"] or waits["existed"])
            for key, output, reply, state in (("first", "out.pkl", first, "running"), ("waits", "waits.pkl", waits, "queued")):
                for again in (client, other):
                    second = again.call("submit", **self.request(key, output))
                    self.assertTrue(second["existed"])
                    self.assertEqual((second["job"]["id"], second["job"]["state"]), (reply["job"]["id"], state))
            hold.remove()
            client.wait(first["job"]["id"], waits["job"]["id"])
            done = client.call("submit", **self.request("first"))
            self.assertTrue(done["existed"])
            self.assertEqual((done["job"]["id"], done["job"]["state"], done["job"]["attempt"]), (first["job"]["id"], "done", 1))
            self.assertEqual(len(client.jobs()), 2)

    def test_same_key_with_another_spec_is_refused(self):
        self.daemon.start()
        with self.daemon.client() as client:
            job = client.call("submit", **self.request())["job"]["id"]
            with self.assert_refused("key_conflict"):
                client.call("submit", **self.request(output="another.pkl"))
            client.wait(job)
            with self.assert_refused("key_conflict"):
                client.call("submit", **self.request(output="another.pkl"))
            self.assertEqual(len(client.jobs()), 1)

    def test_many_submit_the_same_key_at_once(self):
        self.daemon.start()
        replies, errors = [], []
        ready = threading.Barrier(8)

        def submit():
            try:
                with self.daemon.client() as client:
                    for number in range(20):
                        ready.wait(30)
                        replies.append((number, client.call("submit", **self.request(f"key-{number}", f"{number}.pkl"))))
            except BaseException as error:
                errors.append(error)
                ready.abort()

        threads = [threading.Thread(target=submit) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        for number in range(20):
            of_key = [reply for which, reply in replies if which == number]
            self.assertEqual(len(of_key), 8)
            self.assertEqual(len({reply["job"]["id"] for reply in of_key}), 1)
            self.assertEqual(sum(not reply["existed"] for reply in of_key), 1, "one submission makes the job")
        with self.daemon.client() as client:
            jobs = client.jobs()
            self.assertEqual(len(jobs), 20)
            for job in client.wait(*jobs).values():
                self.assertEqual((job["state"], job["attempt"]), ("done", 1))

    def test_same_key_twice_in_one_breath(self):
        """Both requests are decoded before either is in the journal."""
        self.daemon.start()
        with self.daemon.client() as client:
            numbers = [client.send("submit", **self.request()) for _ in range(50)]
            replies = [client.reply(number) for number in numbers]
            self.assertEqual(len({reply["job"]["id"] for reply in replies}), 1)
            self.assertEqual([reply["existed"] for reply in replies], [False] + [True] * 49)

    def test_same_key_across_crashes_before_and_after_the_commit(self):
        wal = "*/journal.db-wal"
        for number, (what, committed, rule) in enumerate(
            (
                ("read", False, (SUPERVISOR, fault_rules.RECEIVE, HOLD, "", '"submit"', True)),
                ("not yet written", False, (SUPERVISOR, fault_rules.WRITE, HOLD, wal, "", False)),
                ("not yet synced", False, (SUPERVISOR, fault_rules.SYNC, HOLD, wal, "", False)),
                ("synced", True, (SUPERVISOR, fault_rules.FORK, HOLD, "", "", False)),
                ("about to be acknowledged", True, (SUPERVISOR, fault_rules.SEND, HOLD, "", '"existed"', False)),
                ("acknowledged", True, (SUPERVISOR, fault_rules.SEND, HOLD, "", '"existed"', True)),
            )
        ):
            with self.subTest(what=what):
                self.daemon.close()
                self.daemon = self.new_daemon().start()
                process, calls, action, path, text, after = rule
                held = self.daemon.faults.rule(process, calls, action, path=path, text=text, after=after)
                request = self.request(f"key-{number}", f"{number}.pkl")
                with self.daemon.client() as client:
                    sent = client.send("submit", **request)
                    held.wait()
                    self.daemon.process.send_signal(signal.SIGKILL)
                    self.daemon.process.wait()
                    acknowledged = None
                    try:
                        acknowledged = client.reply(sent)["job"]["id"]
                    except Disconnected:
                        pass
                    self.assertEqual(acknowledged is not None, what == "acknowledged")
                self.daemon.faults.clear()
                self.daemon.start()
                with self.daemon.client() as client:
                    again = client.call("submit", **request)
                    self.assertEqual(again["existed"], committed)
                    if acknowledged is not None:
                        self.assertEqual(again["job"]["id"], acknowledged)
                    self.assert_done(client.wait(again["job"]["id"])[again["job"]["id"]])
                    self.assertTrue(client.call("submit", **request)["existed"])
                    with self.assert_refused("key_conflict"):
                        client.call("submit", **self.request(f"key-{number}", "another.pkl"))
                    self.assertEqual(len(client.jobs()), 1)

    def test_a_refused_submission_does_not_take_the_key(self):
        self.daemon.start()
        with self.daemon.client() as client:
            client.call("drain")
            with self.assertRaises((Refused, Disconnected)):
                client.call("submit", **self.request())
        self.daemon.process.wait(30)  # drained: nothing was left to do
        self.daemon.start()
        with self.daemon.client() as client:
            self.assertFalse(client.call("submit", **self.request())["existed"])


if __name__ == "__main__":
    unittest.main()
