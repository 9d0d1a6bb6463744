"""A search as a Python program wants it: Ctrl-C ends it, other threads go on, and a bar shows how far it is."""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Callable, Union

from . import _capi

Progress = Union[bool, Callable[[int, int], object], None]

_SECONDS_BETWEEN_REPORTS = 0.1
_SECONDS_BEFORE_A_BAR = 0.5


def _bar(total: int, forced: bool):
    """A bar of tqdm's, or None where there is none to show."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if forced:
            raise ImportError("progress=True needs tqdm; install it, or pass a function of (pairs_done, pairs_total)") from None
        return None
    # disable=None: none where standard error is no terminal.
    return tqdm(total=total, unit="pair", unit_scale=True, leave=False, disable=False if forced else None, delay=0 if forced else _SECONDS_BEFORE_A_BAR)


class _Reporter:
    """Tells somebody of progress, from the thread that waits."""

    def __init__(self, control: _capi.Handle, progress: Progress):
        self._control, self._progress, self._bar = control, progress, None

    def __call__(self) -> None:
        done, total = ctypes.c_int64(), ctypes.c_int64()
        _capi.library.tknn_control_progress(self._control, done, total)
        if total.value == 0:
            return
        if callable(self._progress):
            self._progress(done.value, total.value)
            return
        if self._bar is None:
            self._bar = _bar(total.value, self._progress is True)
        if self._bar is not None:
            self._bar.update(done.value - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _wants_reports(progress: Progress) -> bool:
    if progress is None:
        stream = sys.stderr
        return stream is not None and hasattr(stream, "isatty") and stream.isatty()
    return progress is True or callable(progress)


def run(call: Callable[[_capi.Handle], int], progress: Progress = None) -> None:
    """Runs `call`, which takes a control and returns a status, and raises what went wrong.

    Signals reach the main thread only while it runs Python, so there the call has a thread of its own, and this one waits
    for it. What ends the waiting cancels the search and waits for its end, so that its arrays are nobody's but the caller's
    and its temporary files are gone when the exception is seen.
    """
    with _capi.Handle("tknn_control_create") as control:
        reports = _wants_reports(progress)
        if not reports and threading.current_thread() is not threading.main_thread():
            _capi.check(call(control))
            return
        failures: list[BaseException] = []
        finished = threading.Event()

        def work() -> None:
            try:
                _capi.check(call(control))
            except BaseException as failure:  # is the caller's
                failures.append(failure)
            finally:
                finished.set()

        thread = threading.Thread(target=work, name="tiny_knn search")
        reporter = _Reporter(control, progress)
        try:
            thread.start()
            while not finished.wait(_SECONDS_BETWEEN_REPORTS if reports else None):
                reporter()
            if reports and not failures:
                reporter()
        except BaseException:
            _capi.library.tknn_control_cancel(control)
            while thread.ident is not None and not finished.is_set():
                try:
                    finished.wait()
                except KeyboardInterrupt:  # once more: it is ending already
                    pass
            raise
        finally:
            reporter.close()
        thread.join()
        if failures:
            raise failures[0]
