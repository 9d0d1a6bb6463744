"""The steps of a job's life, and where the supervisor or its worker can be held in each of them."""

import fault_rules
from fault_rules import FORKED, HOLD, SUPERVISOR, WORKER

_SUPERVISOR_SENDS = fault_rules.SEND | fault_rules.WRITE
_WAL = "*/journal.db-wal"

# Transition -> places to be held at: (process, calls, more of the rule).
TRANSITIONS = {
    "accepted": [
        (SUPERVISOR, fault_rules.RECEIVE, {"text": '"submit"', "after": True}),
        (SUPERVISOR, fault_rules.WRITE, {"path": _WAL}),
        (SUPERVISOR, fault_rules.WRITE, {"path": _WAL, "after": True}),
        (SUPERVISOR, fault_rules.SYNC, {"path": _WAL}),
    ],
    "committed": [
        (SUPERVISOR, _SUPERVISOR_SENDS, {"path": "socket:*", "text": '"type":"run"'}),
        (SUPERVISOR, _SUPERVISOR_SENDS, {"path": "socket:*", "text": '"existed"'}),
        (SUPERVISOR, _SUPERVISOR_SENDS, {"path": "socket:*", "text": '"existed"', "after": True}),
    ],
    "spawned": [
        (SUPERVISOR, fault_rules.FORK, {"after": True}),
        (FORKED, fault_rules.EXEC, {}),
        (WORKER, fault_rules.START, {}),
        (WORKER, fault_rules.SEND | fault_rules.WRITE, {"path": "socket:*", "after": True}),  # hello
        (SUPERVISOR, fault_rules.SEND | fault_rules.WRITE, {"path": "socket:*", "text": '"spec"', "after": True}),
    ],
    "searching": [
        (WORKER, fault_rules.OPEN, {"path": "*/queries.npy", "after": True}),
        (WORKER, fault_rules.OPEN, {"path": "*/docs.npy", "after": True}),
        (WORKER, fault_rules.SEND | fault_rules.WRITE, {"path": "socket:*", "text": '"progress"'}),
    ],
    "writing": [
        (WORKER, fault_rules.OPEN, {"path": "*.tmp", "after": True}),
        (WORKER, fault_rules.ALLOCATE, {"path": "*.tmp", "after": True}),
        (WORKER, fault_rules.WRITE, {"path": "*.tmp"}),
        (WORKER, fault_rules.WRITE, {"path": "*.tmp", "after": True}),
        (WORKER, fault_rules.SYNC, {"path": "*.tmp", "after": True}),
        (WORKER, fault_rules.RENAME, {"path": "*.tmp"}),
    ],
    "renamed": [
        (WORKER, fault_rules.RENAME, {"path": "*.pkl", "after": True}),
        (WORKER, fault_rules.SYNC, {"path": "OUTPUT_FOLDER", "after": True}),
        (WORKER, fault_rules.SEND | fault_rules.WRITE, {"path": "socket:*", "text": '"finished"'}),
    ],
    "done-not-journalled": [
        (WORKER, fault_rules.SEND | fault_rules.WRITE, {"path": "socket:*", "text": '"finished"', "after": True}),
        (SUPERVISOR, fault_rules.RECEIVE, {"path": "socket:*", "text": '"finished"', "after": True}),
        (SUPERVISOR, fault_rules.WRITE, {"path": _WAL}),
        (SUPERVISOR, fault_rules.WRITE, {"path": _WAL, "after": True}),
        (SUPERVISOR, fault_rules.SYNC, {"path": _WAL}),
        (SUPERVISOR, fault_rules.SYNC, {"path": _WAL, "after": True}),
    ],
    "idle": [None],
}

# Its places are to be made ready only when the worker has renamed its output, so that what is written to the
# journal is the job's end.
AT_END = "done-not-journalled"


def hold_at(faults, place, output_folder):
    """A rule that holds the process which gets there."""
    process, calls, more = place
    more = {name: output_folder if value == "OUTPUT_FOLDER" else value for name, value in more.items()}
    return faults.rule(process, calls, HOLD, **more)
