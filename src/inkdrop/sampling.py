"""One sampling run, from a checkpoint to `samples.npz`, pictures and `result.json`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig
from torch import Tensor

from inkdrop.checkpoints import find_checkpoint, read_checkpoint
from inkdrop.configuration import CHECKPOINT_TARGETS, USER_TARGETS, build, check, check_settings
from inkdrop.experiment import facts, quiet, resolved, stop, write_json
from inkdrop.finiteness import NonFiniteError, raised_together
from inkdrop.pictures import as_array, image, is_images, save_gif, save_png, sheet
from inkdrop.pipeline import Pipeline, compile_network, load
from inkdrop.sampling_options import check_grid, completed


def sample(config: DictConfig, output_dir: str) -> dict[str, Any]:
    """Draws samples from a checkpoint and leaves them in `output_dir`; returns what `result.json` says.

    Each of several devices makes its share of the batches; the samples are the same as from one.
    """
    quiet()
    plain = resolved(config, output_dir)
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    output = Path(output_dir)
    fabric = Fabric(**plain["trainer"])
    fabric.launch()
    try:
        plain = completed(plain)
        check_settings(plain)
        check(plain, allowed)
        check_grid(plain, allowed)
        pipeline = _pipeline(plain, allowed)
        seeds = range(plain["seed"], plain["seed"] + plain["num_samples"])
        evaluation, data = _evaluation(plain, pipeline)
        batch = _batch(pipeline, seeds, plain["condition"], data)
    except ValueError as error:
        stop(error)
    pipeline.to(fabric.device)
    if plain["compile"]:
        compile_network(pipeline)
    calls = _count_calls(pipeline)
    frames: list[np.ndarray] = []
    start = time.monotonic()
    metrics: dict[str, float] = {}
    try:
        with fabric.autocast():
            samples = _draw(fabric, pipeline, batch, seeds, plain["batch_size"], frames if plain["save_gif"] else None)
        seconds, network_calls = time.monotonic() - start, calls[0]
        if evaluation is not None and data is not None:
            with fabric.autocast():
                metrics = evaluation.likelihoods(pipeline, data, len(samples), fabric.global_rank, fabric.world_size)
            metrics = {**evaluation.measure(samples, data), **metrics}
    except NonFiniteError as error:
        stop(NonFiniteError(f"{error}; nothing was written: try trainer.precision=32-true, or other weights"))
    result = {
        "num_samples": len(samples),
        "network_calls": network_calls // -(-len(seeds) // plain["batch_size"] // fabric.world_size),
        "seconds": round(seconds, 3),
        "samples_per_second": round(len(samples) / seconds, 2),
        "checkpoint": str(find_checkpoint(plain["checkpoint"])),
        "seed": plain["seed"],
        **{name: plain[name] for name in ("weights", "sampler")},
        **facts(),
    }
    if metrics:
        result["metrics"] = metrics
    if fabric.is_global_zero:
        _write(output, samples, batch, seeds, frames, plain["save_images"])
        write_json(result, output / "result.json")
        for name, value in result.get("metrics", {}).items():
            print(f"{name:28} {value:.4f}")
        print(f"{len(samples)} samples in {seconds:.1f} s, {result['network_calls']} network calls each: {output}")
    return result


def _pipeline(plain: dict[str, Any], allowed: tuple[str, ...]) -> Pipeline:
    pipeline = load(plain["checkpoint"], str(plain["weights"]), plain["allow_targets"])
    pipeline.sampler = build(plain["sampler"], allowed)
    if plain.get("guidance") is not None:
        pipeline.guidance = build(plain["guidance"], allowed)
    return pipeline


def _evaluation(plain: dict[str, Any], pipeline: Pipeline) -> tuple[Any, Any]:
    """How the run itself was evaluated, unless another likelihood is asked for, and on which data; or nothing."""
    if not plain["evaluate"]:
        if plain.get("likelihood"):
            raise ValueError("a likelihood is measured on held-out data: set evaluate=true")
        return None, None
    checkpoint = read_checkpoint(plain["checkpoint"])
    config = checkpoint["config"]
    allowed = (*CHECKPOINT_TARGETS, *plain["allow_targets"])
    check({name: config[name] for name in ("evaluation", "data")}, allowed)
    evaluation = build(config["evaluation"], allowed)
    if plain.get("likelihood") is not None:
        evaluation.likelihood = build(plain["likelihood"], (*USER_TARGETS, *plain["allow_targets"]))
    for likelihood in evaluation.likelihood.values():
        likelihood.check(pipeline)
    data = build(config["data"], allowed)
    if checkpoint.get("data_fingerprint") not in (None, data.fingerprint):  # older files have none
        print("warning: these are not the data of the run, their fingerprints differ", file=sys.stderr)
    return evaluation, data


def _batch(pipeline: Pipeline, seeds: range, condition: dict[str, Any], data: Any) -> dict[str, Tensor]:
    given = {name: value for name, value in condition.items() if value is not None}
    if data is None:
        return pipeline.request(seeds, **given)
    if given:
        raise ValueError("evaluate=true samples under the held-out conditions: remove condition." + next(iter(given)))
    from inkdrop.metrics.evaluation import held_out_conditions

    return held_out_conditions(data, len(seeds))


def _count_calls(pipeline: Pipeline) -> list[int]:
    calls = [0]

    def count(*_: Any) -> None:
        calls[0] += 1

    pipeline.denoiser.register_forward_hook(count)
    return calls


def _draw(
    fabric: Fabric,
    pipeline: Pipeline,
    batch: dict[str, Tensor],
    seeds: range,
    batch_size: int,
    frames: list[np.ndarray] | None,
) -> Tensor:
    """All samples on the CPU of every rank; the first batch's way there is added to `frames`."""
    from rich.progress import Progress

    parts = torch.arange(len(seeds)).split(batch_size)
    drawn: Tensor | None = None
    with raised_together(), Progress(disable=not fabric.is_global_zero, transient=True) as bar:
        task = bar.add_task("sampling", total=None)
        for number in range(fabric.global_rank, len(parts), fabric.world_size):
            items = parts[number]

            def progress(done: int, total: int, x: Tensor, number: int = number) -> None:
                bar.update(task, total=total * len(parts), completed=done + number * total)
                if frames is not None and number == 0:
                    frames.append(sheet(pipeline.codec.decode(x)))

            conditions = {name: values[items] for name, values in batch.items()}
            part = pipeline(conditions, [seeds[item] for item in items.tolist()], progress=progress)
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


def _write(
    output: Path, samples: Tensor, batch: dict[str, Tensor], seeds: range, frames: list[np.ndarray], save_images: bool
) -> None:
    """`samples.npz`, `grid.png`, and on request single images and the denoising as a GIF."""
    images = is_images(samples)
    x = as_array(samples) if images else samples.numpy()
    conditions = {name: values.numpy() for name, values in batch.items()}
    arrays: dict[str, Any] = {"x": x, "seeds": np.array(seeds), **conditions}
    np.savez_compressed(output / "samples.npz", **arrays)
    save_png(sheet(samples), output / "grid.png")
    if save_images and images:
        (output / "images").mkdir()
        for seed, each in zip(seeds, x, strict=True):
            image(each).save(output / "images" / f"{seed:06d}.png")
    if frames:
        save_gif(frames, output / "denoising.gif")
