"""SIGKILL at every transition of a job: of the supervisor, of the worker, of both.

A rule of the interposer holds one of the two processes exactly there; then the victims are killed, and the
daemon is started again on the same state if it was among them. After each kill: what was acknowledged is
there under its key, once; a job that was done stays as it was; its output is absent or complete; neither
temporary files nor workers are left. `--kills N` kills N times at each transition.
"""

import contextlib
import os
import random
import signal
import sys
import time
import unittest

import fault_rules
from daemon_harness import FINISHED, DaemonTestCase, exists, wait_for
from fault_rules import HOLD, WORKER
from transitions import AT_END, TRANSITIONS, hold_at

KILLS = 20  # at each transition

VICTIMS = ("supervisor", "worker", "both")


class Kills(DaemonTestCase):
    num_queries, num_docs, dim = 8, 60, 8

    def setUp(self):
        super().setUp()
        self.acknowledged = {}  # key -> id
        self.outputs = {}  # key -> path
        self.done = {}  # key -> (attempt, finished_at) when it was first seen done
        os.mkdir(self.path("out"))

    def run_kills(self, transition):
        places = TRANSITIONS[transition]
        counts = dict.fromkeys(VICTIMS, 0)
        began = time.monotonic()
        for i in range(KILLS):
            if i % 200 == 0:  # fewer jobs than are kept
                self.check_all()
                self.daemon.close()
                self.daemon = self.new_daemon().start()
                self.acknowledged, self.outputs, self.done = {}, {}, {}
            victim = VICTIMS[i % len(VICTIMS)]
            place = places[i // len(VICTIMS) % len(places)]
            try:
                self.kill_once(f"{transition}-{i}", place, victim, transition)
            except BaseException as error:
                error.add_note(f"kill number {i} of the {victim} at {place}\n{self.daemon.messages()[-2000:]}")
                raise
            counts[victim] += 1
        self.check_all()
        print(f"{transition}: {counts} in {time.monotonic() - began:.1f} s, {len(places)} places", flush=True)

    # ---- One kill ----

    def kill_once(self, key, place, victim, transition):
        daemon, faults = self.daemon, self.daemon.faults
        output = f"out/{key}.pkl"
        self.outputs[key] = self.path(output)
        if transition == "spawned":
            self.end_worker()
        client = daemon.client()
        at_end = transition == AT_END
        rule = None
        if at_end:
            renamed = faults.rule(WORKER, fault_rules.RENAME, HOLD, path="*.pkl", after=True)
        elif place is not None:
            rule = hold_at(daemon.faults, place, self.path("out"))
        number = client.send("submit", key=key, spec=self.spec(output), shape=self.shape())
        if at_end:
            # The start is in the journal once the worker works, so the next thing there is the end.
            renamed.wait()
            rule = hold_at(daemon.faults, place, self.path("out"))
            renamed.remove()
        if rule is not None:
            rule.wait(timeout=30)
        # What has been said by now counts, whatever happens next.
        supervisor_held = rule is not None and rule.pid == daemon.pid
        with contextlib.suppress(TimeoutError):
            self.acknowledged[key] = client.reply(number, timeout=0.02 if supervisor_held else 30)["job"]["id"]
        if rule is None:
            client.wait(self.acknowledged[key])
        self.kill_victims(victim, rule)
        faults.clear()
        if victim == "worker":
            self.after_worker_died(client, key, number)
        else:
            daemon.process.wait(30)
            self.assert_no_orphans()
            client.close()
            self.after_supervisor_died(key, output, victim, transition != "accepted")
        client.close()
        self.check_output(key)

    def kill_victims(self, victim, rule):
        pids = []
        if victim != "worker":
            pids.append(self.daemon.pid)
        if victim != "supervisor":
            # Also one between fork and exec.
            pids += [pid for pid in self.daemon.processes() if pid != self.daemon.pid]
        random.Random(len(self.outputs)).shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            if pid != self.daemon.pid:
                # A supervisor that is held cannot reap it.
                wait_for(lambda gone=pid: not exists(gone), "death of the worker")

    def end_worker(self):
        """The next job has to start a worker."""
        for worker in self.daemon.workers():
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda gone=worker: not os.path.exists(f"/proc/{gone}"), "the worker being reaped")

    def after_worker_died(self, client, key, number):
        """The supervisor goes on: the job failed with a reason, or is done; and the next one runs."""
        if key not in self.acknowledged:
            self.acknowledged[key] = client.reply(number)["job"]["id"]
        self.check_end(client, key, may_fail=True)

    def check_end(self, client, key, may_fail):
        """Waits for the job, which must be done, or failed for its worker's death if that may be."""
        job = client.wait(self.acknowledged[key])[self.acknowledged[key]]
        if job["state"] == "failed" and may_fail:
            self.assertEqual(job["error_code"], "aborted", job)
            self.assertIn("killed by signal 9", job["error"])
            # So it is asked for again, as its user would.
            again = client.submit(key + "-again", self.spec(f"out/{key}.pkl"), self.shape())
            self.assert_done(client.wait(again["id"])[again["id"]])
        else:
            self.assert_done(job)
            self.remember_done(key, job)

    def after_supervisor_died(self, key, output, victim, committed):
        """Started again, the daemon knows every job that it has acknowledged, and does it."""
        found = self.check_journal()
        if committed:
            self.assertIn(key, found, "not in the journal, though everything else begins after that")
        if os.path.exists(self.path(output)):
            self.assert_output(output)  # never half a result
        self.daemon.start()
        with self.daemon.client() as client:
            before = self.acknowledged.get(key)
            reply = client.call("submit", key=key, spec=self.spec(output), shape=self.shape())
            if before is not None:
                self.assertTrue(reply["existed"], "an acknowledged job is lost")
                self.assertEqual(reply["job"]["id"], before)
            self.acknowledged[key] = reply["job"]["id"]
            # With both, the supervisor may have lived for the moment in which to see its worker's end.
            self.check_end(client, key, may_fail=victim == "both")

    # ---- What must be true ----

    def remember_done(self, key, job):
        self.done.setdefault(key, (job["attempt"], job["finished_at"]))

    def check_output(self, key):
        with open(self.outputs[key], "rb") as file:
            self.assertTrue(file.read() == self.expected(), self.outputs[key])
        left = [name for name in os.listdir(self.path("out")) if not name.endswith(".pkl")]
        self.assertEqual(left, [], "temporary files are left")
        os.unlink(self.outputs[key])
        with open(self.outputs[key], "w"):
            pass  # a second run of a finished job would be seen: it would write here

    def check_journal(self):
        """Every acknowledged job is in the journal once; returns all by key. REQUIRES: no daemon runs."""
        rows = self.daemon.journal("SELECT key, COUNT(*), MIN(id) FROM jobs GROUP BY key")
        found = {key: (count, number) for key, count, number in rows}
        for key, number in self.acknowledged.items():
            self.assertEqual(found.get(key), (1, number), f"{key} in the journal")
        return found

    def check_all(self):
        """Every job of this daemon's life: there, finished, and done once."""
        if not self.acknowledged:
            return
        with self.daemon.client() as client:
            jobs = client.jobs()
        for key, number in self.acknowledged.items():
            self.assertIn(number, jobs, f"{key} is lost")
            job = jobs[number]
            self.assertIn(job["state"], FINISHED, job)
            if key in self.done:
                self.assertEqual((job["attempt"], job["finished_at"]), self.done[key], f"{key} was done again")
            self.assertEqual(os.path.getsize(self.outputs[key]), 0, f"{key} was written again")
        self.daemon.stop()
        self.check_journal()
        self.daemon.start()


def _make_test(transition):
    return lambda self: self.run_kills(transition)


for name in TRANSITIONS:
    setattr(Kills, f"test_killed_when_{name.replace('-', '_')}", _make_test(name))


if __name__ == "__main__":
    if "--kills" in sys.argv:
        at = sys.argv.index("--kills")
        KILLS = int(sys.argv[at + 1])
        del sys.argv[at : at + 2]
    unittest.main()
