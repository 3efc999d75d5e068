"""Ending by a signal: the codes, at once while nothing is half done, and processes that leave it to their parent.

Imports the standard library only, so that a program can be left while the others are being imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# SLURM announces the end of a job with SIGUSR1, and a terminal that is gone its own with SIGHUP.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143, signal.SIGHUP: 129}
SIGNALS = tuple(EXIT_CODES)


def heard(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Has a handler called for each signal from now on; returns the handlers before it, for `given_back`.

    What `nohup` ignores stays ignored. Beside the main thread nothing happens: signals are for who has that.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return {each: signal.signal(each, handler) for each in SIGNALS if not (ignored and each == signal.SIGHUP)}


def given_back(before: dict[signal.Signals, Any]) -> None:
    """Puts back what `heard` has returned."""
    for signum, handler in before.items():
        signal.signal(signum, handler)


@contextlib.contextmanager
def left_at_once() -> Iterator[None]:
    """Within the block a signal that nothing else hears ends the program with its code, and without a traceback.

    Files are written whole or not at all, so that there is nothing to finish.
    """
    before = heard(_leave)
    try:
        yield
    finally:
        given_back(before)


def _leave(signum: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # nobody may listen any more, or be in the middle of a line
        sys.stdout.flush()
        os.write(2, f"\nstopped by {signal.Signals(signum).name}\n".encode())
    os._exit(EXIT_CODES[signal.Signals(signum)])  # an exception could be lost in what is being imported


def let_go() -> None:
    """Takes output nowhere, unless it goes to a file: a terminal that is gone would be an error at the next word."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait until the block is over; processes that are begun in it do not hear them at all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def only_end_by(parent: int) -> None:
    """Within a process that works for another: it leaves signals to that one, and ends when that one asks for it.

    A terminal and SLURM send theirs to all processes at once, and a worker that is gone would be the end of its run.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for, args=(parent,), daemon=True).start()


def _wait_for(parent: int) -> None:
    if hasattr(signal, "sigwaitinfo"):
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
    else:  # macOS does not tell who has sent one
        signal.sigwait({signal.SIGTERM})
    os._exit(0)
