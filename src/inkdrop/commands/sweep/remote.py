"""Starters that hand each trial to a scheduler: SLURM through submitit, and Ray.

A trial is the same command line as on this machine, and its folder must be visible where it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inkdrop.commands.sweep.starters import CALL, Job, Processes, Starter
from inkdrop.errors import ConfigurationError

_POLL = 1.0  # seconds between two looks at the scheduler
_MOST_TIMEOUTS = 1000  # time limits that a run may meet: it resumes after each
_NO_ANSWER = 137  # exit code of a job that its scheduler has lost, such as one on a machine that was switched off


class Run:
    """A job where the scheduler runs it: a child process in its own session, to which signals are passed.

    submitit calls `checkpoint` shortly before the time limit: the run then ends with a checkpoint, and is queued again.
    """

    def __init__(self, job: Job):
        self.command, self.log, self.folder = [*job.command], str(job.log), os.getcwd()
        self.environment = dict(job.environment)
        if job.threads is not None:
            self.environment["OMP_NUM_THREADS"] = str(job.threads)

    def __call__(self) -> int:
        variables = {**os.environ, **self.environment}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                cwd=self.folder,
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_deaf_to_submitit,
            )
        try:
            code = self._wait()
        except KeyboardInterrupt:  # by which Ray ends a job
            code = self._end()
        return code if code >= 0 else 128 - code

    def checkpoint(self) -> Any:
        """Ends the run after a checkpoint, and returns what submitit queues again."""
        from submitit.helpers import DelayedSubmission

        self._end()
        again = Run.__new__(Run)
        again.__dict__.update({name: value for name, value in vars(self).items() if name != "process"})
        return DelayedSubmission(again)

    def _end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        """Waits for the child, also in a handler of signals that has interrupted the same wait."""
        with contextlib.suppress(ChildProcessError):  # the handler has waited for it
            _, status = os.waitpid(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
        code: int = self.process.returncode
        return code


def _deaf_to_submitit() -> None:
    """Ignores the signal of submitit, which SLURM sends to all processes of a job."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)


class Remote(Starter):
    """Starts trials by a scheduler, and checks and reports by processes of this machine."""

    def __init__(self) -> None:
        self._local = Processes()
        self._jobs: dict[int, Any] = {}
        self._count, self._looked = 0, 0.0

    @abstractmethod
    def submit(self, run: Run) -> Any:
        """Hands a run to the scheduler, and returns its job."""

    @abstractmethod
    def code(self, job: Any) -> int | None:
        """Returns the exit code of a job, or None while it waits or runs."""

    @abstractmethod
    def cancel(self, job: Any) -> None:
        """Ends a job by SIGTERM."""

    def start(self, job: Job) -> int:
        if job.command[0] == CALL:
            return self._local.start(job)
        self._count -= 1  # numbers of local jobs are positive
        self._jobs[self._count] = self.submit(Run(job))
        return self._count

    def ended(self, timeout: float) -> list[tuple[int, int]]:
        ended = self._local.ended(timeout if not self._jobs else min(timeout, _POLL))
        if time.monotonic() >= self._looked + _POLL:
            codes = {number: self.code(job) for number, job in self._jobs.items()}
            self._looked = time.monotonic()
            for number, code in codes.items():
                if code is not None:
                    del self._jobs[number]
                    ended.append((number, code))
        return ended

    def send(self, number: int, signum: int) -> None:
        if number in self._jobs:
            self.cancel(self._jobs[number])
        elif number > 0:
            self._local.send(number, signum)

    def close(self) -> None:
        for job in self._jobs.values():
            self.cancel(job)
        self._local.close()


class Slurm(Remote):
    """Submits each trial as a job of SLURM through submitit.

    - `folder`: folder of the sweep, in which submitit keeps its files.
    - `options`: parameters of submitit's `AutoExecutor`, such as `timeout_min` and `slurm_partition`; and `cluster`.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any]):
        self._submitit, self._folder = _required("submitit", "slurm"), folder
        self._parameters = {name: value for name, value in options.items() if value is not None}
        self._executor: Any = None
        with tempfile.TemporaryDirectory(
            prefix="inkdrop-"
        ) as place:  # nothing is created before all trials are checked
            self._made(Path(place))
        super().__init__()

    def _made(self, folder: Path) -> Any:
        """Returns submitit's executor; raises `ConfigurationError` for parameters that it does not know."""
        cluster, parameters = self._parameters.get("cluster"), {**self._parameters}
        parameters.pop("cluster", None)
        try:
            executor = self._submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=_MOST_TIMEOUTS)
            executor.update_parameters(**parameters)
        except (NameError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigurationError(f"hydra/launcher=slurm does not work here: {error}") from None
        return executor

    def submit(self, run: Run) -> Any:
        if self._executor is None:
            self._executor = self._made(self._folder / "submitit")
        return self._executor.submit(run)

    def code(self, job: Any) -> int | None:
        if not job.done():
            return None
        error = job.exception()
        return int(job.result()) if error is None else _NO_ANSWER

    def cancel(self, job: Any) -> None:
        job.cancel()


class Ray(Remote):
    """Runs each trial as a task of Ray.

    - `options`: `address` of a cluster, or null for this machine; `num_cpus` and `num_gpus` of a trial.
    """

    def __init__(self, options: Mapping[str, Any]):
        ray = self._ray = _required("ray", "ray")
        self._resources = {name: options[name] for name in ("num_cpus", "num_gpus") if options.get(name) is not None}
        if not ray.is_initialized():
            settings = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
            ray.init(address=options.get("address"), **settings)
        super().__init__()

    def submit(self, run: Run) -> Any:
        return self._ray.remote(_call).options(max_retries=0, **self._resources).remote(run)

    def code(self, job: Any) -> int | None:
        ready, _ = self._ray.wait([job], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(job))
        except self._ray.exceptions.TaskCancelledError:
            return 143
        except self._ray.exceptions.RayError:
            return _NO_ANSWER

    def cancel(self, job: Any) -> None:
        self._ray.cancel(job)

    def close(self) -> None:
        super().close()
        self._ray.shutdown()


def _call(run: Run) -> int:
    return run()


def _required(package: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigurationError(
            f"hydra/launcher={extra} needs {package}: install it by `pip install 'inkdrop[{extra}]'`"
        ) from None
