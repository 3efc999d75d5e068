"""Draws the samples of a prepared run, and writes `samples.npz`, pictures and `result.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from inkdrop.commands.sample.drawing import Drawn, draw
from inkdrop.commands.sample.files import (
    Features,
    features_of,
    write_features,
    write_inputs,
    write_neighbours,
    write_samples,
    write_trajectory,
)
from inkdrop.commands.sample.inputs import Measured
from inkdrop.commands.sample.prepare import PreparedSampling
from inkdrop.commands.sample.stages import Stage
from inkdrop.commands.tracking import concluded, introduce, summarized
from inkdrop.conditioners.label import is_named, named
from inkdrop.configuration.once import without_paths
from inkdrop.configuration.secrets import from_environment, masked
from inkdrop.distributed.processes import is_first
from inkdrop.distributed.ranks import from_all_ranks
from inkdrop.errors import NonFiniteError
from inkdrop.loggers.about import caption
from inkdrop.loggers.wandb_runs import agent_run_id
from inkdrop.metrics.protocol import sampling_facts, summary
from inkdrop.pipeline import Pipeline, compile_network
from inkdrop.runs.ownership import locked
from inkdrop.runs.record import facts, write_json
from inkdrop.runs.resumption import refuse_results

# Options that an evaluation contains.
_OF_EVALUATION = ("extractor", "metric", "likelihood", "held_out", "per_item", "repeats")


def sample(prepared: PreparedSampling) -> dict[str, Any]:
    """Draws the samples of a prepared run, writes them to its folder, and returns the content of `result.json`.

    Each of several devices draws its share of the batches; the samples are the same as from one device.
    """
    folder, plain = prepared.asked.path, prepared.plain
    with prepared.open as stack:
        stack.enter_context(locked(folder))
        if is_first():
            refuse_results(folder)  # of another process, written since the check
        fabric = Fabric(**plain["trainer"])
        fabric.launch()
        trackers = prepared.trackers if fabric.is_global_zero else []
        with concluded(trackers, f"samples in {folder.name}", facts) as outcome:
            _introduce(prepared, trackers)
            _to_device(prepared, fabric)
            try:
                drawn = draw(fabric, prepared)
                result, features = _result(fabric, prepared, drawn)
            except NonFiniteError as error:
                advice = "nothing was written: try trainer.precision=32-true, or other weights"
                raise NonFiniteError(f"{error}; {advice}") from error
            if fabric.is_global_zero:
                picture = _write(folder, prepared, drawn, features)
                write_json(result, folder / "result.json")
                _print_summary(prepared, result)
                outcome.result = summarized(result)
                for tracker in trackers:
                    tracker.log_image("samples", [picture], caption=[caption(result["weights"], plain)])
    return result


def _introduce(prepared: PreparedSampling, trackers: Sequence[Any]) -> None:
    """States to trackers what the run is called, and its options, each once."""
    asked, plain = prepared.asked, dict(prepared.plain)
    if plain["sampler"] is not None:
        plain["sampler"] = {name: value for name, value in plain["sampler"].items() if name != "time_grid"}
    for name in _OF_EVALUATION if plain["evaluation"] else ():
        plain.pop(name, None)
    options = {**without_paths(masked(plain, from_environment(asked.config))), "trained": prepared.trained, **facts()}
    run_id = None if asked.in_sweep else agent_run_id()
    introduce(trackers, asked, "samples", options, "sample", run_id=run_id)


def _to_device(prepared: PreparedSampling, fabric: Fabric) -> None:
    for stage in prepared.stages:
        stage.pipeline.to(fabric.device)
    if prepared.measured is not None:
        prepared.measured.evaluation.to(fabric.device)
    if prepared.plain["compile"]:
        for stage in prepared.stages:
            compile_network(stage.pipeline, prepared.plain["cuda_graphs"])


def _result(fabric: Fabric, prepared: PreparedSampling, drawn: Drawn) -> tuple[dict[str, Any], Features | None]:
    """Returns the content of `result.json`, and the features of samples and data if they are plotted or saved."""
    plain, measured, features = prepared.plain, prepared.measured, None
    result = {
        **prepared.stages[0].source,
        **prepared.stages[0].adapters(),
        **_cascade_facts(prepared.stages),
        **drawn.facts,
        **_origin_facts(prepared, drawn),
        **_constraint_facts(prepared.stages[0].pipeline),
        **_per_class(prepared.pipeline, prepared.batch),
        "seed": plain["seed"],
        "sampler": plain["sampler"],
        **facts(),
    }
    if measured is not None:
        with fabric.autocast():
            result |= _values(prepared, measured, drawn.samples, result)
        if plain["save_neighbours"] or plain["save_features"]:
            features = features_of(drawn.samples, measured.evaluation, measured.data)
    return result, features


def _print_summary(prepared: PreparedSampling, result: dict[str, Any]) -> None:
    """Prints the last lines on the terminal: the metrics and the cost of the samples."""
    if prepared.measured is not None:
        print(summary(result["metrics"], result["protocol"]))
    if "classes" in result and is_named(prepared.pipeline.classes):
        print(f"per class, as in the rows of grid.png: {named([f'{k} {v}' for k, v in result['classes'].items()])}")
    calls, seconds, count = result["network_calls"], result["seconds"], len(prepared.seeds)
    print(f"{count} samples in {seconds:.1f} s, {calls} network calls each: {prepared.asked.path}")


def _origin_facts(task: PreparedSampling, drawn: Drawn) -> dict[str, Any]:
    """Returns the origin of samples for `result.json`; nothing for the noise of their seeds."""
    if task.origin is None:
        return {}
    first = task.stages[0].pipeline
    return {"origin": task.plain["origin"], **task.origin.facts(first, task.sources, drawn.stages[0].samples)}


def _cascade_facts(stages: Sequence[Stage]) -> dict[str, Any]:
    """Returns the later stages of a cascade for `result.json`; nothing without any."""
    later = [{**stage.facts(), **_constraint_facts(stage.pipeline)} for stage in stages[1:]]
    return {"cascade": later} if later else {}


def _constraint_facts(pipeline: Pipeline) -> dict[str, float]:
    """Returns mean and least value over all samples of what the constraint has measured."""
    constraint = getattr(pipeline, "constraint", None)
    parts = from_all_ranks({} if constraint is None else constraint.measured())
    measured = {name: torch.cat([part[name] for part in parts if name in part]) for part in parts for name in part}
    return {
        f"{name}_{ending}": float(value)
        for name, values in measured.items()
        for ending, value in (("mean", values.mean()), ("min", values.min()))
    }


def _per_class(pipeline: Pipeline, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Returns the number of samples of each class, if the classes have names."""
    if not pipeline.classes or "label" not in batch:
        return {}
    labels, counts = batch["label"].unique(return_counts=True)
    return {"classes": {pipeline.classes[k]: n for k, n in zip(labels.tolist(), counts.tolist(), strict=True)}}


def _write(output: Path, prepared: PreparedSampling, drawn: Drawn, features: Features | None) -> np.ndarray:
    """Writes everything but `result.json`, and returns the picture of the samples."""
    plain, measured = prepared.plain, prepared.measured
    view, samples, classes = prepared.pipeline.view, drawn.samples, prepared.pipeline.classes
    batch = drawn.stages[-1].batch
    noise = {"eps": prepared.pipeline.start(prepared.seeds)} if plain["save_noise"] else {}
    picture = write_samples(output, view, samples, batch, prepared.seeds, classes, noise)
    write_inputs(output, view, samples, _inputs(prepared, batch))
    if plain["save_images"]:
        view.write(output, samples, batch, prepared.seeds, prepared.class_names)
    if plain["save_stages"]:
        for number, (stage, part) in enumerate(zip(prepared.stages, drawn.stages, strict=True), 1):
            folder = output / "stages" / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            write_samples(folder, stage.pipeline.view, part.samples, part.batch, prepared.seeds, classes)
    if drawn.trajectory:
        first = {name: values[: len(drawn.trajectory[0])] for name, values in batch.items()}
        write_trajectory(output, view, drawn.trajectory, first, plain["save_gif"], plain["save_trajectory"])
    if measured is None or features is None:
        return picture
    if plain["save_neighbours"]:
        reference = measured.data.splits[measured.evaluation.reference]["x"]
        write_neighbours(output, view, samples, features, reference)
    if plain["save_features"]:
        write_features(output, features)
    return picture


def _inputs(task: PreparedSampling, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the images that samples are made from: conditions, what is known of them, and where they start."""
    names = ("x", *getattr(getattr(task.pipeline, "conditioner", None), "images", ()))
    inputs = {name: batch[name] for name in names if name in batch}
    if {"known", "mask"} <= set(task.pipeline.names) & set(batch):
        known = batch["known"]
        inputs["known"] = torch.where(batch["mask"] > 0, known, 128 if known.dtype == torch.uint8 else 0.0)
    if "x" in task.sources:
        inputs["origin"] = task.sources["x"]
    return inputs


def _values(task: PreparedSampling, measured: Measured, samples: Tensor, result: dict[str, Any]) -> dict[str, Any]:
    """Returns the metrics, their durations, and the protocol under which they are measured."""
    (evaluation, data), plain, origin = measured, task.plain, task.origin_settings
    metrics = evaluation.measure(list(samples.split(plain["num_samples"])), data)
    held_out = len(data.splits[evaluation.held_out]["x"])
    metrics |= evaluation.likelihoods(task.pipeline, data, min(plain["num_samples"], held_out))
    precision = plain["trainer"]["precision"]
    sampling = sampling_facts(
        {**plain, "origin": origin}, result["weights"], plain["seed"], result["network_calls"], precision
    )
    sampling |= task.stages[0].adapted()
    if len(task.stages) > 1:
        sampling["cascade"] = [stage.settings() for stage in task.stages]
    return {
        "metrics": metrics,
        "evaluation_seconds": {part: round(value, 3) for part, value in evaluation.seconds.items()},
        "protocol": evaluation.protocol(data, sampling),
    }
