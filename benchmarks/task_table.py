"""What parts of `benchmarks/image_tasks.py` share: rows of a table, runs that are trained once, and regressions."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import inkdrop
from inkdrop.configuration import build
from inkdrop.data import DataModule
from inkdrop.data.loaders import Split
from inkdrop.metrics.frechet import frechet_distance
from inkdrop.metrics.moments import GaussianStatistics
from inkdrop.pipeline import Pipeline

for _folder in ("tests", "docs"):  # exact denoisers, and how experiments are composed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / _folder))
_CHOICES = importlib.import_module("choices")

FAILED: list[str] = []
Loss = Callable[[Tensor, Tensor], Tensor]


def row(name: str, shown: str, asks: str = "", met: bool | None = None) -> None:
    """Prints a line of the table."""
    verdict = "" if met is None else "yes" if met else "**no**"
    if met is False:
        FAILED.append(name)
    print(f"| {name} | {shown} | {asks} | {verdict} |", flush=True)


def trained(folder: Path, name: str, *options: str) -> Path:
    """Returns the run of this name, which is trained if it does not exist."""
    run = folder / name
    if not (run / "result.json").exists():
        inkdrop.train(*options, "logger=none", "callbacks.pictures=null", f"output_dir={run}")
    return run


def sampled(run: Path, *options: str) -> dict[str, Any]:
    """Returns result.json of samples of a run, in a new folder below it."""
    folder = run / "samples" / str(time.time_ns())
    return inkdrop.sample(f"checkpoint={run}", f"output_dir={folder}", *options)


def latest(run: Path) -> Tensor:
    """Returns the newest samples of a run as (N, C, H, W)."""
    newest = max((run / "samples").glob("*/samples.npz"), key=lambda file: file.stat().st_mtime)
    with np.load(newest) as file:
        x = torch.from_numpy(file["x"])
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x[:, None]


def part_of(options: list[str], name: str) -> Any:
    """Returns a part that the configuration of an experiment builds."""
    return build(_CHOICES.composed(options)[name])


def data_of(options: list[str]) -> dict[str, Split]:
    """Returns the splits of the data of an experiment."""
    module: DataModule = part_of(options, "data")
    return module.splits


def regression(options: list[str], loss: Loss) -> Callable[[Tensor], Tensor]:
    """Returns the network of an experiment, fitted to map images to x in one call by another loss, in as many steps."""
    torch.manual_seed(0)
    config = _CHOICES.composed(options)
    pipeline: Pipeline = build(config["pipeline"])
    network, batch, steps = pipeline.network.train(), config["data"]["batch_size"], config["trainer"]["max_steps"]
    train = data_of(options)["train"]
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    c_noise = torch.zeros(batch)
    for _ in range(steps):
        rows = torch.randint(len(train["x"]), (batch,))
        x = train["x"][rows].float() / 127.5 - 1
        cond = pipeline.conditioner({"image": train["image"][rows]})
        optimizer.zero_grad()
        loss(network(torch.zeros_like(x), c_noise, **cond), x).backward()
        optimizer.step()
        schedule.step()
    network.eval()

    @torch.no_grad()
    def mapped(image: Tensor) -> Tensor:
        parts = []
        for each in image.split(256):
            start = torch.zeros(len(each), *pipeline.shape)
            parts.append(network(start, c_noise[:1].expand(len(each)), **pipeline.conditioner({"image": each})))
        return torch.cat(parts)

    return mapped


def drawn(pipeline: Pipeline, batch: dict[str, Tensor]) -> Tensor:
    """Samples of the seeds 0, 1, ..., one for each item of the batch."""
    parts = []
    for seeds in torch.arange(len(next(iter(batch.values())))).split(256):
        parts.append(pipeline({name: value[seeds] for name, value in batch.items()}, seeds.tolist()).cpu())
    return torch.cat(parts)


def moments(x: Tensor) -> GaussianStatistics:
    """The moments of pixels in [-1, 1]."""
    statistics = GaussianStatistics(x[0].numel())
    for part in x.split(1000):
        statistics.update(part.flatten(1).double() / 127.5 - 1)
    return statistics


def distance(x: Tensor, truth: GaussianStatistics) -> float:
    """Returns the Frechet distance of the raw pixels of a set to that of these moments."""
    return frechet_distance(moments(x.float().clamp(0, 255)).compute(), truth.compute())
