"""Whether this machine can do what `trainer` asks for, and whether data and batches go together."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.utilities import rank_zero_warn

from inkdrop.data import DataModule
from inkdrop.data.loaders import OrderedLoader
from inkdrop.errors import DataError

SILENT: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}


@contextlib.contextmanager
def refused_devices(options: Mapping[str, Any]) -> Iterator[None]:
    """A trainer that cannot be made within the block is a `ValueError` that names its devices."""
    try:
        yield
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"trainer.devices={options.get('devices')} cannot be had here: {error}") from None


def check_devices(trainer: Trainer, options: Mapping[str, Any]) -> None:
    """`ValueError` if this machine cannot do what was asked of a trainer by these options."""
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    if on_cpu and trainer.num_devices > (cores := os.cpu_count() or 1):
        raise ValueError(f"trainer.devices={options.get('devices')}, but here is no GPU, and a CPU of {cores} cores")
    if on_cpu and options.get("precision") == "16-mixed":
        raise ValueError("trainer.precision=16-mixed needs a GPU: on a CPU choose bf16-mixed or 32-true")


def world_size_of(options: Mapping[str, Any]) -> int:
    """The number of processes that a trainer with these options works in; `ValueError` if this machine cannot."""
    with refused_devices(options), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will tell
        trainer = Trainer(**{**options, **SILENT})
    check_devices(trainer, options)
    return trainer.world_size


def whole_steps(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a trainer with validation between two optimizer steps, where batches are accumulated as well."""
    interval, accumulated = options.get("val_check_interval"), options.get("accumulate_grad_batches", 1)
    return {**options, "val_check_interval": interval and -(-interval // accumulated) * accumulated}


def check_batch_size(batch_size: int, world_size: int) -> None:
    """`ValueError` unless each device gets the same share of a batch."""
    if batch_size % world_size:
        raise ValueError(f"data.batch_size={batch_size} is not divisible by {world_size} devices")


def check_held_out(data: DataModule, world_size: int) -> None:
    """`DataError` unless each device gets an item that is held out."""
    try:
        OrderedLoader(data.splits["validation"], 1, 0, world_size)
    except ValueError as error:
        raise DataError(str(error)) from None


def check_items(data: DataModule, options: Mapping[str, Any]) -> None:
    """`DataError` for less than a batch to train on, or nothing held out; a warning for less than an optimizer step."""
    for name, least in (("train", data.batch_size), ("validation", 1)):
        if (count := len(data.splits[name]["x"])) < least:
            raise DataError(
                f"{name} holds {count} items, fewer than {least}: data.batch_size={data.batch_size} for "
                f"trainer.devices={options.get('devices')} needs more data, or a smaller batch"
            )
    batches = -(-len(data.splits["train"]["x"]) // data.batch_size)
    if (accumulated := options.get("accumulate_grad_batches", 1)) > batches:
        rank_zero_warn(
            f"trainer.accumulate_grad_batches={accumulated}, but a pass over the data has {batches} batches: each step "
            "sees some of the data more than once"
        )
