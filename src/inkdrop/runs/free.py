"""The options of a run that change no result.

This module imports nothing, so that commands which compare configurations start without torch.
"""

from __future__ import annotations

from collections.abc import Iterable

# These options affect where a run is computed and what is shown, not what is computed.
FREE = (
    "base",
    "baseline",
    "output_dir",
    "run_id",
    "timeout_minutes",
    "objective",
    "resume",
    "resume_allow",
    "logger",
    "checkpoint_activations",
    "data.num_workers",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "callbacks.progress",
    "view",
    "pipeline.view",
    "task.pipeline.view",
    "callbacks.throughput",
)


def within(path: str, names: Iterable[str]) -> bool:
    """Returns whether a path is one of these options, or below one of them."""
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in names)
