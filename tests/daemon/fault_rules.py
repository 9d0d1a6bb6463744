"""Rules for the fault interposer: the same file as fault_rules.h, written and read by a test."""

import errno
import mmap
import struct
import time

SUPERVISOR, WORKER, FORKED = 1, 2, 4

OPEN, WRITE, SYNC, TRUNCATE, ALLOCATE, RENAME, UNLINK, SEND, RECEIVE = (1 << i for i in range(9))
ACCEPT, FORK, EXEC, SOCKET_PAIR, MAKE_FOLDER, START = (1 << i for i in range(9, 15))

COUNT, FAIL, SHORT, HOLD, KILL, STOP, ABORT, DELAY, SKIP = range(9)

ALWAYS = 1 << 62

_MAGIC = b"knnfaul1"
_HEADER = struct.Struct("<8sqqqq")
_RULE = struct.Struct("<iiIiiiqqqqqq512s64s")
_RULES = 32
_SEEN, _FIRED, _PID = 48, 56, 64  # offsets in a rule


class Rule:
    """One rule that is in force; remove() ends it and lets go of who is held by it."""

    def __init__(self, faults, index, action):
        self._faults = faults
        self._at = _HEADER.size + index * _RULE.size
        self._action = action

    def _number(self, offset):
        return struct.unpack_from("<q", self._faults.map, self._at + offset)[0]

    @property
    def seen(self):
        """How many calls have matched."""
        return self._number(_SEEN)

    @property
    def fired(self):
        """On how many of them the rule has acted."""
        return self._number(_FIRED)

    @property
    def pid(self):
        """The process on which it acted last."""
        return self._number(_PID)

    @property
    def active(self):
        return struct.unpack_from("<i", self._faults.map, self._at)[0] != 0

    def remove(self):
        struct.pack_into("<i", self._faults.map, self._at, 0)

    def wait(self, times=1, timeout=60, meanwhile=lambda: None):
        """Waits until the rule has acted so often; meanwhile() may raise to give up."""
        deadline = time.monotonic() + timeout
        while self.fired < times:
            meanwhile()
            if time.monotonic() > deadline:
                raise AssertionError(f"the rule did not act {times} times in {timeout} s: {self.seen} calls matched")
            time.sleep(0.001)


class Faults:
    """The file at `path`, made anew."""

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as file:
            file.write(_HEADER.pack(_MAGIC, 0, 0, 0, 0) + bytes(_RULES * _RULE.size))
            file.flush()
            self.map = mmap.mmap(file.fileno(), 0)
        self._next = 0

    def close(self):
        if not self.map.closed:
            self.clear()
            self.map.close()

    def rule(self, processes, calls, action, path="", text="", first=1, last=None, after=False, error=0, amount=0):
        """Puts a rule into force: from the `first` matching call to the `last` (nothing: only that one)."""
        for _ in range(_RULES):
            index, self._next = self._next, (self._next + 1) % _RULES
            at = _HEADER.size + index * _RULE.size
            if struct.unpack_from("<i", self.map, at)[0] == 0:
                break
        else:
            raise AssertionError("too many rules")
        last = first if last is None else last
        fields = (processes, calls, action, error, int(after), first, last, amount, 0, 0, 0, path.encode(), text.encode())
        # Cut short, a pattern would match nothing and a fault would never happen.
        assert len(path.encode()) < 512 and len(text.encode()) < 64, (path, text)
        _RULE.pack_into(self.map, at, 0, *fields)
        struct.pack_into("<i", self.map, at, 1)
        return Rule(self, index, action)

    def fail(self, processes, calls, error, **more):
        return self.rule(processes, calls, FAIL, error=error, **more)

    def no_space(self, processes, calls, **more):
        return self.fail(processes, calls, errno.ENOSPC, last=ALWAYS, **more)

    def clear(self):
        for index in range(_RULES):
            struct.pack_into("<i", self.map, _HEADER.size + index * _RULE.size, 0)

    def set_clock_offset(self, seconds):
        struct.pack_into("<q", self.map, 8, int(seconds * 1e9))

    @property
    def workers_started(self):
        return struct.unpack_from("<q", self.map, 32)[0]
