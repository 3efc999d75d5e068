"""A sweep that runs: its folder, its trials, the processes that run them, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hydra_plugins.inkdrop_sweeps import SHARED
from inkdrop.commands.command import current
from inkdrop.commands.sweep import places as devices
from inkdrop.commands.sweep.objectives import objectives_of
from inkdrop.commands.sweep.planning import Plan, check, command_of, options_of, plan, refusal
from inkdrop.commands.sweep.pool import Place, Pool
from inkdrop.commands.sweep.progress import Display, say
from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.remote import Ray, Slurm
from inkdrop.commands.sweep.starters import CALL, Job, Processes, Starter, run_all
from inkdrop.commands.sweep.trials import FINISHED, REFUSED, Trial, folder_of
from inkdrop.distributed.signals import EXIT_CODES, install_handler, restore_handlers
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless
from inkdrop.files.writing import make_folder
from inkdrop.runs.folder_names import apart, by_time
from inkdrop.runs.sweep_of import TRIAL

VERB = "train"
_MOST = 1000  # trials that wait in a scheduler at a time
DEFAULTS: dict[str, Any] = {"start": "fork", **SHARED}
_CHOICES = {"start": ("fork", "fresh"), "invalid": ("refuse", "skip"), "rerun": (None, "changed")}


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the launcher with defaults; raises `ConfigurationError` for one that is not allowed."""
    chosen = {**DEFAULTS, **options}
    for name, allowed in _CHOICES.items():
        if chosen[name] not in allowed:
            known = ", ".join("null" if each is None else each for each in allowed)
            raise ConfigurationError(f"hydra.launcher.{name}={harmless(chosen[name])}: available: {known}")
    if chosen["jobs"] != "auto" and not (isinstance(chosen["jobs"], int) and chosen["jobs"] > 0):
        raise ConfigurationError(f"hydra.launcher.jobs={harmless(chosen['jobs'])} must be auto or a positive number")
    if not (isinstance(chosen["retries"], int) and chosen["retries"] >= 0):
        raise ConfigurationError(f"hydra.launcher.retries={harmless(chosen['retries'])} must be a number of attempts")
    return chosen


class Sweep:
    """A sweep from its configuration to its end.

    - `config`: configuration that the trials share.
    - `loader`: Hydra's loader, which composes the configuration of a trial.
    - `options`: options of the launcher; `kind` is processes, slurm or ray.

    Raises `ConfigurationError` for options that cannot work in a sweep. Leaving it ends all processes.
    """

    def __init__(self, config: DictConfig, loader: Any, options: Mapping[str, Any]):
        if (now := current()) is not None and now.command.name != VERB:
            verb, kind = now.command.name, options["kind"]
            raise ConfigurationError(
                f"hydra/launcher={kind} runs trials of {VERB}, but {verb} needs hydra/launcher=basic"
            )
        if os.environ.get(TRIAL):
            raise ConfigurationError("a trial of a sweep cannot be a sweep: remove hydra.mode from its options")
        self._kind, options = options["kind"], {key: value for key, value in options.items() if key != "kind"}
        self._scheduler = {key: options[key] for key in options if key not in DEFAULTS}  # options of its own
        self.chosen = checked_options({key: options[key] for key in options if key in DEFAULTS})
        if isinstance(run_id := config.get("run_id"), str):
            raise ConfigurationError(
                f"run_id={run_id} would be shared by all trials of the sweep: remove it, so that each draws its own"
            )
        self.config, self.loader = config, loader
        self._by_time = by_time(config, "hydra.sweep.dir")
        folder = Path(config.hydra.sweep.dir) if self._by_time is None else apart(self._by_time)
        self.record = Record(folder, [each.name for each in objectives_of(config.get("objective"))])
        self.known = self.record.trials()
        self.shares: list[Place] = []
        self._starter: Starter | None = None

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._starter is not None:
            self._starter.close()

    @property
    def folder(self) -> Path:
        """Folder of the sweep."""
        return self.record.folder

    @property
    def starter(self) -> Starter:
        """What starts processes."""
        if self._starter is None:
            if self._kind == "slurm":
                self._starter = Slurm(self.folder, self._scheduler)
            elif self._kind == "ray":
                self._starter = Ray(self._scheduler)
            else:
                self._starter = Processes(self.chosen["start"] == "fork")
        return self._starter

    def plan(self, combinations: Sequence[Sequence[str]], keys: Sequence[str] | None = None) -> Plan:
        """Returns the trials of these combinations of values, named by the options `keys`."""
        return plan(self.loader, self.config, combinations, self.known, keys)

    def prepare(self, made: Plan, trials: Sequence[Trial]) -> list[Trial]:
        """Shares the machine among trials, checks them, and returns those that can work.

        Raises `ConfigurationError` with all that cannot work, unless `invalid` is `skip`.
        """
        trainers = [made.trainers[each.identity] for each in trials]
        if self._kind == "processes":
            self.shares = devices.places(self.chosen["jobs"], trainers, self._gpus(trainers))
        else:  # the scheduler shares the devices
            self.shares = [Place()] * (_MOST if self.chosen["jobs"] == "auto" else self.chosen["jobs"])
        if len(trials) > 1:
            say(f"checking   {len(trials)} trials")
        wrong = check(self.starter, VERB, self.folder, trials, options_of(self.config), os.cpu_count() or 1)
        if (wrong or made.refused) and self.chosen["invalid"] == "refuse":
            by_name = {message: [each.name for each in some] for message, some in wrong.items()}
            raise refusal({**made.refused, **by_name}, len(made.trials) + made.order.count(None))
        for each in (each for some in wrong.values() for each in some):
            each.state = REFUSED
        return [each for each in trials if each.state != REFUSED]

    def create(self) -> None:
        """Creates the folder of the sweep."""
        if self._by_time is not None:
            self.record.folder = apart(self._by_time, made=True)
            self._by_time = None
        make_folder(self.folder)

    @contextmanager
    def pool(self, trials: list[Trial]) -> Iterator[Pool]:
        """Yields what runs trials; on leaving, a signal ends the program, and otherwise the report is shown.

        `trials` are all that the table shows, and may grow.
        """
        flags, settings = options_of(self.config)
        command = [*command_of(VERB), *flags]
        with Display(self.folder, trials, self.shares) as display:
            pool = Pool(self.record, command, settings, self.starter, self.shares, self.chosen["retries"], display.show)
            with _signals_passed_to(pool) as received:
                yield pool
        if received:
            left = sum(each.state != FINISHED for each in trials)
            advice = f"repeat the command with output_dir={self.folder} to continue"
            print(f"{left} trials are left: {advice}", file=sys.stderr)
            sys.exit(EXIT_CODES.get(signal.Signals(received[0]), 143))
        display.summary()
        self.report()

    def report(self) -> None:
        """Shows and writes the report, by a process that may import what it needs."""
        with tempfile.TemporaryDirectory(prefix="inkdrop-") as place:
            log = Path(place) / "report"
            run_all(self.starter, [Job([CALL, "inkdrop.commands.report:main", str(self.folder)], log)], 1)
            say(f"\n{log.read_text()}".rstrip("\n"))

    def _gpus(self, trainers: Sequence[Any]) -> list[str]:
        """Returns the GPUs of this machine if a trial may use them, from a process that may import torch."""
        if not devices.may_use_gpus(trainers):
            return []
        with tempfile.TemporaryDirectory(prefix="inkdrop-") as folder:
            log = Path(folder) / "gpus"
            run_all(self.starter, [Job([CALL, "inkdrop.commands.sweep.places:show"], log)], 1)
            lines = [line for line in log.read_text().splitlines() if line.startswith("GPUS ")]
        found: list[str] = json.loads(lines[-1].removeprefix("GPUS ")) if lines else []
        return found


def set_aside(sweep: Path, trials: Sequence[Trial]) -> None:
    """Keeps the folder of each finished trial that is repeated, under a name that no other trial has."""
    for each in trials:
        folder = folder_of(sweep, each)
        if each.state == FINISHED and folder.exists():
            folder.rename(apart(folder.with_name(f"{folder.name}-before")))


@contextmanager
def _signals_passed_to(pool: Pool) -> Iterator[list[int]]:
    """Passes signals within the block to all trials; a second one kills them. Yields the signals received."""
    received: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        received.append(signum)
        pool.stop(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)
        if len(received) == 1:
            print("\nstopping: each trial writes a checkpoint; a second signal kills them", file=sys.stderr, flush=True)

    before = install_handler(stop)
    try:
        yield received
    finally:
        restore_handlers(before)
