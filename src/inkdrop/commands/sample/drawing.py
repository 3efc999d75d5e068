"""Draws the samples of a prepared run, stage by stage, on one device or several."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor

from inkdrop.commands.sample.prepare import PreparedSampling
from inkdrop.commands.sample.stages import Stage
from inkdrop.distributed.ranks import raised_together
from inkdrop.pipeline import calls_counted
from inkdrop.randomness import Generators


class StageSamples(NamedTuple):
    """The samples of one stage with their raw conditions, all on the CPU."""

    samples: Tensor
    batch: dict[str, Tensor]


class Drawn(NamedTuple):
    """The samples of a run.

    - `stages`: those of each stage.
    - `trajectory`: states of the first batch of the last stage from noise to samples, if they are requested.
    - `facts`: number and cost of the samples, for `result.json`.
    """

    stages: list[StageSamples]
    trajectory: list[Tensor]
    facts: dict[str, Any]

    @property
    def samples(self) -> Tensor:
        """The samples of the last stage."""
        return self.stages[-1].samples


def draw(fabric: Fabric, task: PreparedSampling) -> Drawn:
    """Draws all samples of a run to the CPU of every rank; each rank draws its share of the batches."""
    plain, start, calls_of_each = task.plain, time.monotonic(), 0
    kept: list[Tensor] = []
    drawn: list[StageSamples] = []
    for number, stage in enumerate(task.stages):
        batch = stage.batch(drawn[-1].samples, task.batch, task.seeds) if number else task.batch
        wanted = (plain["save_gif"] or plain["save_trajectory"]) and stage is task.stages[-1]
        with fabric.autocast(), calls_counted(stage.pipeline) as calls:
            samples = _Drawing(fabric, task, number, batch).all(kept if wanted else None)
        own = torch.arange(len(task.seeds)).split(stage.plain["batch_size"])[fabric.global_rank :: fabric.world_size]
        calls_of_each += calls(sum(map(len, own)))
        drawn.append(StageSamples(samples, batch))
    seconds = time.monotonic() - start
    cost = {
        "num_samples": len(task.seeds),
        "network_calls": calls_of_each,
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(task.seeds) / seconds, 2),
    }
    return Drawn(drawn, kept, cost)


class _Drawing:
    """The drawing of one stage under these raw conditions."""

    def __init__(self, fabric: Fabric, task: PreparedSampling, number: int, batch: Mapping[str, Tensor]):
        self.fabric, self.task, self.number, self.batch = fabric, task, number, batch
        self.stage: Stage = task.stages[number]
        self.parts = torch.arange(len(task.seeds)).split(self.stage.plain["batch_size"])

    def all(self, trajectory: list[Tensor] | None) -> Tensor:
        """Returns all samples on every rank, and adds the states of the first batch to `trajectory`."""
        from rich.progress import Progress

        fabric, pipeline, count = self.fabric, self.stage.pipeline, len(self.task.seeds)
        first = {name: values[self.parts[0]].to(fabric.device) for name, values in self.batch.items()}
        drawn: Tensor | None = None
        stages = len(self.task.stages)
        what = "sampling" if stages == 1 else f"sampling, stage {self.number + 1} of {stages}"
        with raised_together(), Progress(disable=not fabric.is_global_zero, transient=True) as bar:
            shown = bar.add_task(what, total=None)
            for place in range(fabric.global_rank, len(self.parts), fabric.world_size):

                def progress(done: int, total: int, x: Tensor, place: int = place) -> None:
                    bar.update(shown, total=total * len(self.parts), completed=done + place * total)
                    if trajectory is not None and place == 0:
                        trajectory.append(pipeline.codec.decode(x, first).cpu())

                part = self._part(self.parts[place], progress)
                if drawn is None:
                    drawn = part.new_zeros(count, *part.shape[1:])
                drawn[self.parts[place]] = part
        if fabric.world_size > 1:
            if drawn is None:  # fewer batches than devices
                item = {name: values[:1] for name, values in first.items()}
                example = pipeline.codec.decode(torch.zeros(1, *pipeline.shape, device=fabric.device), item)
                drawn = example.new_zeros(count, *example.shape[1:])
            torch.distributed.all_reduce(drawn)
        assert drawn is not None
        return drawn.cpu()

    def _part(self, items: Tensor, progress: Any) -> Tensor:
        """Returns the samples with these numbers; each stage has its own random streams."""
        task, pipeline = self.task, self.stage.pipeline
        conditions = {name: values[items] for name, values in self.batch.items()}
        seeds = [task.seeds[item] for item in items.tolist()]
        if self.number:
            streams = Generators.from_seeds(seeds).at("stage", self.number)
            conditions = {"position": torch.tensor(seeds), **conditions}
            return pipeline.draw(conditions, streams, progress=progress, named=seeds)
        start: dict[str, Any] = {}  # models that are no pipelines take no start
        if task.origin is not None:
            sources = {name: values[items] for name, values in task.sources.items()}
            start = task.origin.begin(pipeline, sources, conditions)._asdict()
        return pipeline(conditions, seeds, progress=progress, **start)
