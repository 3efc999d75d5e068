"""What the commands have in common that run in a folder of their own, `train` and `sample`.

Imports Hydra and YAML only, so that help and mistyped options are answered at once.
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

from inkdrop.errors import ConfigurationError, InkdropError

T = TypeVar("T")


@dataclass
class Asked:
    """A configuration as Hydra composes it, and how it came about.

    `folder` is that of the run as it was given. `name` is that of the primary configuration, whose file says `primary`.
    `overrides` are the options as they were typed.
    """

    config: DictConfig
    folder: Path
    name: str
    overrides: Sequence[str] = ()
    primary: Mapping[str, Any] = field(default_factory=dict)
    in_sweep: bool = False

    @property
    def path(self) -> Path:
        """The folder of the run wherever one is."""
        return self.folder.absolute()


@dataclass
class Prepared:
    """A run that is checked and built, and has not begun.

    `plain` is its resolved configuration, and `world_size` the number of processes that it works in. `open` holds what
    is let go of at the end. With `only_checked` nothing is to be run. `objective` names the metric that a sweep looks
    for.
    """

    asked: Asked
    plain: dict[str, Any]
    world_size: int
    open: contextlib.ExitStack
    only_checked: bool = False
    objective: str | None = None


P = TypeVar("P", bound=Prepared)


class Command(ABC, Generic[P]):
    """A verb: `name` is also that of its primary configuration, and `description` is the first line of its help."""

    name: str
    description: str

    def options(self, arguments: Sequence[str]) -> list[str]:
        """Options that are added to those of the command line."""
        return []

    @abstractmethod
    def prepare(self, asked: Asked, session: Session) -> P:
        """The run, checked and built; `InkdropError` or `ValueError` for what cannot work, before anything exists."""

    @abstractmethod
    def run(self, prepared: P) -> dict[str, Any]:
        """Runs what was prepared, and returns what `result.json` says."""

    @abstractmethod
    def check_sweep(self, folder: Path, config: DictConfig) -> None:
        """`ConfigurationError` if the trials of a sweep cannot lie in this folder."""

    @abstractmethod
    def check_trials(self, asked: Asked, session: Session) -> Mapping[str, Any]:
        """`InkdropError` or `ValueError` for what can work in no trial of a sweep; returns the options of its trainer.

        Nothing is built: whether parts fit each other, each trial says.
        """


class Session:
    """One use of a command: the run that is prepared, or the sweep, and what its trials share."""

    def __init__(self, command: Command[Any]):
        self.command = command
        self.prepared: Prepared | None = None
        self.added: list[str] = []  # options that further processes of the run need beside those that were typed
        self.sweep: Path | None = None  # folder of the sweep that this process is at
        self.clear: str | None = None  # its `multirun.yaml` without secrets, if it has some
        self.failed: list[Path] = []  # of its trials, in which results of an earlier sweep may lie
        self._kept: dict[str, tuple[str, Any]] = {}

    def prepare(self, asked: Asked) -> Prepared:
        """The run that is asked for; what is wrong with it is an `InkdropError`."""
        with for_the_user():
            return self.command.prepare(asked, self)

    def keep(self, what: str, key: object, make: Callable[[], T]) -> T:
        """The latest of a kind is made once, however many trials of a sweep need it."""
        text = json.dumps(key, sort_keys=True, default=str)
        if what not in self._kept or self._kept[what][0] != text:
            self._kept[what] = text, make()
        value: T = self._kept[what][1]
        return value


@contextlib.contextmanager
def for_the_user() -> Iterator[None]:
    """What is wrong with a value within the block is an error that the user can mend."""
    try:
        yield
    except InkdropError:
        raise
    except (ValueError, OmegaConfBaseException) as error:
        raise ConfigurationError(str(error)) from error


_session: ContextVar[Session | None] = ContextVar("the use of a command within which Hydra calls back", default=None)


@contextlib.contextmanager
def session(command: Command[Any]) -> Iterator[Session]:
    """A session that `current` finds within the block."""
    token = _session.set(now := Session(command))
    try:
        yield now
    finally:
        if now.prepared is not None:
            now.prepared.open.close()
        _session.reset(token)


def current() -> Session | None:
    """The session of this thread; None in a process that another one has started for a trial."""
    return _session.get()
