"""What a command states to trackers: what a run is called when it starts, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

Direction = Literal["min", "max"]


def _without_direction(name: str) -> Direction | None:
    return None


@dataclass(frozen=True)
class About:
    """A run, as trackers list it.

    - `name`: its name.
    - `job_type`: the command: train, sample or report.
    - `run_id`: its identity, by which it is resumed.
    - `group`: name of its sweep, or None.
    - `tags`: names of its experiment and its data.
    - `objective`: the metric that a sweep optimizes, or None without one or with several.
    - `direction`: a function from the name of a metric to the direction in which it improves, or None without one.
    - `before`: the rows of the run up to the checkpoint from which it was resumed.
    """

    name: str
    job_type: str
    run_id: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()
    objective: str | None = None
    direction: Callable[[str], Direction | None] = _without_direction
    before: Sequence[Mapping[str, Any]] = ()


class Picture(NamedTuple):
    """A picture (H, W, C) or (H, W), and how it was made."""

    image: np.ndarray
    caption: str


@dataclass
class Outcome:
    """How a run ended.

    - `exit_code`: exit code of its command.
    - `result`: the content of `result.json`, or of a run that failed the facts that are known.
    - `error`: the message of the error, or None.
    - `alert`: title of the alert about it, or None for a run that ended as requested.
    - `checkpoints`: a function from best or last to the file of that checkpoint, or None without one.
    """

    exit_code: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    alert: str | None = None
    checkpoints: Callable[[str], Path | None] = field(default=lambda kind: None)


def caption(weights: object, config: Mapping[str, Any], step: int | None = None) -> str:
    """Returns how samples were made, in a line: training step, weights, sampler and guidance.

    `config` has `sampler` and `guidance` as in the configuration of a pipeline.
    """
    parts = [] if step is None else [f"step {step}"]
    parts.append(f"weights {weights}")
    if sampler := config.get("sampler"):
        steps = (sampler.get("time_grid") or {}).get("num_steps")
        parts.append(f"sampler {_class(sampler)}" + (f" with {steps} steps" if steps else ""))
    guides = [_guide(name, guide) for name, guide in (config.get("guidance") or {}).items() if guide]
    return ", ".join([*parts, f"guidance {' and '.join(guides) or 'none'}"])


def _class(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def _guide(name: str, guide: Any) -> str:
    scale = guide.get("scale") if isinstance(guide, Mapping) else None
    return name if scale is None else f"{name} {scale:g}" if isinstance(scale, int | float) else f"{name} {scale}"
