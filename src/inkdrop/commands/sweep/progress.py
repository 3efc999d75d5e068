"""The table of a sweep: how each trial stands, its steps, its objective, and the time that is left."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.sweep.pool import COMMAND, steps_of
from inkdrop.commands.sweep.trials import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    PRUNED,
    REFUSED,
    RUNNING,
    STATES,
    WAITING,
    Trial,
    folder_of,
)
from inkdrop.files.showing import harmless, pipe_may_close

_ENDED = (FINISHED, FAILED, REFUSED, PRUNED)
_ORDER = (RUNNING, FAILED, REFUSED, INTERRUPTED, PRUNED, WAITING, FINISHED)  # on a short screen the first ones show
_COLOURS = {RUNNING: "cyan", FINISHED: "green", FAILED: "red", REFUSED: "red", INTERRUPTED: "yellow", PRUNED: "yellow"}
_INTERVAL = 1.0  # seconds between two drawings


def say(text: str) -> None:
    """Prints a text; a sweep whose output nobody reads any more continues silently."""
    with pipe_may_close():
        print(text, flush=True)


class Display:
    """Shows a sweep while it runs: a live table on a terminal, and a line for each change elsewhere.

    - `folder`: folder of the sweep.
    - `trials`: all its trials.
    - `places`: places on which trials run at the same time.
    """

    def __init__(self, folder: Path, trials: Sequence[Trial], places: Sequence[Any]):
        self.folder, self.trials, self.places = folder, trials, max(1, len(places))
        self._before = {each.identity: each.steps for each in trials}
        self._start, self._drawn = time.monotonic(), 0.0
        self._live: Any = None

    def __enter__(self) -> Display:
        to_run = sum(each.state not in (FINISHED, REFUSED) for each in self.trials)
        finished = sum(each.state == FINISHED for each in self.trials)
        known = f", {finished} finished before" if finished else ""
        count = f"{to_run} trials to run{known}, " if to_run else ""  # a search has none yet
        at_a_time = f"{self.places} at a time" if self.places < 1000 else "as many at a time as the scheduler runs"
        say(f"sweep      {self.folder}: {count}{at_a_time}")
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(self._table(), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, changed: Trial | None) -> None:
        """Shows the present state; `changed` is the trial whose state has changed, if one has."""
        if self._live is not None:
            if changed is not None or time.monotonic() > self._drawn + _INTERVAL:
                self._drawn = time.monotonic()
                self._live.update(self._table(), refresh=True)
        elif changed is not None:
            say(f"{_line(changed)}{self._left()}")

    def summary(self) -> None:
        """Prints what has failed, with its last lines, and how many trials there are of each state."""
        for each in self.trials:
            if each.state in (FAILED, REFUSED):
                say(f"\n{each.name} {each.state} with exit code {each.exit_code}: {harmless(each.message, 2000)}")
        counts = Counter(each.state for each in self.trials)
        say("\n" + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]))

    def _table(self) -> Any:
        from rich.console import Console

        return table(self.folder, self.trials, Console().height - 4, f"{self.folder}{self._left()}")

    def _left(self) -> str:
        """Returns the time left, from the seconds that a step took so far, or nothing before the first steps."""
        steps = sum(each.steps - self._before.get(each.identity, 0) for each in self.trials)
        left = sum(max(0, each.max_steps - each.steps) for each in self.trials if each.state not in _ENDED)
        elapsed = time.monotonic() - self._start
        if not left or steps <= 0:
            return ""
        return f", about {duration(left * elapsed / steps)} left"


def table(folder: Path, trials: Sequence[Trial], most: int, title: str) -> Any:
    """Returns a table with a row for each of at most `most` trials, running ones first."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(harmless(title, 500)), title_justify="left")
    has_objective = any(each.objective for each in trials)
    for column in ("trial", "state", "step", *(["objective"] if has_objective else []), "time"):
        drawn.add_column(column, justify="left" if column in ("trial", "state") else "right")
    shown = sorted(trials, key=lambda each: _ORDER.index(each.state))[: max(1, most)]
    for each in sorted(shown, key=trials.index):
        objective = _numbers(each.objective)
        drawn.add_row(
            Text(harmless(each.name, 120)),
            Text(each.state, _COLOURS.get(each.state, "")),
            f"{each.steps} of {each.max_steps}",
            *([objective] if has_objective else []),
            duration(seconds) if (seconds := seconds_of(folder, each)) else "",
        )
    if len(trials) > len(shown):
        drawn.caption = f"{len(trials) - len(shown)} more"
    return drawn


def with_progress(folder: Path, trials: Sequence[Trial]) -> Sequence[Trial]:
    """Returns trials with the steps that the records of running ones show now."""
    for each in trials:
        if each.state == RUNNING:
            each.steps = max(each.steps, steps_of(folder / each.name))
    return trials


def seconds_of(folder: Path, trial: Trial) -> float:
    """Returns how long a trial has run: its earlier attempts, and what the present one has taken so far.

    An attempt begins when its command is written, which any process that sees the folder of the sweep can tell.
    """
    if trial.state != RUNNING:
        return trial.seconds
    try:
        begin = (folder_of(folder, trial) / COMMAND).stat().st_mtime
    except OSError:
        return trial.seconds
    return trial.seconds + max(0.0, time.time() - begin)


def _line(trial: Trial) -> str:
    steps = f", {trial.steps} of {trial.max_steps} steps" if trial.steps else ""
    objective = f", objective {_numbers(trial.objective)}" if trial.objective else ""
    attempt = f" (attempt {trial.attempts})" if trial.attempts > 1 and trial.state == RUNNING else ""
    return f"{trial.state:11}{harmless(trial.name, 200)}{attempt}{steps}{objective}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{each:.5g}" for each in values)


def duration(seconds: float) -> str:
    """Returns a time in the largest units that matter, such as 1 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min" if hours else "1 h"
