"""Who may do what, and by which sign the daemon knows him: the kernel's word when he connected."""

import contextlib
import os
import socket
import stat
import struct
import sys
import unittest

sys.path.insert(0, "tests/daemon")
from daemon_client import Client, Disconnected, Refused
from daemon_harness import wait_for
from users_harness import UsersTestCase


def lend(client, user, function):
    """function(client) in a process of the user's that has inherited the connection; what it returns."""
    return user.run(function, client) if user is not None else function(client)


class AuthorityTestCase(UsersTestCase):
    def setUp(self):
        super().setUp()
        self.of_ann = self.connect(self.ann)
        self.of_bea = self.connect(self.bea)
        self.of_admin = self.connect(self.admin)
        self.of_root = self.daemon.client()
        self.addCleanup(self.of_root.close)


class Requests(AuthorityTestCase):
    def test_jobs_of_another_are_cancelled_by_administrators_and_root_only(self):
        for who, client in (("admin", self.of_admin), ("root", self.of_root)):
            with self.subTest(who=who):
                running, hold, _ = self.hold_at_write(self.bea, self.of_bea, "running.pkl")
                queued = self.submit_as(self.bea, self.of_bea, "queued.pkl")
                for job in (running, queued):
                    with self.assert_refused("unknown_job"):
                        self.of_ann.call("cancel", jobs=[job])
                self.assertEqual(self.of_bea.job(queued)["state"], "queued")
                self.assertEqual(self.of_bea.job(running)["state"], "running")
                reply = client.call("cancel", jobs=[running, queued])
                if who == "admin":
                    for job in reply["jobs"]:
                        self.assertIs(job["redacted"], True)
                        self.assertFalse(job["docs_path"] or job["output_path"])
                hold.remove()
                for job in self.of_bea.wait(running, queued).values():
                    self.assertEqual(job["state"], "cancelled", job)
        self.assert_works_for(self.bea, self.of_bea)
        with self.assert_refused("unknown_job"):
            self.of_admin.call("cancel", jobs=[999])

    def test_plain_users_neither_drain_nor_shut_down(self):
        for kind, more in (("drain", {}), ("drain", {"undo": True}), ("shutdown", {}), ("shutdown", {"now": True})):
            with self.subTest(kind=kind, more=more), self.assert_refused("not_allowed"):
                self.of_ann.call(kind, **more)
        job, hold, _ = self.hold_at_write(self.bea, self.of_bea)
        self.of_admin.call("drain")
        for undo in (True, False):
            with self.assert_refused("not_allowed"):
                self.of_ann.call("drain", undo=undo)
        self.assertTrue(self.of_ann.call("stats")["draining"])
        hold.remove()
        self.assertEqual(self.daemon.process.wait(20), 0)

    def test_administrator_drains_and_shuts_down(self):
        job, hold, _ = self.hold_at_write(self.bea, self.of_bea)
        self.of_admin.call("drain")
        with self.assert_refused("draining"):
            self.submit_as(self.ann, self.of_ann)
        self.of_admin.call("drain", undo=True)
        waiting = self.submit_as(self.ann, self.of_ann)
        self.of_admin.call("shutdown", now=True)
        self.assertEqual(self.daemon.process.wait(20), 0)
        hold.remove()
        self.start()
        with self.bea.connect(self.daemon.socket_path) as client:
            self.assert_done_as(self.bea, client.wait(job)[job])
        with self.ann.connect(self.daemon.socket_path) as client:
            self.assert_done_as(self.ann, client.wait(waiting)[waiting])

    def test_clean_forgets_no_job_of_another(self):
        theirs = self.submit_as(self.bea, self.of_bea, "theirs.pkl")
        own = self.submit_as(self.ann, self.of_ann, "own.pkl")
        self.of_bea.wait(theirs)
        self.of_ann.wait(own)
        self.assertEqual(self.of_admin.call("clean")["removed"], 0)
        self.assertEqual(self.of_ann.call("clean")["removed"], 1)
        self.assertEqual(set(self.of_bea.jobs()), {theirs})
        self.assertIn("text", self.of_bea.call("log", job=theirs))
        self.assertEqual(self.of_ann.jobs(), {})

    def test_uid_in_a_request_is_no_ones_identity(self):
        """Members that claim to be somebody are ignored."""
        claims = {"uid": self.bea.uid, "user": "daemon", "gid": 0, "everyone": True, "admin": True, "redacted": False}
        job = self.submit_as(self.bea, self.of_bea)
        for kind, more in (("status", {"jobs": [job]}), ("log", {"job": job}), ("cancel", {"jobs": [job]})):
            with self.subTest(kind=kind), self.assert_refused("unknown_job"):
                self.of_ann.call(kind, **{**claims, **more})
        own = self.of_ann.call("submit", key="claims", spec=self.spec_of(self.ann), **claims)["job"]
        self.assertEqual(own["uid"], self.ann.uid)
        self.of_bea.wait(job)
        self.assert_done_as(self.ann, self.of_ann.wait(own["id"])[own["id"]])


class Connections(AuthorityTestCase):
    def test_users_outside_of_the_group_are_refused(self):
        """By the socket's mode, and by the daemon should somebody have opened that."""
        self.ann.groups = []
        with self.assertRaises(Disconnected) as caught:
            self.ann.connect(self.daemon.socket_path)
        self.assertIsInstance(caught.exception.__cause__, PermissionError)
        os.chmod(self.daemon.socket_path, 0o666)
        try:
            for groups in ([], [60], [0], list(range(1000, 1060))):
                with self.subTest(groups=groups):
                    self.ann.groups = groups
                    with self.ann.connect(self.daemon.socket_path, hello=False) as client:
                        error = client.read_message(10)["error"]
                    self.assertEqual(error["code"], "not_allowed")
                    self.assertIn("group 100", error["message"])
                    self.assertNotIn("\n", error["message"])
            # More groups than fit a small answer, the right one among them.
            self.ann.groups = [*range(1000, 3000), 100, *range(3000, 4000)]
            self.ann.connect(self.daemon.socket_path).close()
            # The group may also be the process's own.
            self.ann.groups, gid, self.ann.gid = [], self.ann.gid, 100
            self.ann.connect(self.daemon.socket_path).close()
            self.ann.gid = gid
            # Refused ones can do nothing, whatever they send before they are told.
            raw = self.ann.connect(self.daemon.socket_path, hello=False)
            with contextlib.suppress(Disconnected):
                raw.send("hello", protocol=[1, 1])
                raw.send("submit", key="refused", spec=self.spec_of(self.ann))
                raw.send("shutdown")
            with self.assertRaises(Disconnected):
                while True:
                    self.assertIn("error", raw.read_message(10))
            raw.close()
        finally:
            os.chmod(self.daemon.socket_path, 0o660)
        self.assertEqual(self.of_ann.jobs(), {})
        self.assert_works_for(self.bea, self.of_bea)

    def test_connection_is_whose_it_was_when_it_was_made(self):
        """Passed on, it serves its maker; whoever holds it gains or loses nothing by what he is."""
        job, hold, _ = self.hold_at_write(self.bea, self.of_bea)

        def status(client):
            return client.job(job)["uid"]

        def drain(client):
            return client.call("drain")

        # bea's connection in ann's hands shows bea's job, as if bea had told it her; ann's own in hers does not.
        self.assertEqual(lend(self.of_bea, self.ann, status), self.bea.uid)
        self.of_bea.last_id += 1
        with self.assertRaises(Exception):
            lend(self.of_ann, self.ann, status)
        self.of_ann.last_id += 1
        # root with ann's connection is ann.
        with self.assert_refused("not_allowed"):
            drain(self.of_ann)
        with self.assert_refused("unknown_job"):
            status(self.of_ann)
        # A process of root's that connects and becomes ann afterwards has connected as root.
        with Client(self.daemon.socket_path) as of_root:
            self.assertEqual(lend(of_root, self.ann, status), self.bea.uid)

        # One that has become ann and connects is ann, whatever it was; with what it inherited it is no more.
        def connect_and_drain(path):
            with Client(path) as client:
                try:
                    client.call("drain")
                except Refused as error:
                    return error.code
            return "drained"

        self.assertEqual(self.ann.run(connect_and_drain, self.daemon.socket_path), "not_allowed")
        hold.remove()
        self.assert_done_as(self.bea, self.of_bea.wait(job)[job])

    def test_membership_is_that_at_the_connect(self):
        """Who leaves the group keeps what is open; who enters it has to connect again."""
        self.ann.groups = []
        os.chmod(self.daemon.socket_path, 0o666)
        refused = self.ann.connect(self.daemon.socket_path, hello=False)
        os.chmod(self.daemon.socket_path, 0o660)
        with self.assertRaises((Refused, Disconnected)):
            refused.call("hello", protocol=[1, 1])
        refused.close()
        self.assertEqual(self.of_ann.jobs(), {})  # connected before
        with self.assert_refused("not_allowed"):
            self.of_bea.call("drain")

    def test_descriptors_passed_to_the_daemon_are_closed(self):
        def count():
            return len(os.listdir(f"/proc/{self.daemon.pid}/fd"))

        self.of_ann.call("stats")
        before = count()
        for message in (b"", b'{"id":', b'{"id":900,"type":"stats"}\n', b"garbage\n"):
            with self.subTest(message=message), self.ann.connect(self.daemon.socket_path) as client:
                reading, writing = os.pipe()
                fds = struct.pack("i", writing) * 100
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
                client.socket.sendmsg([message or b" "], rights)
                os.close(writing)
                client.send_bytes(b"\n" if not message.endswith(b"\n") else b"")
                with contextlib.suppress(Disconnected, TimeoutError):
                    client.read_message(5)
                # The write end is open nowhere: the pipe has ended.
                os.set_blocking(reading, False)
                self.assertEqual(os.read(reading, 1), b"")
                os.close(reading)
        wait_for(lambda: count() == before, "the daemon's descriptors being what they were")
        self.assert_works_for(self.bea, self.of_bea)

    def test_credentials_sent_along_are_not_looked_at(self):
        """SCM_CREDENTIALS of root's, as root may send them over ann's connection."""
        with self.ann.connect(self.daemon.socket_path) as client:
            credentials = struct.pack("iII", os.getpid(), 0, 0)
            rights = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)]
            client.last_id = 7
            client.socket.sendmsg([b'{"id":7,"type":"drain"}\n'], rights)
            with self.assert_refused("not_allowed"):
                client.reply(7)


class Sockets(AuthorityTestCase):
    def test_daemon_has_no_abstract_socket(self):
        """Those have neither owner nor mode."""
        inodes = set()
        for name in os.listdir(f"/proc/{self.daemon.pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{self.daemon.pid}/fd/{name}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
        with open("/proc/net/unix") as file:
            paths = [fields[7] for fields in map(str.split, file) if len(fields) > 7 and fields[6] in inodes]
        self.assertIn(self.daemon.socket_path, paths)
        self.assertEqual([path for path in paths if path.startswith("@")], [])
        # Nor any that the network reaches.
        for table in ("tcp", "tcp6", "udp", "udp6", "netlink", "packet", "raw"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{table}") as file:
                self.assertEqual([line for line in file if inodes & set(line.split())], [])

    def test_nobody_can_put_a_socket_of_his_own_in_the_daemons_place(self):
        path = self.daemon.socket_path
        folder = os.path.dirname(path)

        def squat():
            worked = []

            def bind(name):
                with socket.socket(socket.AF_UNIX) as server:
                    server.bind(name)

            attempts = {
                "unlink": lambda: os.unlink(path),
                "rename": lambda: os.rename(path, path + ".old"),
                "bind": lambda: bind(path),
                "bind beside": lambda: bind(path + ".new"),
                "chmod": lambda: os.chmod(path, 0o777),
                "chown": lambda: os.chown(path, os.getuid(), -1),
                "rename the folder": lambda: os.rename(folder, folder + ".old"),
                "remove the lock": lambda: os.unlink(path + ".lock"),
                "open the lock": lambda: os.open(path + ".lock", os.O_RDONLY),
                "link": lambda: os.symlink("/nowhere", path + ".link"),
            }
            for name, attempt in attempts.items():
                try:
                    attempt()
                    worked.append(name)
                except OSError:
                    pass
            return worked

        for user in (self.ann, self.admin):
            self.assertEqual(user.run(squat), [], user.name)
        # Not even after the daemon's death.
        self.daemon.kill()
        self.assertEqual(self.ann.run(squat), [])
        self.start()
        self.assert_works_for(self.bea)

    def test_daemon_does_not_listen_where_another_could_take_its_place(self):
        self.daemon.stop()
        taken = os.path.join(self.daemon.folder, "taken")
        for owner, mode, words in ((self.ann.uid, 0o755, "belongs to user 5"), (0, 0o777, "others may write")):
            with self.subTest(owner=owner, mode=oct(mode)):
                os.mkdir(taken)
                os.chown(taken, owner, -1)
                os.chmod(taken, mode)
                self.daemon.spawn("--socket", os.path.join(taken, "d.sock"))
                self.assertNotEqual(self.daemon.process.wait(20), 0)
                self.assertIn(words, self.daemon.messages())
                self.assertEqual([name for name in os.listdir(taken) if not name.endswith(".lock")], [])
                os.rmdir(taken)
        # Nor does it keep its state there.
        os.mkdir(taken)
        os.chown(taken, self.ann.uid, -1)
        self.daemon.spawn("--state-dir", taken)
        self.assertNotEqual(self.daemon.process.wait(20), 0)
        os.rmdir(taken)
        self.assertTrue(stat.S_ISDIR(os.stat(self.daemon.state).st_mode))


if __name__ == "__main__":
    unittest.main()
