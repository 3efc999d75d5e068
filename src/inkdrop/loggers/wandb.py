"""The logger of Weights & Biases; its failures never stop a run."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import numpy as np
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from inkdrop.files.writing import make_folder
from inkdrop.loggers.about import About, Outcome, Picture
from inkdrop.loggers.wandb_runs import agent_only_of, last_step, masked_command

T = TypeVar("T")

STEP = "trainer/global_step"
_INTERVAL = re.compile(r"(.+)/(\d+\.\d+)-(\d+\.\d+)")  # names of values over neighbouring intervals
_LONGEST = 64  # of a tag or a title, for W&B


class WandB(Logger):
    """Logs to Weights & Biases: online with an API key and a server that answers within three seconds, else offline.

    Offline runs are in `folder`/wandb, and `wandb sync` uploads them later. An error of W&B is shown once and stops the
    logging, never the run. `WANDB_MODE` overrides the choice. A `run_id` that W&B knows is resumed.

    - `folder`: the folder around W&B's own.
    - `project`: project in W&B.
    - `name`: name of the run; None is the options by which it differs.
    - `run_id`: identity of the run; None is that of the command.
    - `group`: group of runs; None is the sweep.
    - `tags`: tags besides those of the experiment and the data.
    - `notes`: a text about the run.
    - `checkpoints`: the checkpoint that is uploaded as an artifact when the run ends.
    """

    shares_folder = True  # with other runs: W&B makes a folder for each run

    def __init__(
        self,
        folder: str,
        project: str,
        name: str | None = None,
        run_id: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        checkpoints: Literal["best", "last", "none"] = "none",
    ):
        super().__init__()
        self.folder, self.project, self._name, self.run_id = folder, project, name, run_id
        self.group, self.tags, self.notes, self.checkpoints = group, tags, notes, checkpoints
        self._about: About | None = None
        self._run: Any = None
        self._failed = False
        self._step = 0  # of the latest row
        self._last: dict[str, float] = {}  # value of each number, and its range, also before a resumption
        self._range: dict[str, tuple[float, float]] = {}
        self._declared: set[str] = set()

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return self._run.id if self._run else None

    def verify(self, config: Mapping[str, Any]) -> None:
        """Raises `ValueError` if the best checkpoint is requested of a configuration that names no metric for it."""
        callbacks = (config.get("callbacks") or {}).values()
        if self.checkpoints == "best" and not any(isinstance(each, Mapping) and each.get("best") for each in callbacks):
            raise ValueError(
                "logger.wandb.checkpoints=best requires the metric by which a checkpoint is the best: set "
                "callbacks.checkpoint.best, such as callbacks.checkpoint.best=validation/loss"
            )

    @rank_zero_only
    def begin_run(self, about: About) -> None:
        """Receives what the run is called; W&B's run starts when something is logged."""
        self._about = about

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._try(lambda run: run.config.update(params, allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(lambda run: run.log({**metrics, STEP: step}))

    @rank_zero_only
    def log_row(self, values: Mapping[str, float], pictures: Mapping[str, Picture], step: int) -> None:
        """Logs numbers and pictures by name as the row of a step; W&B's own step is the same number."""
        self._try(lambda run: self._log(run, values, pictures, step))

    @rank_zero_only
    def log_image(
        self, key: str, images: list[Any], step: int | None = None, caption: Sequence[str] | None = None
    ) -> None:
        """Logs pictures (H, W, C) under a name, each with its caption."""
        import wandb

        texts = [None] * len(images) if caption is None else caption
        pictures = [wandb.Image(each, caption=text) for each, text in zip(images, texts, strict=True)]
        self._try(lambda run: run.log({key: pictures} if step is None else {key: pictures, STEP: step}))

    @rank_zero_only
    def log_table(self, key: str, lines: list[list[str]]) -> None:
        """Logs a table, a header and its rows, under a name."""
        import wandb

        header, *rows = lines
        self._try(lambda run: run.log({key: wandb.Table(columns=[*header], data=rows)}))

    @rank_zero_only
    def end_run(self, outcome: Outcome) -> None:
        """Ends W&B's run, if it has started: summary, checkpoint, alert and exit code."""
        if self._run is not None:
            self._try(lambda run: self._conclude(run, outcome))
            self._finish(outcome.exit_code)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None and self._about is None:  # a command that has started a run also ends it
            self._finish(0 if status == "success" else 1)

    def _finish(self, exit_code: int) -> None:
        run, self._run = self._run, None
        with contextlib.suppress(Exception):  # after an error, which was shown, too
            run.finish(exit_code=exit_code)

    def _log(self, run: Any, values: Mapping[str, float], pictures: Mapping[str, Picture], step: int) -> None:
        """Logs the row of a step, unless an earlier process of the run has logged it."""
        row = self._row(run, values, pictures, step)
        if step > self._step:
            self._step = step
            run.log(row, step=step, commit=True)

    def _row(self, run: Any, values: Mapping[str, float], pictures: Mapping[str, Picture], step: int) -> dict[str, Any]:
        """Returns a row as W&B receives it: values over intervals as a chart each, and pictures with their captions."""
        import wandb

        numbers = {name: value for name, value in values.items() if not _INTERVAL.fullmatch(name)}
        self._declare(run, numbers)
        self._note(numbers)
        row: dict[str, Any] = {**numbers, STEP: step}
        for name, bars in _bars(values).items():  # in the row itself, where a table would be an artifact for each row
            row[name] = wandb.Histogram(np_histogram=bars)
        for name, picture in pictures.items():
            row[name] = wandb.Image(picture.image, caption=picture.caption)
        objective = self._about.objective if self._about is not None else None
        if objective is not None and objective in numbers:
            row["objective"] = numbers[objective]
        return row

    def _declare(self, run: Any, numbers: Mapping[str, float]) -> None:
        """Declares best and last value as the summary of each number that improves in one direction."""
        for name in numbers.keys() - self._declared:
            direction = self._about.direction(name) if self._about is not None else None
            if direction is not None:  # a metric knows it after the first evaluation
                self._declared.add(name)
                run.define_metric(name, step_metric=STEP, summary=f"{direction},last")

    def _note(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._last[name] = value
            if value == value:  # not NaN
                low, high = self._range.get(name, (value, value))
                self._range[name] = min(low, value), max(high, value)

    def _summary(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Returns best and last value of the numbers that improve in one direction, and the last value of others."""
        assert self._about is not None
        self._note(metrics)
        summary: dict[str, Any] = {}
        for name, value in self._last.items():
            direction = self._about.direction(name)
            if direction is not None and name in self._range:
                summary[name] = {direction: self._range[name][direction == "max"], "last": value}
            elif not _INTERVAL.fullmatch(name):
                summary[name] = value
        objective = self._about.objective
        if objective is not None and objective in self._last:
            summary["objective"] = self._last[objective]
        return summary

    def _conclude(self, run: Any, outcome: Outcome) -> None:
        import wandb

        result = dict(outcome.result)
        numbers = self._summary(result.pop("metrics", None) or {})
        error = {} if outcome.error is None else {"error": outcome.error}
        run.summary.update({**numbers, **result, **error, "exit_code": outcome.exit_code})
        if self.checkpoints != "none" and (file := outcome.checkpoints(self.checkpoints)) is not None:
            artifact = wandb.Artifact(f"{run.id}-checkpoint", "model", metadata={"steps": result.get("steps")})
            artifact.add_file(str(file), policy="immutable")  # no copy in the home directory
            run.log_artifact(artifact, aliases=[self.checkpoints, file.stem])
        if outcome.alert is not None:
            run.alert(outcome.alert[:_LONGEST], outcome.error or "", level="ERROR")

    def _try(self, action: Callable[[Any], T]) -> None:
        if self._failed:
            return
        try:
            if self._run is None:
                self._run = self._start()
            action(self._run)
        except Exception as error:
            self._failed = True
            warnings.warn(f"W&B logging has stopped, and the run continues without it: {error}", stacklevel=2)

    def _start(self) -> Any:
        import wandb

        about = self._about or About(self._name or self.project, "report")
        run_id = self.run_id or about.run_id
        make_folder(Path(self.folder) / "wandb")  # W&B itself would follow a link
        with masked_command(), agent_only_of(run_id):
            mode: Any = os.environ.get("WANDB_MODE") or self._mode(wandb)
            # Where W&B answers, it knows the step itself, but not of files that are uploaded later.
            logged = last_step(Path(self.folder), run_id, "*" if mode == "offline" else "offline-") if run_id else 0
            run = wandb.init(
                project=self.project,
                name=self._name or about.name,
                id=run_id,
                group=self.group or about.group,
                job_type=about.job_type,
                tags=list(dict.fromkeys(each[:_LONGEST] for each in (*about.tags, *self.tags))),
                notes=self.notes,
                resume="allow",
                dir=self.folder,
                mode=mode,
                reinit="finish_previous",
                settings=wandb.Settings(silent=True, init_timeout=10),
            )
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        self._step = max(logged, run.starting_step - 1)
        self._catch_up(run, about)
        return run

    def _catch_up(self, run: Any, about: About) -> None:
        """Logs the rows of a resumed run that W&B does not have, such as those that a killed process has lost."""
        for row in about.before:
            values = {name: value for name, value in row.items() if name != "step"}
            self._log(run, values, {}, int(row["step"]))

    def _mode(self, wandb: Any) -> Any:
        if not wandb.login(prompt=False, verify=False):
            _inform("W&B: logging offline without an API key (`wandb login` sets one, `wandb sync` uploads later)")
            return "offline"
        address = urlsplit(wandb.Settings().base_url)
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=3).close()
        except OSError as error:
            _inform(f"W&B: logging offline, because {address.hostname} does not answer ({error})")
            return "offline"
        return "online"


def _bars(values: Mapping[str, float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns by name the values over intervals, and the edges of these; an interval without a value has 0."""
    heights: dict[str, dict[float, float]] = {}
    edges: dict[str, set[float]] = {}
    for name, value in values.items():
        if match := _INTERVAL.fullmatch(name):
            low, high = float(match[2]), float(match[3])
            heights.setdefault(match[1], {})[low] = value
            edges.setdefault(match[1], set()).update((low, high))
    return {
        name: (np.array([height.get(low, 0.0) for low in sorted(edges[name])[:-1]]), np.array(sorted(edges[name])))
        for name, height in heights.items()
    }


def _inform(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
