"""Two daemons for one socket or one state folder: there is one at a time, and a lock says which."""

import os
import signal
import socket
import stat
import unittest

from daemon_client import Disconnected
from daemon_harness import DaemonTestCase, exists, wait_for

ROUNDS = 12
RACERS = 4


class OneDaemon(DaemonTestCase):
    interposed = False
    num_queries, num_docs, dim = 8, 60, 8

    def rival(self, same_socket=True, same_state=True):
        """Another daemon that would use the same paths."""
        rival = self.new_daemon()
        if same_socket:
            rival.socket_path = self.daemon.socket_path
        if same_state:
            rival.state = self.daemon.state
        return rival

    def assert_turned_away(self, rival, *words):
        self.assertEqual(rival.process.wait(60), 2, rival.messages())
        message = rival.messages().strip().splitlines()[-1]
        for word in ("in use", *words):
            self.assertIn(word, message)

    def race(self, **same):
        """Starts several at once, again and again; exactly one serves, whatever was left by the last."""
        winners = set()
        for number in range(ROUNDS):
            racers = [self.daemon] + [self.rival(**same) for _ in range(RACERS - 1)]
            for racer in racers:
                racer.spawn()
            wait_for(lambda: sum(racer.process.poll() is None for racer in racers) == 1, "one winner")
            winner = next(racer for racer in racers if racer.process.poll() is None)
            for racer in racers:
                if racer is not winner:
                    self.assert_turned_away(racer)
            wait_for(lambda: self.answers(winner), "an answer of the winner")
            with winner.client() as client:
                self.assertEqual(client.call("stats")["pid"], winner.pid)
                self.assert_works(client)
            winners.add(racers.index(winner))
            if number % 2 == 0:
                winner.kill()  # leaves its socket behind
                self.assertTrue(os.path.exists(winner.socket_path))
            else:
                winner.stop()
                self.assertFalse(os.path.exists(winner.socket_path), "a daemon that ends in peace removes its socket")
            for racer in racers[1:]:
                racer.close()
        print(f"{ROUNDS} races of {RACERS}, winners {sorted(winners)}")

    @staticmethod
    def answers(daemon):
        try:
            daemon.client().close()
            return True
        except Disconnected:
            return False

    def test_race_for_socket_and_state_has_one_winner(self):
        self.race()

    def test_race_for_socket_has_one_winner(self):
        self.race(same_state=False)

    def test_race_for_state_has_one_winner(self):
        self.race(same_socket=False)

    def test_stopped_daemon_is_not_displaced(self):
        self.daemon.start()
        with self.daemon.client() as client:
            self.daemon.process.send_signal(signal.SIGSTOP)
            try:
                for same in ({}, {"same_state": False}, {"same_socket": False}):
                    rival = self.rival(**same)
                    rival.spawn()
                    self.assert_turned_away(rival, str(self.daemon.pid))
            finally:
                self.daemon.process.send_signal(signal.SIGCONT)
            self.assertEqual(client.call("stats")["pid"], self.daemon.pid)
            self.assert_works(client)
        with self.daemon.client() as client:
            self.assertEqual(client.call("stats")["pid"], self.daemon.pid)

    def test_stale_socket_is_replaced(self):
        os.makedirs(os.path.dirname(self.daemon.socket_path), 0o700)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(self.daemon.socket_path)
        self.assertTrue(stat.S_ISSOCK(os.stat(self.daemon.socket_path).st_mode))
        self.daemon.start()
        self.assert_works()

    def test_file_in_the_place_of_the_socket_is_left_alone(self):
        os.makedirs(os.path.dirname(self.daemon.socket_path), 0o700)
        with open(self.daemon.socket_path, "w") as file:
            file.write("mine")
        self.assertEqual(self.daemon.spawn().wait(60), 2)
        self.assertIn(self.daemon.socket_path, self.daemon.messages())
        with open(self.daemon.socket_path) as file:
            self.assertEqual(file.read(), "mine")

    def test_ending_daemon_leaves_a_socket_of_somebody_else_alone(self):
        self.daemon.start()
        os.unlink(self.daemon.socket_path)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.daemon.socket_path)
            self.daemon.stop()
            self.assertTrue(os.path.exists(self.daemon.socket_path))

    def test_folder_that_others_may_write_is_refused(self):
        os.makedirs(os.path.dirname(self.daemon.socket_path))
        os.chmod(os.path.dirname(self.daemon.socket_path), 0o777)
        self.assertEqual(self.daemon.spawn().wait(60), 2)
        self.assertIn("chmod", self.daemon.messages())

    def test_worker_does_not_keep_the_locks(self):
        """A lock that a worker had inherited would outlive the daemon for as long as the worker."""
        self.daemon.start()
        self.assert_works()
        workers = self.daemon.workers()
        self.assertEqual(len(workers), 1)
        os.kill(workers[0], signal.SIGSTOP)
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.start()
        self.assertFalse(exists(workers[0]), "a stopped worker outlives its daemon")


if __name__ == "__main__":
    unittest.main()
