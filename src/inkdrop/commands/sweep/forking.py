"""The program that starts the jobs of a sweep: it imports the libraries once, and forks for each job.

A fork becomes what `python FILE ...` or `python -m MODULE ...` would be, with its own session, folder, environment and
output. The program itself computes nothing, has one thread and touches no device. When the sweeping process has ended,
however it ended, this program ends all jobs, which write their checkpoints first.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

LIBRARIES = ("torch", "lightning.pytorch", "hydra", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "wandb")
GRACE = 8  # seconds between SIGTERM and SIGKILL for jobs without a sweeping process
_PR_SET_PDEATHSIG = 1  # of Linux


class Program:
    """Starts jobs as they are requested through a socket, one JSON object per line, and answers how each ended."""

    def __init__(self, control: socket.socket):
        self.control, self.running = control, dict[int, int]()  # id of the request by process
        self._buffer = b""
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._waking, False)

    def serve(self) -> Callable[[], None]:
        """Answers requests until the socket is closed; returns what a fork is to run, in that fork."""
        signal.set_wakeup_fd(self._waking)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(each, signal.SIG_IGN)  # the sweeping process decides
        while True:
            ready, _, _ = select.select([self.control.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, 1000)
                self._reap()
            if self.control.fileno() in ready:
                received = self.control.recv(2**20)
                if not received:
                    self._end()
                *lines, self._buffer = (self._buffer + received).split(b"\n")
                for line in lines:
                    if (fork := self._answer(json.loads(line))) is not None:
                        return fork

    def _answer(self, request: Mapping[str, Any]) -> Callable[[], None] | None:
        if "signal" in request:
            for process in [process for process, number in self.running.items() if number == request["id"]]:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, request["signal"])
            return None
        if request["fork"]:
            process = os.fork()
            if process == 0:
                self._leave()
                return lambda: become(request)
        else:
            process = _fresh(request)
        self.running[process] = request["id"]
        return None

    def _leave(self) -> None:
        """Closes what belongs to the program in a fork of it."""
        signal.set_wakeup_fd(-1)
        self.control.close()
        os.close(self._woken)
        os.close(self._waking)

    def _reap(self) -> None:
        while self.running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            if process in self.running:
                code = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(OSError):
                    os.killpg(process, signal.SIGKILL)  # what the job has left behind, such as a hanging rank
                answer = {"id": self.running.pop(process), "code": code if code >= 0 else 128 - code}
                with contextlib.suppress(OSError):
                    self.control.sendall(json.dumps(answer).encode() + b"\n")

    def _end(self) -> NoReturn:
        """Ends all jobs, because the sweeping process has gone."""
        for signum, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 1)):
            for process in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process, signum)
            end = time.monotonic() + seconds
            while self.running and time.monotonic() < end:
                self._reap()
                time.sleep(0.05)
        os._exit(0)


def _fresh(request: Mapping[str, Any]) -> int:
    """Starts a job in a new interpreter, and returns its process."""
    with open(request["log"], "ab") as log:
        process = subprocess.Popen(
            [sys.executable, *request["command"]],
            cwd=request["folder"],
            env=request["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_prepared_child,
        )
    process.returncode = 0  # this program waits for it itself
    return process.pid


def _prepared_child() -> None:
    _end_with_parent()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_DFL)


def _end_with_parent() -> None:
    """Asks Linux for a SIGTERM when the program that forks is gone."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def become(request: Mapping[str, Any]) -> NoReturn:
    """Makes this fork the process of a job, and runs the job to its end."""
    os.setsid()
    _end_with_parent()
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for number, descriptor in enumerate((nothing, log, log)):
        os.dup2(descriptor, number)
    for descriptor in {nothing, log} - {0, 1, 2}:
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for each in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _start_afresh(request["threads"])
    end(request["command"])


def _start_afresh(threads: int | None) -> None:
    """Gives this fork its own random state, number of threads and temporary folder."""
    import numpy as np
    import torch
    from wandb.sdk.data_types._private import MEDIA_TMP

    if threads is not None:
        torch.set_num_threads(threads)
    random.seed()
    np.random.seed()  # noqa: NPY002  the global state, which libraries use
    torch.default_generator.seed()
    MEDIA_TMP.__init__("wandb-media")  # type: ignore[misc] # each process removes its folder at its end


def end(command: Sequence[str]) -> NoReturn:
    """Runs a command, and ends as an interpreter does, but without taking the libraries apart, which takes seconds."""
    code: Any = 0
    try:
        _run(command)
    except SystemExit as error:
        code = error.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def _run(command: Sequence[str]) -> None:
    """Runs a file, a module after `-m`, or a function after `--call`, with the arguments that follow it."""
    first, *arguments = command
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = ["-m", *arguments[1:]]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif first == "--call":
        module, _, function = arguments[0].partition(":")
        sys.path[0] = os.getcwd()
        sys.argv = ["-m", *arguments[1:]]
        _call(getattr(importlib.import_module(module), function), arguments[1:])
    else:
        sys.path[0] = os.path.dirname(first)
        sys.argv = [first, *arguments]
        runpy.run_path(first, run_name="__main__")


def _call(function: Callable[[list[str]], None], arguments: list[str]) -> None:
    """Calls a function as a verb is called: an error that the user can fix ends it with its message and exit code."""
    from inkdrop.commands.terminal import exit_code, stop

    try:
        function(arguments)
    except Exception as error:
        if exit_code(error) is None:
            raise
        stop(error)


def main() -> None:
    """Serves the socket whose number is the first argument."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.collect()
    gc.freeze()  # a collection would copy all that the libraries hold in each fork
    Program(control).serve()()


if __name__ == "__main__":
    main()
