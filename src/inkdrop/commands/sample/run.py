"""One sampling run, from a checkpoint to `samples.npz`, pictures and `result.json`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor

from inkdrop.checkpoints import checked_data, find_checkpoint, read_checkpoint, reconstructed
from inkdrop.commands.sample.files import (
    Seen,
    seen,
    write_features,
    write_images,
    write_neighbours,
    write_samples,
    write_way,
)
from inkdrop.commands.sample.options import check_images, check_sampling, completed, data_of, image_names
from inkdrop.commands.sample.origins import Interpolation, Origin, Reconstruction
from inkdrop.commands.terminal import quiet, stop
from inkdrop.conditioners.label import is_named, named
from inkdrop.configuration import CHECKPOINT_TARGETS, USER_TARGETS, build, check, check_settings
from inkdrop.configuration.compose import resolved
from inkdrop.data.module import DataModule
from inkdrop.distributed.processes import is_first
from inkdrop.distributed.ranks import raised_together
from inkdrop.errors import NonFiniteError
from inkdrop.metrics import Evaluation
from inkdrop.metrics.protocol import sampling_facts, told
from inkdrop.pipeline import Pipeline, calls_counted, compile_network, restored
from inkdrop.runs.ownership import locked
from inkdrop.runs.record import facts, write_json
from inkdrop.runs.resumption import refuse_results

T = TypeVar("T")


def sample(config: DictConfig, output_dir: str) -> dict[str, Any]:
    """Draws samples from a checkpoint and leaves them in `output_dir`; returns what `result.json` says.

    Each of several devices makes its share of the batches; the samples are the same as from one. The trials of a sweep
    in one process share what they load.
    """
    quiet()
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(Path(output_dir)))
            if is_first():
                refuse_results(Path(output_dir))  # of another process, which were not there when all was checked
        except ValueError as error:
            stop(error)
        return _sample(config, output_dir)


def _sample(config: DictConfig, output_dir: str) -> dict[str, Any]:
    plain = resolved(config, output_dir, data_of(config))
    fabric = Fabric(**plain["trainer"])
    fabric.launch()
    try:
        task = _task(plain, (*USER_TARGETS, *plain["allow_targets"]))
    except ValueError as error:
        stop(error)
    _to_device(task, fabric)
    plain, measured, features = task.plain, task.measured, None
    try:
        drawn = _drawn(fabric, task)
        result = {
            **task.source,
            **drawn.facts,
            **task.origin.facts(task.pipeline, drawn.samples),
            **_per_class(task.pipeline, task.batch),
            "seed": plain["seed"],
            "sampler": plain["sampler"],
            **facts(),
        }
        if measured is not None:
            with fabric.autocast():
                result |= _values(measured, task.pipeline, drawn.samples, plain, result)
            if plain["save_neighbours"] or plain["save_features"]:
                features = seen(drawn.samples, measured.evaluation, measured.data)
    except NonFiniteError as error:
        stop(NonFiniteError(f"{error}; nothing was written: try trainer.precision=32-true, or other weights"))
    if fabric.is_global_zero:
        output = Path(output_dir)
        _write(output, plain, drawn, task)
        if measured is not None and features is not None:
            _write_against_data(output, plain, drawn.samples, features, measured)
        write_json(result, output / "result.json")
        if measured is not None:
            print(told(result["metrics"], result["protocol"]))
        if "classes" in result and is_named(task.pipeline.classes):
            print(f"per class, as in the rows of grid.png: {named([f'{k} {v}' for k, v in result['classes'].items()])}")
        calls, seconds = result["network_calls"], result["seconds"]
        print(f"{len(task.seeds)} samples in {seconds:.1f} s, {calls} network calls each: {output}")
    return result


class _Task(NamedTuple):
    """What is to be sampled, by which model, and how it is measured."""

    plain: dict[str, Any]
    source: dict[str, Any]
    pipeline: Pipeline
    seeds: range
    measured: _Measured | None
    origin: Origin
    batch: dict[str, Tensor]

    @property
    def image_names(self) -> list[str]:
        """The files of samples that are kept as images."""
        labels = self.batch["label"].tolist() if "label" in self.batch else None
        return image_names(self.seeds, labels, self.pipeline.classes)


def _task(plain: dict[str, Any], allowed: tuple[str, ...]) -> _Task:
    """Checks and loads everything; `ValueError` for what cannot be."""
    plain = completed(plain)
    check_settings(plain)
    check(plain, allowed)
    check_sampling(plain, allowed)
    checkpoint, source = _source(plain)
    pipeline = _pipeline(plain, checkpoint, source, allowed)
    pipeline.check()  # a checkpoint of somebody's may hold parts that do not fit each other
    seeds = range(plain["seed"], plain["seed"] + plain["num_samples"] * plain["repeats"])
    measured = _measured(plain, pipeline, checkpoint, allowed) if plain["evaluate"] else None
    origin = _origin(plain, pipeline, checkpoint)
    batch = origin.conditions(_batch(pipeline, seeds, plain["condition"], measured, plain["num_samples"]))
    first = {name: values[:1] for name, values in batch.items()}
    pipeline.guided({"position": torch.zeros(1), **first})  # guidance that does not fit says so here
    task = _Task(plain, source, pipeline, seeds, measured, origin, batch)
    if plain["save_images"]:
        check_images(Path(plain["output_dir"]), task.image_names)
    return task


def _to_device(task: _Task, fabric: Fabric) -> None:
    task.pipeline.to(fabric.device)
    if task.measured is not None:
        task.measured.evaluation.to(fabric.device)
    if task.plain["compile"]:
        compile_network(task.pipeline, task.plain["cuda_graphs"])


class _Drawn(NamedTuple):
    samples: Tensor
    way: list[Tensor]  # of the first batch from noise to samples, if it is to be shown
    facts: dict[str, Any]  # how many, and what they cost


def _drawn(fabric: Fabric, task: _Task) -> _Drawn:
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


def _write(output: Path, plain: dict[str, Any], drawn: _Drawn, task: _Task) -> None:
    write_samples(output, drawn.samples, task.batch, task.seeds, task.pipeline.classes)
    if plain["save_images"]:
        write_images(output, drawn.samples, task.image_names)
    if drawn.way:
        write_way(output, drawn.way, plain["save_gif"], plain["save_trajectory"])


def _write_against_data(
    output: Path, plain: dict[str, Any], samples: Tensor, features: Seen, measured: _Measured
) -> None:
    if plain["save_neighbours"]:
        write_neighbours(output, samples, features, measured.data.splits[measured.evaluation.reference]["x"])
    if plain["save_features"]:
        write_features(output, features)


class _Measured(NamedTuple):
    evaluation: Evaluation
    data: DataModule


def _source(plain: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The checkpoint that is sampled, and what `result.json` says of where its weights are from."""
    file = find_checkpoint(plain["checkpoint"])

    def read() -> dict[str, Any]:
        return read_checkpoint(file) if own is None else reconstructed(plain["checkpoint"], **plain["ema"])

    own = plain["ema"]["length"]
    checkpoint = _kept("checkpoint", [str(file), file.stat().st_mtime_ns, plain["ema"]], read)
    weights = plain["weights"] if plain["weights"] != "ema" else next(iter(checkpoint.get("ema", {})), "raw")
    weights = str(weights) if own is None else checkpoint["reconstruction"]
    return checkpoint, {"checkpoint": str(file), "weights": weights}


def _pipeline(
    plain: dict[str, Any], checkpoint: dict[str, Any], source: dict[str, Any], allowed: tuple[str, ...]
) -> Pipeline:
    key = [source, plain["allow_targets"]]
    weights, targets, path = str(plain["weights"]), plain["allow_targets"], plain["checkpoint"]
    pipeline = _kept("pipeline", key, lambda: restored(checkpoint, weights, targets, path))
    pipeline.sampler = build(plain["sampler"], allowed)
    pipeline.guidance = build(plain["guidance"], allowed)
    return pipeline


def _measured(
    plain: dict[str, Any], pipeline: Pipeline, checkpoint: dict[str, Any], allowed: tuple[str, ...]
) -> _Measured:
    """How samples are measured, and on which data; `ValueError` if that cannot be."""
    trusted = (*CHECKPOINT_TARGETS, *plain["allow_targets"])
    config = checked_data(plain["checkpoint"], checkpoint, plain["allow_targets"], plain["data_folders"])
    data: DataModule = _kept("data", config, lambda: build(config, trusted))
    evaluation: Evaluation = _kept("evaluation", plain["evaluation"], lambda: build(plain["evaluation"], allowed))
    if checkpoint.get("data_fingerprint") not in (None, data.fingerprint):  # older files have none
        print("warning: these are not the data of the run, their fingerprints differ", file=sys.stderr)
    evaluation.check(data)
    for likelihood in evaluation.likelihood.values():
        likelihood.check(pipeline)
    return _Measured(evaluation, data)


def _values(
    measured: _Measured, pipeline: Pipeline, samples: Tensor, plain: dict[str, Any], result: dict[str, Any]
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


def _origin(plain: dict[str, Any], pipeline: Pipeline, checkpoint: dict[str, Any]) -> Origin:
    """What samples begin with; `ValueError` for two choices, or if they are not to be measured."""
    if not plain["interpolate"] and not plain["reconstruct"]:
        return Origin()
    if plain["evaluate"] or (plain["interpolate"] and plain["reconstruct"]):
        raise ValueError("interpolate, reconstruct and evaluate are three choices: leave two of them out")
    if plain["repeats"] > 1:
        raise ValueError(f"repeats={plain['repeats']} is for evaluate=true: remove it")
    if plain["reconstruct"] and (told := [name for name, value in plain["condition"].items() if value is not None]):
        raise ValueError(f"reconstruct=true takes the conditions of the held-out items: remove condition.{told[0]}")
    if plain["interpolate"]:
        return Interpolation(plain["interpolate"], plain["num_samples"])
    config = checked_data(plain["checkpoint"], checkpoint, plain["allow_targets"], plain["data_folders"])
    data: DataModule = _kept("data", config, lambda: build(config, (*CHECKPOINT_TARGETS, *plain["allow_targets"])))
    return Reconstruction(pipeline, data.splits["validation"], plain["num_samples"])


_latest: dict[str, tuple[str, Any]] = {}


def _kept(what: str, key: object, make: Callable[[], T]) -> T:
    """The latest of a kind is made once, however many trials of a sweep need it."""
    text = json.dumps(key, sort_keys=True)
    if what not in _latest or _latest[what][0] != text:
        _latest[what] = text, make()
    value: T = _latest[what][1]
    return value


def _batch(
    pipeline: Pipeline, seeds: range, condition: dict[str, Any], measured: _Measured | None, count: int
) -> dict[str, Tensor]:
    given = {name: value for name, value in condition.items() if value is not None}
    if measured is None:
        return pipeline.request(seeds, **given)
    if given:
        raise ValueError("evaluate=true samples under the held-out conditions: remove condition." + next(iter(given)))
    batch = measured.evaluation.conditions(measured.data, count)
    return {name: values.repeat(len(seeds) // count, *[1] * (values.dim() - 1)) for name, values in batch.items()}


def _draw(fabric: Fabric, task: _Task, way: list[Tensor] | None) -> Tensor:
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
