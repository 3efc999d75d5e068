"""One sampling run, from a checkpoint to `samples.npz`, pictures and `result.json`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric import Fabric
from torch import Tensor

from inkdrop.commands.sample.files import (
    Features,
    features_of,
    write_features,
    write_images,
    write_neighbours,
    write_samples,
    write_trajectory,
)
from inkdrop.commands.sample.prepare import Measured, PreparedSampling
from inkdrop.conditioners.label import is_named, named
from inkdrop.distributed.processes import is_first
from inkdrop.distributed.ranks import raised_together
from inkdrop.errors import NonFiniteError
from inkdrop.metrics.protocol import sampling_facts, summary
from inkdrop.pipeline import Pipeline, calls_counted, compile_network
from inkdrop.runs.ownership import locked
from inkdrop.runs.record import facts, write_json
from inkdrop.runs.resumption import refuse_results


def sample(prepared: PreparedSampling) -> dict[str, Any]:
    """Draws what was prepared and leaves it in its folder; returns what `result.json` says.

    Each of several devices makes its share of the batches; the samples are the same as from one.
    """
    folder, plain = prepared.asked.path, prepared.plain
    with prepared.open as stack:
        stack.enter_context(locked(folder))
        if is_first():
            refuse_results(folder)  # of another process, which were not there when all was checked
        fabric = Fabric(**plain["trainer"])
        fabric.launch()
        _to_device(prepared, fabric)
        try:
            drawn = _drawn(fabric, prepared)
            result, features = _result(fabric, prepared, drawn)
        except NonFiniteError as error:
            told = f"{error}; nothing was written: try trainer.precision=32-true, or other weights"
            raise NonFiniteError(told) from error
        if fabric.is_global_zero:
            _write(folder, prepared, drawn, features)
            write_json(result, folder / "result.json")
            _tell(prepared, result)
    return result


def _to_device(prepared: PreparedSampling, fabric: Fabric) -> None:
    prepared.pipeline.to(fabric.device)
    if prepared.measured is not None:
        prepared.measured.evaluation.to(fabric.device)
    if prepared.plain["compile"]:
        compile_network(prepared.pipeline, prepared.plain["cuda_graphs"])


def _result(fabric: Fabric, prepared: PreparedSampling, drawn: _Drawn) -> tuple[dict[str, Any], Features | None]:
    """What `result.json` says, and the features of samples and data if they are to be shown."""
    plain, measured, features = prepared.plain, prepared.measured, None
    result = {
        **prepared.source,
        **drawn.facts,
        **prepared.origin.facts(prepared.pipeline, drawn.samples),
        **_per_class(prepared.pipeline, prepared.batch),
        "seed": plain["seed"],
        "sampler": plain["sampler"],
        **facts(),
    }
    if measured is not None:
        with fabric.autocast():
            result |= _values(measured, prepared.pipeline, drawn.samples, plain, result)
        if plain["save_neighbours"] or plain["save_features"]:
            features = features_of(drawn.samples, measured.evaluation, measured.data)
    return result, features


def _tell(prepared: PreparedSampling, result: dict[str, Any]) -> None:
    """The last lines on the terminal: what was measured, and what it cost."""
    if prepared.measured is not None:
        print(summary(result["metrics"], result["protocol"]))
    if "classes" in result and is_named(prepared.pipeline.classes):
        print(f"per class, as in the rows of grid.png: {named([f'{k} {v}' for k, v in result['classes'].items()])}")
    calls, seconds, count = result["network_calls"], result["seconds"], len(prepared.seeds)
    print(f"{count} samples in {seconds:.1f} s, {calls} network calls each: {prepared.asked.path}")


class _Drawn(NamedTuple):
    samples: Tensor
    way: list[Tensor]  # of the first batch from noise to samples, if it is to be shown
    facts: dict[str, Any]  # how many, and what they cost


def _drawn(fabric: Fabric, task: PreparedSampling) -> _Drawn:
    plain, start = task.plain, time.monotonic()
    way: list[Tensor] = []
    with fabric.autocast(), calls_counted(task.pipeline) as calls:
        samples = _draw(fabric, task, way if plain["save_gif"] or plain["save_trajectory"] else None)
    seconds = time.monotonic() - start
    own = torch.arange(len(task.seeds)).split(plain["batch_size"])[fabric.global_rank :: fabric.world_size]
    told = {
        "num_samples": len(samples),
        "network_calls": calls(sum(map(len, own))),
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(samples) / seconds, 2),
    }
    return _Drawn(samples, way, told)


def _per_class(pipeline: Pipeline, batch: dict[str, Tensor]) -> dict[str, Any]:
    """How many samples are of which class, where classes have names."""
    if not pipeline.classes or "label" not in batch:
        return {}
    labels, counts = batch["label"].unique(return_counts=True)
    return {"classes": {pipeline.classes[k]: n for k, n in zip(labels.tolist(), counts.tolist(), strict=True)}}


def _write(output: Path, prepared: PreparedSampling, drawn: _Drawn, features: Features | None) -> None:
    plain, measured = prepared.plain, prepared.measured
    write_samples(output, drawn.samples, prepared.batch, prepared.seeds, prepared.pipeline.classes)
    if plain["save_images"]:
        write_images(output, drawn.samples, prepared.image_names)
    if drawn.way:
        write_trajectory(output, drawn.way, plain["save_gif"], plain["save_trajectory"])
    if measured is None or features is None:
        return
    if plain["save_neighbours"]:
        reference = measured.data.splits[measured.evaluation.reference]["x"]
        write_neighbours(output, drawn.samples, features, reference)
    if plain["save_features"]:
        write_features(output, features)


def _values(
    measured: Measured, pipeline: Pipeline, samples: Tensor, plain: dict[str, Any], result: dict[str, Any]
) -> dict[str, Any]:
    """The metrics, how long they took, and the protocol that they were measured under."""
    evaluation, data = measured
    metrics = evaluation.measure(list(samples.split(plain["num_samples"])), data)
    held_out = len(data.splits["validation"]["x"])
    metrics |= evaluation.likelihoods(pipeline, data, min(plain["num_samples"], held_out))
    precision = plain["trainer"]["precision"]
    sampling = sampling_facts(plain, result["weights"], plain["seed"], result["network_calls"], precision)
    return {
        "metrics": metrics,
        "evaluation_seconds": {part: round(value, 3) for part, value in evaluation.seconds.items()},
        "protocol": evaluation.protocol(data, sampling),
    }


def _draw(fabric: Fabric, task: PreparedSampling, way: list[Tensor] | None) -> Tensor:
    """All samples on the CPU of every rank; the states of the first batch on its way there are added to `way`."""
    from rich.progress import Progress

    pipeline, seeds = task.pipeline, task.seeds
    parts = torch.arange(len(seeds)).split(task.plain["batch_size"])
    drawn: Tensor | None = None
    with raised_together(), Progress(disable=not fabric.is_global_zero, transient=True) as bar:
        shown = bar.add_task("sampling", total=None)
        for number in range(fabric.global_rank, len(parts), fabric.world_size):
            items = parts[number]

            def progress(done: int, total: int, x: Tensor, number: int = number) -> None:
                bar.update(shown, total=total * len(parts), completed=done + number * total)
                if way is not None and number == 0:
                    way.append(pipeline.codec.decode(x).cpu())

            conditions = {name: values[items] for name, values in task.batch.items()}
            eps = task.origin.noise(pipeline, conditions, items)
            part = pipeline(conditions, [seeds[item] for item in items.tolist()], progress=progress, eps=eps)
            if drawn is None:
                drawn = part.new_zeros(len(seeds), *part.shape[1:])
            drawn[items] = part
    if fabric.world_size > 1:
        if drawn is None:  # fewer batches than devices
            example = pipeline.codec.decode(torch.zeros(1, *pipeline.shape, device=fabric.device))
            drawn = example.new_zeros(len(seeds), *example.shape[1:])
        torch.distributed.all_reduce(drawn)
    assert drawn is not None
    return drawn.cpu()
