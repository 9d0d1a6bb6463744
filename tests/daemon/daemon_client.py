"""A client of the daemon, written from docs/protocol.md: it shares no code with ours."""

import json
import select
import socket
import time


class Refused(Exception):
    """The daemon's answer was an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.message = error["message"]


class Disconnected(Exception):
    """The daemon closed the connection, or there is none to be had."""


class Client:
    """One connection. Requests may be sent without waiting for their replies, which are kept by id."""

    def __init__(self, path, hello=True, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.timeout = timeout
        self._unread = b""
        self._replies = {}
        self.events = []
        self.last_id = 0
        try:
            self.socket.settimeout(timeout)
            self.socket.connect(path)
            if hello:
                self.hello = self.call("hello", protocol=[1, 1], client="daemon_harness")
        except OSError as error:
            self.socket.close()
            raise Disconnected(str(error)) from error
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def close(self):
        self.socket.close()

    def send_bytes(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Disconnected(str(error)) from error

    def send(self, kind, **members):
        """Sends a request; returns its id."""
        self.last_id += 1
        self.send_bytes(json.dumps({"id": self.last_id, "type": kind, **members}).encode() + b"\n")
        return self.last_id

    def read_line(self, timeout=None):
        """The next line as bytes, without its end. Disconnected at the end of the stream."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            readable = select.poll()  # select() cannot name thousands of descriptors
            readable.register(self.socket, select.POLLIN)
            if left <= 0 or not readable.poll(left * 1000):
                raise TimeoutError("no line from the daemon")
            try:
                data = self.socket.recv(1 << 16)
            except OSError as error:
                raise Disconnected(str(error)) from error
            if not data:
                raise Disconnected("end of stream")
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def read_message(self, timeout=None):
        """One message, put where it belongs; returns it."""
        message = json.loads(self.read_line(timeout))
        if "event" in message:
            self.events.append(message)
        else:
            self._replies.setdefault(message["id"], []).append(message)
        return message

    def reply(self, number, timeout=None):
        """The reply to request `number`; Refused when it is an error."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while number not in self._replies:
            self.read_message(max(0.001, deadline - time.monotonic()))
        reply = self._replies[number].pop(0)
        if not self._replies[number]:
            del self._replies[number]
        if "error" in reply:
            raise Refused(reply["error"])
        return reply

    def call(self, kind, timeout=None, **members):
        return self.reply(self.send(kind, **members), timeout)

    def submit(self, key, spec, shape, **more):
        """Submits; returns the job's object."""
        return self.call("submit", key=key, spec=spec, shape=shape, **more)["job"]

    def job(self, number):
        return self.call("status", jobs=[number])["jobs"][0]

    def wait(self, *numbers, timeout=None):
        """Waits until the jobs are finished; returns their objects by id."""
        return {job["id"]: job for job in self.call("wait", timeout, jobs=list(numbers))["jobs"]}

    def jobs(self):
        """All of this user's jobs by id."""
        found, after = {}, 0
        while True:
            page = self.call("list", after_job=after, limit=1000)
            found.update((job["id"], job) for job in page["jobs"])
            if not page.get("more"):
                return found
            after = max(found)
