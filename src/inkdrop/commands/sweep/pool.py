"""Runs the trials of a sweep some at a time, and records how each of them stands."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from inkdrop.commands.sweep.record import Record, claim
from inkdrop.commands.sweep.starters import Job, Starter
from inkdrop.commands.sweep.trials import FAILED, FINISHED, INTERRUPTED, REFUSED, RUNNING, WAITING, Trial, folder_of
from inkdrop.configuration.secrets import masked_override
from inkdrop.configuration.suggestions import words, written
from inkdrop.distributed.signals import EXIT_CODES
from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless_lines
from inkdrop.files.writing import make_folder, open_plain, write_text
from inkdrop.runs.sweep_of import Sweep

_AGAIN = (1, 137)  # exit codes after which another attempt may succeed: a bug that depends on chance, and no memory
_LOCKED = 4  # exit code of a run whose folder another process has locked
_POLL = 1.0  # seconds between two looks at a trial that another process runs
COMMAND = "command.txt"
_LOG, _CLAIM, _LOCK = "console.log", "trial.lock", "lock"


@dataclass(frozen=True)
class Place:
    """A share of this machine for one trial at a time: variables such as CUDA_VISIBLE_DEVICES, and threads."""

    environment: Mapping[str, str | None] = field(default_factory=dict)
    threads: int | None = None


@dataclass
class _Running:
    """A trial that runs here: its place, its claim, when it started, and the size that its log had then."""

    trial: Trial
    place: Place
    claim: BinaryIO
    start: float
    log_size: int


class Pool:
    """Runs trials on places, and keeps `sweep.json` up to date.

    - `record`: record of the sweep.
    - `command`: what follows `python` for a trial, before its options.
    - `options`: options after those of the trial.
    - `starter`: what starts processes.
    - `places`: shares of the machine; as many trials run at a time.
    - `retries`: further attempts after an exit code that chance may have caused.
    - `show`: called with all trials when something has changed.
    """

    def __init__(
        self,
        record: Record,
        command: Sequence[str],
        options: Sequence[str],
        starter: Starter,
        places: Sequence[Place],
        retries: int = 1,
        show: Callable[[Trial | None], None] = lambda trial: None,
    ):
        self.record, self.command, self.options, self.starter = record, command, options, starter
        self.retries, self.show = retries, show
        self.trials: list[Trial] = []
        self._free, self._waiting = deque(places), deque[Trial]()
        self._running: dict[int, _Running] = {}
        self._elsewhere: list[tuple[float, Trial]] = []  # trials that other processes run, and when to look again
        self._attempts: dict[str, int] = {}  # of this sweeping process
        self.stopping = False

    @property
    def free(self) -> int:
        """Number of places without a trial, also among those that wait."""
        return max(0, len(self._free) - len(self._waiting))

    @property
    def is_busy(self) -> bool:
        """Whether a trial runs or waits."""
        return bool(self._running or self._elsewhere or (self._waiting and not self.stopping))

    def add(self, *trials: Trial) -> None:
        """Adds trials, which start in this order."""
        for trial in trials:
            self.trials.append(trial)
            if trial.state != FINISHED:
                trial.state = WAITING
                self._waiting.append(trial)
        self.record.update(*(trial for trial in trials if trial.state == WAITING))

    def step(self, timeout: float = 0.5) -> list[Trial]:
        """Starts what can start, waits for at most `timeout` seconds, and returns the trials that have ended."""
        ended = self._look_elsewhere()
        while self._free and self._waiting and not self.stopping:
            ended += self._start(self._waiting.popleft())
        if self._running:
            for number, code in self.starter.ended(timeout):
                ended += self._ended(self._running.pop(number), code)
        elif self._elsewhere:
            time.sleep(timeout)
        for each in self._running.values():
            each.trial.steps = max(each.trial.steps, steps_of(folder_of(self.record.folder, each.trial)))
        self.show(None)
        return ended

    def stop(self, signum: int) -> None:
        """Sends a signal to all jobs, and starts no further ones; SIGKILL ends those that have not ended yet."""
        self.stopping = True
        self._elsewhere.clear()
        for number in self._running:
            self.starter.send(number, signum)

    def end_trial(self, trial: Trial) -> bool:
        """Ends one trial by SIGTERM, after which it writes a checkpoint; returns False if it does not run here."""
        if trial in self._waiting:
            self._waiting.remove(trial)
        for number, each in self._running.items():
            if each.trial is trial:
                self.starter.send(number, signal.SIGTERM)
                return True
        return False

    def _look_elsewhere(self) -> list[Trial]:
        now, others, ended = time.monotonic(), self._elsewhere, list[Trial]()
        self._elsewhere = [each for each in others if each[0] > now]
        for _, trial in (each for each in others if each[0] <= now):
            if self._free and not self.stopping:
                ended += self._start(trial)
            else:
                self._elsewhere.append((now + _POLL, trial))
        return ended

    def _start(self, trial: Trial) -> list[Trial]:
        """Starts a trial, unless another process runs it, or has finished it, which is returned."""
        folder = folder_of(self.record.folder, trial)
        make_folder(folder)
        claimed = claim(folder / _CLAIM)
        if claimed is None or _is_locked(folder):
            if claimed is not None:
                claimed.close()
            if trial.state != RUNNING:
                trial.state = RUNNING
                self.show(trial)
            self._elsewhere.append((time.monotonic() + _POLL, trial))
            return []
        if (known := self.record.trials().get(trial.identity)) is not None:
            if known.state == FINISHED and _take_result(trial, folder, self.record.objectives):
                claimed.close()
                trial.state, trial.message = FINISHED, ""
                self.show(trial)
                return [trial]
            trial.attempts, trial.seconds = known.attempts, known.seconds
        try:
            self._begin(trial, folder, claimed)
        except BaseException:
            claimed.close()
            raise
        return []

    def _begin(self, trial: Trial, folder: Path, claimed: BinaryIO) -> None:
        place = self._free.popleft()
        command = [*self.command, *trial.overrides, f"output_dir={written(str(folder))}", *self.options]
        write_text(folder / COMMAND, f"python {words(map(masked_override, command))}\n")
        log = folder / _LOG
        with open_plain(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            size = file.seek(0, 2)
        variables = {**place.environment, **Sweep(self.record.folder.absolute(), trial.name).variables}
        trial.state, trial.message, trial.attempts = RUNNING, "", trial.attempts + 1
        self._attempts[trial.identity] = self._attempts.get(trial.identity, 0) + 1
        number = self.starter.start(Job(command, log.absolute(), variables, place.threads))
        self._running[number] = _Running(trial, place, claimed, time.monotonic(), size)
        self.record.update(trial)
        self.show(trial)

    def _ended(self, job: _Running, code: int) -> list[Trial]:
        """Records how a job ended, and returns its trial unless that is tried again or another process has it."""
        trial, folder = job.trial, folder_of(self.record.folder, job.trial)
        self._free.append(job.place)
        locked = code == _LOCKED and _is_locked(folder)
        trial.seconds += time.monotonic() - job.start
        trial.steps = max(trial.steps, steps_of(folder))
        trial.exit_code, trial.message = code, "" if code == 0 else last_lines(folder / _LOG, job.log_size)
        again = code in _AGAIN and self._attempts[trial.identity] <= self.retries and not self.stopping
        if code == 0 and _take_result(trial, folder, self.record.objectives):
            trial.state = FINISHED
        elif code in EXIT_CODES.values() or (self.stopping and code in (0, 137)):
            trial.state = INTERRUPTED
        elif again or locked:
            trial.state = WAITING
        else:
            trial.state = REFUSED if code == 2 else FAILED
            trial.message = trial.message or "it ended without a result.json"
        self.record.update(trial)
        job.claim.close()
        self.show(trial)
        if locked:
            self._elsewhere.append((time.monotonic() + _POLL, trial))
        elif again:
            self._waiting.append(trial)
        return [] if locked or again else [trial]


def _is_locked(folder: Path) -> bool:
    """Returns whether a run writes to this folder, such as one that has outlived its sweeping process."""
    if not (folder / _LOCK).exists():
        return False
    if (file := claim(folder / _LOCK)) is None:
        return True
    file.close()
    return False


def _take_result(trial: Trial, folder: Path, objectives: Sequence[str]) -> bool:
    """Takes steps and objective of a trial from its `result.json`; returns False if it cannot be read."""
    try:
        result = read_json(folder / "result.json")
    except UnreadableError:
        return False
    trial.steps = result["steps"] if isinstance(result.get("steps"), int) else trial.steps
    metrics = result.get("metrics") or {}
    trial.objective = [float(metrics[name]) for name in objectives if isinstance(metrics.get(name), int | float)]
    return True


def steps_of(folder: Path) -> int:
    """Returns the number of optimizer steps that the record of a run shows, from its last complete line."""
    try:
        with open(folder / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 2**14))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            step = json.loads(line).get("step")
        except (ValueError, AttributeError):
            continue
        if isinstance(step, int):
            return step
    return 0


def last_lines(log: Path, start: int, count: int = 6) -> str:
    """Returns the last lines of a log after its first `start` bytes: from its last error, if it shows one."""
    with open(log, "rb") as file:
        file.seek(max(start, file.seek(0, 2) - 2**16))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    return harmless_lines("\n".join(lines[errors[-1] :][:count] if errors else lines[-count:]))[:2000]
