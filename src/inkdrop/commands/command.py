"""The base of the commands that run in their own folder, `train` and `sample`.

This module imports only Hydra and YAML, so that help and mistyped options are answered immediately.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from inkdrop.configuration.moved import renamed_options
from inkdrop.errors import ConfigurationError, InkdropError

T = TypeVar("T")


@dataclass
class Asked:
    """A request for a run: a configuration as Hydra composes it, and where it comes from.

    - `config`: the composed configuration, with unresolved references.
    - `folder`: the run folder as it was given.
    - `name`: name of the primary configuration.
    - `overrides`: the options as they were typed.
    - `primary`: content of the primary configuration's file.
    - `in_sweep`: whether the run is a trial of a sweep.
    """

    config: DictConfig
    folder: Path
    name: str
    overrides: Sequence[str] = ()
    primary: Mapping[str, Any] = field(default_factory=dict)
    in_sweep: bool = False

    @property
    def path(self) -> Path:
        """Absolute path of the run folder."""
        return self.folder.absolute()


@dataclass
class Prepared:
    """A run that is checked and built but not started.

    - `asked`: the request.
    - `plain`: the resolved configuration.
    - `world_size`: number of processes of the run.
    - `open`: resources that are released at the end.
    - `only_checked`: whether the run ends after the check.
    - `objective`: names of the metrics that a sweep optimizes.
    """

    asked: Asked
    plain: dict[str, Any]
    world_size: int
    open: contextlib.ExitStack
    only_checked: bool = False
    objective: Sequence[str] = ()


P = TypeVar("P", bound=Prepared)


class Command(ABC, Generic[P]):
    """A verb: `name` is also that of its primary configuration, and `description` is the first line of its help."""

    name: str
    description: str

    def options(self, arguments: Sequence[str]) -> list[str]:
        """Returns the options that are added to those of the command line."""
        return []

    def help(self, arguments: Sequence[str]) -> str:
        """Returns what --help says beyond the options of the configuration."""
        return ""

    def spelled(self, arguments: Sequence[str]) -> list[str]:
        """Returns the arguments as Hydra needs them."""
        return renamed_options(arguments)

    @abstractmethod
    def prepare(self, asked: Asked, session: Session) -> P:
        """Checks and builds a run before any file exists; raises `InkdropError` or `ValueError` if it cannot work."""

    @abstractmethod
    def run(self, prepared: P) -> dict[str, Any]:
        """Runs a prepared run, and returns the content of `result.json`."""

    @abstractmethod
    def check_sweep(self, folder: Path, config: DictConfig) -> None:
        """Raises `ConfigurationError` if the trials of a sweep cannot be written to this folder."""

    @abstractmethod
    def check_trials(self, asked: Asked, session: Session) -> Mapping[str, Any]:
        """Checks the options that all trials of a sweep share, and returns the options of their trainer.

        Raises `InkdropError` or `ValueError` for options that cannot work in any trial. No part is built: each trial
        checks whether its parts fit each other.
        """


class Session:
    """One use of a command: the prepared run, or the sweep and the objects that its trials share."""

    def __init__(self, command: Command[Any]):
        self.command = command
        self.prepared: Prepared | None = None
        self.only_check = False  # whether the command ends after the check
        self.added: list[str] = []  # options for further processes of the run, in addition to the typed ones
        self.sweep: Path | None = None  # folder of the sweep that this process runs
        self.clear: str | None = None  # its `multirun.yaml` without secrets, if it contains secrets
        self.failed: list[Path] = []  # folders of failed trials, which may contain results of an earlier sweep
        self._kept: dict[str, tuple[str, Any]] = {}

    def prepare(self, asked: Asked) -> Prepared:
        """Prepares the requested run; raises `InkdropError` for everything that is wrong with it."""
        with for_the_user():
            return self.command.prepare(asked, self)

    def keep(self, what: str, key: object, make: Callable[[], T]) -> T:
        """Returns the object of `make`, which is called again only if the key of this kind of object has changed."""
        text = json.dumps(key, sort_keys=True, default=str)
        if what not in self._kept or self._kept[what][0] != text:
            self._kept[what] = text, make()
        value: T = self._kept[what][1]
        return value


@contextlib.contextmanager
def for_the_user() -> Iterator[None]:
    """Turns a `ValueError` within the block into a `ConfigurationError`, which ends a command without a traceback."""
    try:
        yield
    except InkdropError:
        raise
    except (ValueError, OmegaConfBaseException) as error:
        raise ConfigurationError(str(error)) from error


_session: ContextVar[Session | None] = ContextVar("the use of a command within which Hydra calls back", default=None)


@contextlib.contextmanager
def session(command: Command[Any]) -> Iterator[Session]:
    """Makes a session that `current` returns within the block."""
    token = _session.set(now := Session(command))
    try:
        yield now
    finally:
        if now.prepared is not None:
            now.prepared.open.close()
        _session.reset(token)


def current() -> Session | None:
    """Returns the session of this thread, or None in a process that another one has started for a trial."""
    return _session.get()
