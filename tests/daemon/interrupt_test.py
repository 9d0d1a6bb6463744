"""A job cancelled, and a daemon terminated, at every step of a job's life."""

import os
import signal
import unittest

import fault_rules
from daemon_harness import DaemonTestCase, wait_for
from fault_rules import WORKER
from transitions import AT_END, TRANSITIONS, hold_at


class Interrupted(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("out"))
        self.number = 0

    def at_every_place(self, interrupt):
        """Calls interrupt(client, id of the submit request, rule) with a process held at each place."""
        for transition, places in TRANSITIONS.items():
            for place in places:
                if place is not None:
                    with self.subTest(transition=transition, place=place):
                        try:
                            self.at_place(transition, place, interrupt)
                        except BaseException as error:
                            error.add_note(self.daemon.messages()[-2000:])
                            self.daemon.close()
                            self.daemon = self.new_daemon()
                            raise

    def at_place(self, transition, place, interrupt):
        daemon = self.daemon
        if daemon.process is None or daemon.process.poll() is not None:
            daemon.start("--grace", 0)
        for worker in daemon.workers():
            if transition == "spawned":
                os.kill(worker, signal.SIGKILL)
                wait_for(lambda gone=worker: not os.path.exists(f"/proc/{gone}"), "the worker being reaped")
        self.number += 1
        with daemon.client() as client:
            at_end = transition == AT_END
            first = (WORKER, fault_rules.RENAME, {"path": "*.pkl", "after": True}) if at_end else place
            rule = hold_at(daemon.faults, first, self.path("out"))
            spec = self.spec(f"out/{self.number}.pkl")
            request = client.send("submit", key=f"key-{self.number}", spec=spec, shape=self.shape())
            rule.wait(timeout=30)
            if at_end:
                renamed, rule = rule, hold_at(daemon.faults, place, self.path("out"))
                renamed.remove()
                rule.wait(timeout=30)
            interrupt(client, request, rule)
        left = [name for name in os.listdir(self.path("out")) if name.endswith(".tmp")]
        self.assertEqual(left, [])

    def cancel(self, client, request, rule):
        supervisor_held = rule.pid == self.daemon.pid
        if supervisor_held:
            rule.remove()
        job = client.reply(request)["job"]["id"]
        client.call("cancel", jobs=[job])
        rule.remove()
        found = client.wait(job)[job]
        self.assertIn(found["state"], ("done", "cancelled"), found)
        self.ends.append(found["state"])
        if found["state"] == "done":
            self.assert_done(found)
        else:
            self.assertEqual(found["error_code"], "cancelled", found)
        # Cancelled again, it stays as it is.
        self.assertEqual(client.call("cancel", jobs=[job])["jobs"][0]["state"], found["state"])
        self.assert_works(client)

    def test_cancelled_at_every_step(self):
        self.ends = []
        self.at_every_place(self.cancel)
        print(f"{self.ends.count('cancelled')} of {len(self.ends)} jobs were cancelled in time")
        self.assertGreater(self.ends.count("cancelled"), 5)
        # Who gives up in peace is not killed: only the workers of "spawned" were, and those that had not begun.
        self.assertLess(self.daemon.faults.workers_started, 3 * len(TRANSITIONS["spawned"]))

    def terminate(self, client, request, rule):
        self.daemon.process.send_signal(signal.SIGTERM)
        client.close()  # it would be given a second to read the farewell
        if rule.pid == self.daemon.pid:
            rule.remove()
        self.assertEqual(self.daemon.process.wait(30), 0)
        rule.remove()
        self.assert_no_orphans()
        self.daemon.start("--grace", 0)
        with self.daemon.client() as again:
            spec = self.spec(f"out/{self.number}.pkl")
            reply = again.call("submit", key=f"key-{self.number}", spec=spec, shape=self.shape())
            job = reply["job"]["id"]
            found = again.wait(job)[job]
            self.assert_done(found)
            self.attempts.append(found["attempt"])

    def test_terminated_at_every_step(self):
        self.attempts = []
        self.at_every_place(self.terminate)
        print(f"attempts of {len(self.attempts)} jobs: {self.attempts}")
        self.daemon.stop()
        rows = self.daemon.journal("SELECT key, state, crashes FROM jobs WHERE key LIKE 'key-%'")
        self.assertEqual({row[1:] for row in rows}, {("done", 0)}, "a termination is no crash of a job")
        self.assertEqual(len(rows), self.number)


if __name__ == "__main__":
    unittest.main()
