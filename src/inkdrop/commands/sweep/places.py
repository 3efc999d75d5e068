"""Shares of a machine for trials that run at the same time: devices and threads."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from inkdrop.commands.sweep.pool import Place
from inkdrop.errors import ConfigurationError

_MOST = 8  # trials at a time on CPUs alone: each has its own copy of the data


def show(arguments: Sequence[str]) -> None:
    """Prints the indices of the GPUs as JSON; it imports torch, and runs in a separate process."""
    print("GPUS " + json.dumps(gpus()))


def gpus() -> list[str]:
    """Returns the GPUs of this machine, as CUDA_VISIBLE_DEVICES names them; it imports torch."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return names[: torch.cuda.device_count()]


def may_use_gpus(trainers: Sequence[Any]) -> bool:
    """Returns whether the `trainer` options of some trial allow GPUs."""
    return any(str(each.get("accelerator")) != "cpu" for each in trainers)


def devices_of(trainer: Any, available: int) -> int:
    """Returns the number of devices of a trial; raises `ConfigurationError` for devices that are named by number."""
    devices = trainer.get("devices", 1)
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    if devices in ("auto", -1, "-1"):
        return max(1, available)
    raise ConfigurationError(
        f"trainer.devices={devices} names devices, but each trial of a sweep gets its own share of them: set a number, "
        "and choose the GPUs of the sweep by CUDA_VISIBLE_DEVICES"
    )


def places(jobs: int | str, trainers: Sequence[Any], gpus: Sequence[str]) -> list[Place]:
    """Returns a place for each trial that runs at the same time.

    - `jobs`: number of places, or `auto`: as many as there are devices for, and on CPUs at most eight.
    - `trainers`: `trainer` options of all trials.
    - `gpus`: the GPUs of this machine, as CUDA_VISIBLE_DEVICES names them.

    Raises `ConfigurationError` if there are too few GPUs for the number of places.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    needed = max((devices_of(each, len(gpus) or cores) for each in trainers), default=1)
    if not gpus:
        count = max(1, min(cores // needed, _MOST)) if jobs == "auto" else int(jobs)
        return [Place({}, _threads(cores // (count * needed)))] * count
    if needed > len(gpus):
        count = 1 if jobs == "auto" else int(jobs)  # the check of the trial itself says what is wrong
        return [Place()] * count
    count = len(gpus) // needed if jobs == "auto" else int(jobs)
    if count * needed > len(gpus):
        raise ConfigurationError(
            f"hydra.launcher.jobs={jobs} with trainer.devices={needed} needs {count * needed} GPUs, but this machine "
            f"has {len(gpus)}: lower one of them"
        )
    shares = [gpus[number * needed : (number + 1) * needed] for number in range(count)]
    return [Place({"CUDA_VISIBLE_DEVICES": ",".join(share)}, _threads(cores // count)) for share in shares]


def _threads(count: int) -> int:
    """Returns the number of threads of a trial: that of OMP_NUM_THREADS, or its share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else max(1, count)
