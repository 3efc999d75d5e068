"""Checks the options of `trainer` against this machine, and the batches against the data."""

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
    """Raises `ValueError` with the name of the devices if a trainer cannot be made within the block."""
    try:
        yield
    except (MisconfigurationException, TypeError) as error:
        devices = options.get("devices")
        raise ValueError(f"trainer.devices={devices} is not available on this machine: {error}") from None


def check_devices(trainer: Trainer, options: Mapping[str, Any]) -> None:
    """Raises `ValueError` if this machine does not support these options of a trainer."""
    on_cpu = isinstance(trainer.accelerator, CPUAccelerator)
    if on_cpu and trainer.num_devices > (cores := os.cpu_count() or 1):
        raise ValueError(
            f"trainer.devices={options.get('devices')} is not available on this machine, which has no GPU and {cores} "
            "CPU cores: lower it"
        )
    if on_cpu and options.get("precision") == "16-mixed":
        raise ValueError("trainer.precision=16-mixed requires a GPU: on a CPU choose bf16-mixed or 32-true")


def world_size_of(options: Mapping[str, Any]) -> int:
    """Returns the number of processes of a trainer with these options; raises `ValueError` if they are unsupported."""
    with refused_devices(options), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run itself will warn
        trainer = Trainer(**{**options, **SILENT})
    check_devices(trainer, options)
    return trainer.world_size


def whole_steps(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a trainer with a validation interval of whole optimizer steps of accumulated batches."""
    interval, accumulated = options.get("val_check_interval"), options.get("accumulate_grad_batches", 1)
    return {**options, "val_check_interval": interval and -(-interval // accumulated) * accumulated}


def check_batch_size(batch_size: int, world_size: int) -> None:
    """Raises `ValueError` unless each device gets the same share of a batch."""
    if batch_size % world_size:
        raise ValueError(f"data.batch_size={batch_size} is not divisible by {world_size} devices: choose a multiple")


def check_held_out(data: DataModule, world_size: int) -> None:
    """Raises `DataError` unless each device gets a held-out item."""
    try:
        OrderedLoader(data.splits["validation"], 1, 0, world_size)
    except ValueError as error:
        raise DataError(str(error)) from None


def check_items(data: DataModule, options: Mapping[str, Any]) -> None:
    """Raises `DataError` for too few training items for a batch or no held-out item; warns if a step repeats items."""
    for name, least in (("train", data.batch_size), ("validation", 1)):
        if (count := len(data.splits[name]["x"])) < least:
            raise DataError(
                f"{name} has {count} items, fewer than {least}: with trainer.devices={options.get('devices')}, lower "
                f"data.batch_size={data.batch_size} or add data"
            )
    batches = -(-len(data.splits["train"]["x"]) // data.batch_size)
    if (accumulated := options.get("accumulate_grad_batches", 1)) > batches:
        rank_zero_warn(
            f"trainer.accumulate_grad_batches={accumulated} exceeds the {batches} batches of an epoch: each optimizer "
            "step uses some of the data more than once"
        )
