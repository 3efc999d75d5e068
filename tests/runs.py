"""Small runs within the process of the tests: their options, train.py and sample.py on them, and what they leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from entry_scripts import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.content import tensors
from inkdrop.commands.terminal import stop
from inkdrop.errors import InkdropError

TINY = [
    "network.base_channels=8",
    "network.channel_multipliers=[1]",
    "network.norm_groups=4",
    "network.num_blocks=1",
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=2",
    "trainer.val_check_interval=3",
    "time_grid.num_steps=4",
    "evaluation.num_samples=20",
    "metric.frechet.min_samples=2",
    "callbacks.pictures.num_samples=20",
    "data.batch_size=16",
    "++trainer.limit_val_batches=2",
    # An untrained network is a smooth function of x only where its zeros mean "the data are what you see".
    "prediction=v",
    "guidance=none",
]
STEPS = 22
RECORDED = [
    "logger=none",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    "++trainer.limit_val_batches=2",
    "data.batch_size=8",
    "callbacks.ema.decays=[0.9,0.99]",
    "callbacks.loss_by_noise_level.every.steps=3",
    "callbacks.checkpoint.every.steps=1",
    "callbacks.checkpoint.keep=100",
    "~callbacks.evaluate",
    "~callbacks.pictures",
]
POINTS = ["experiment=moons", *RECORDED, "network.dropout=0.2", "network.width=16", "network.num_blocks=1"]
IN_PROCESS = ["hydra/launcher=basic"]  # of a sweep: its trials run in its own process
SHORT = ["trainer.max_steps=4", "scheduler.num_steps=4"]


def configuration(name: str, *overrides: str) -> DictConfig:
    """What train.py or sample.py composes of these options, by the name of its primary configuration."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, list(overrides))


def as_a_command(command: Callable[..., dict[str, Any]], *options: str) -> dict[str, Any]:
    """What a command returns; an error that the user can mend ends it with its message and its code."""
    try:
        return command(*options)
    except InkdropError as error:
        stop(error)


def trained(folder: Path, *overrides: str, logger: str = "none", options: Sequence[str] = TINY) -> dict[str, Any]:
    """Trains within this process and returns result.json."""
    folder.mkdir(parents=True)
    return as_a_command(inkdrop.train, *options, f"logger={logger}", f"output_dir={folder}", *overrides)


def sampled(checkpoint: Path, folder: Path, *overrides: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Samples within this process; samples.npz and result.json."""
    folder.mkdir(parents=True)
    result = as_a_command(inkdrop.sample, f"checkpoint={checkpoint}", f"output_dir={folder}", *overrides)
    return arrays_of(folder), result


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """What sample.py has written to samples.npz."""
    with np.load(folder / "samples.npz") as file:
        return dict(file)


def points(folder: Path, *overrides: str) -> dict[str, float]:
    """Trains a small network on points of the plane, whose samples are not rounded to 8 bits."""
    folder.mkdir()
    options = [option for option in TINY if not option.startswith(("network.", "guidance"))]
    small = ["experiment=moons", "network.width=16", "network.num_blocks=1", "logger=none"]
    short = ["trainer.max_steps=40", "++trainer.limit_val_batches=4"]
    return as_a_command(inkdrop.train, *options, *small, *short, f"output_dir={folder}", *overrides)["metrics"]


def run(folder: Path, *overrides: str, model: list[str] = POINTS) -> dict[str, Any]:
    """Trains within this process as train.py does, in this folder; the last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    as_a_command(inkdrop.train, *model, f"output_dir={folder}", *overrides)
    return read_checkpoint(folder)


def interrupted(whole: Path, step: int, folder: Path) -> Path:
    """The folder that the run had left if it had been killed after the checkpoint of this step."""
    (folder / "checkpoints").mkdir(parents=True)
    index = json.loads((whole / "checkpoints" / "index.json").read_text())
    index["files"] = [entry for entry in index["files"] if entry["step"] <= step]
    (folder / "checkpoints" / "index.json").write_text(json.dumps(index))
    for entry in index["files"]:
        (folder / "checkpoints" / entry["name"]).hardlink_to(whole / "checkpoints" / entry["name"])
    for name in ("config.yaml", "metrics.jsonl"):  # the record goes on beyond the checkpoint
        shutil.copy(whole / name, folder / name)
    return folder


def recorded(folder: Path) -> list[dict[str, float]]:
    """What was recorded, without the time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["time"]
    return lines


def logged(folder: Path) -> list[dict[str, float]]:
    """What was recorded and does not depend on the clock."""
    clocks = ("train/samples_per_second", "evaluation/")
    return [{k: v for k, v in line.items() if not k.startswith(clocks)} for line in recorded(folder)]


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of tensors and numbers that are not equal to the bit."""
    assert one.keys() == other.keys()
    first, second = dict(tensors(one)), dict(tensors(other))
    assert first.keys() == second.keys()
    wrong = [name for name in first if not torch.equal(first[name], second[name])]
    plain = ("global_step", "lr_schedulers", "callbacks", "metrics", "Digits", "Toy", "data_fingerprint")
    wrong += [name for name in plain if repr(one.get(name)) != repr(other.get(name))]
    first, second = (content["loops"]["fit_loop"] for content in (one, other))
    batches = "epoch_loop.batch_progress"
    wrong += ["batches"] if first[batches]["total"] != second[batches]["total"] else []
    return wrong + (["logged steps"] if first["epoch_loop.state_dict"] != second["epoch_loop.state_dict"] else [])


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
