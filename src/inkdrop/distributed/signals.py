"""Exits on signals: the exit codes, an immediate exit while nothing is half done, and workers that ignore signals.

This module imports only the standard library, so that a program can be stopped while other modules are imported.
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

# SLURM announces the end of a job by SIGUSR1, and a closed terminal sends SIGHUP.
EXIT_CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143, signal.SIGHUP: 129}
SIGNALS = tuple(EXIT_CODES)


def install_handler(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Installs a handler for all signals, and returns the previous handlers for `restore_handlers`.

    SIGHUP stays ignored under `nohup`. Outside the main thread nothing happens, because only that can have handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return {each: signal.signal(each, handler) for each in SIGNALS if not (ignored and each == signal.SIGHUP)}


def restore_handlers(before: dict[signal.Signals, Any]) -> None:
    """Restores the handlers that `install_handler` has returned."""
    for signum, handler in before.items():
        signal.signal(signum, handler)


@contextlib.contextmanager
def exit_on_signal() -> Iterator[None]:
    """Ends the program within the block on a signal without another handler, with its exit code and no traceback.

    Files are written completely or not at all, so that nothing has to be finished.
    """
    before = install_handler(_leave)
    try:
        yield
    finally:
        restore_handlers(before)


def _leave(signum: int, frame: FrameType | None) -> None:
    with contextlib.suppress(Exception):  # the terminal may be closed, or a write may be interrupted
        sys.stdout.flush()
        os.write(2, f"\nstopped by {signal.Signals(signum).name}\n".encode())
    os._exit(EXIT_CODES[signal.Signals(signum)])  # an exception could be lost in a module that is being imported


def discard_output() -> None:
    """Redirects output to /dev/null unless it goes to a file, because writing to a closed terminal is an error."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Blocks signals until the end of the block; processes started in it keep them blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals_not_from(parent: int) -> None:
    """Makes a worker process ignore signals, except a SIGTERM of its parent.

    A terminal and SLURM send signals to all processes at once, and the exit of a worker would end its run.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_wait_for, args=(parent,), daemon=True).start()


def _wait_for(parent: int) -> None:
    if hasattr(signal, "sigwaitinfo"):
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
    else:  # macOS does not report the sender
        signal.sigwait({signal.SIGTERM})
    os._exit(0)
