"""What starts the jobs of a sweep: the interface, and processes of this machine."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkdrop.errors import InkdropError

CALL = "--call"  # before a function MODULE:NAME instead of a script


class StarterError(InkdropError):
    """The program that starts jobs has ended; the same command continues the sweep."""

    exit_code = 1


@dataclass(frozen=True)
class Job:
    """A process that is to be started.

    - `command`: what follows `python`: a script, or `-m` and a module, with arguments.
    - `log`: file to which its output is appended.
    - `environment`: variables that are set in addition to those of this process; null removes one.
    - `threads`: number of threads of torch, or None for its default.
    """

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str | None] = field(default_factory=dict)
    threads: int | None = None


class Starter(ABC):
    """Starts jobs, and tells how they ended."""

    @abstractmethod
    def start(self, job: Job) -> int:
        """Starts a job, and returns its number."""

    @abstractmethod
    def ended(self, timeout: float) -> list[tuple[int, int]]:
        """Waits for at most `timeout` seconds, and returns number and exit code of each job that has ended."""

    @abstractmethod
    def send(self, number: int, signum: int) -> None:
        """Sends a signal to all processes of a job."""

    @abstractmethod
    def close(self) -> None:
        """Ends all jobs, and releases everything."""


class Processes(Starter):
    """Starts processes on this machine, by a program that has imported the libraries once and forks for each job.

    - `fork`: whether jobs are forks, or start afresh.
    """

    def __init__(self, fork: bool = True):
        self._fork, self._count, self._buffer = fork, 0, b""
        self._control, theirs = socket.socketpair()
        with theirs:
            self._program = subprocess.Popen(
                [sys.executable, "-m", "inkdrop.commands.sweep.forking", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a signal of the terminal reaches this process alone
                stdin=subprocess.DEVNULL,
            )

    def start(self, job: Job) -> int:
        self._count += 1
        variables = {**os.environ, **job.environment}
        if job.threads is not None:
            variables["OMP_NUM_THREADS"] = str(job.threads)
        self._ask(
            id=self._count,
            command=[*job.command],
            log=str(job.log),
            folder=os.getcwd(),
            environment={name: value for name, value in variables.items() if value is not None},
            threads=job.threads,
            fork=self._fork or job.command[0] == CALL,
        )
        return self._count

    def ended(self, timeout: float) -> list[tuple[int, int]]:
        ready, _, _ = select.select([self._control], [], [], timeout)
        if not ready:
            return []
        received = self._control.recv(2**16)
        if not received:
            raise StarterError("the process that starts jobs was killed, and with it all of them: repeat the command")
        *lines, self._buffer = (self._buffer + received).split(b"\n")
        return [(answer["id"], answer["code"]) for answer in map(json.loads, lines)]

    def send(self, number: int, signum: int) -> None:
        self._ask(id=number, signal=int(signum))

    def close(self) -> None:
        self._control.close()
        self._program.wait()

    def _ask(self, **request: Any) -> None:
        try:
            self._control.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise StarterError("the process that starts jobs was killed: repeat the command") from None


def run_all(starter: Starter, jobs: Sequence[Job], at_a_time: int) -> list[int]:
    """Runs jobs to their ends, some at a time, and returns their exit codes."""
    codes, numbers = [0] * len(jobs), dict[int, int]()
    waiting = list(range(len(jobs)))
    while waiting or numbers:
        while waiting and len(numbers) < at_a_time:
            place = waiting.pop(0)
            numbers[starter.start(jobs[place])] = place
        for number, code in starter.ended(timeout=1):
            codes[numbers.pop(number)] = code
    return codes


def wait_until(moment: float) -> float:
    """Returns the seconds until a moment of `time.monotonic`, at least 0."""
    return max(0.0, moment - time.monotonic())
