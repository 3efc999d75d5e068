"""Writes the arrays and pictures of a sampling run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inkdrop.data.loaders import Column
from inkdrop.data.module import DataModule
from inkdrop.files.showing import warn
from inkdrop.files.texts import decoded, is_text
from inkdrop.files.writing import replacing
from inkdrop.metrics import Evaluation
from inkdrop.metrics.real import extracted, real
from inkdrop.pictures import View, save_gif, save_png

_SHOWN = 8  # samples in a picture that shows more than the samples themselves
_OF_A_CLASS = 10  # samples of each class in the picture of all
_TIMES = 10  # states of a denoising trajectory
_ACROSS = 5  # of these states next to each other
_NEIGHBOURS = 4


def write_samples(
    output: Path,
    view: View,
    samples: Tensor,
    batch: Mapping[str, Tensor],
    seeds: Sequence[int],
    classes: Sequence[str] = (),
    noise: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """Writes `samples.npz` and `grid.png`, with one class per row for several ones; returns the picture.

    The archive holds `x`, `seeds` and conditions, and of series the place of their channels, which `data=arrays` reads.

    - `output`: the run folder.
    - `view`: the view of the samples.
    - `samples`: raw samples (B, *).
    - `batch`: raw conditions by name, each (B, *).
    - `seeds`: seed of each sample.
    - `classes`: names of the classes in the order of `label`; they are stored as `classes` in the archive.
    - `noise`: further fields of the archive by name (B, *), which are not pictured.
    """
    given = {name: each for name, each in batch.items() if name != "x"}
    fields = {name: np.array(decoded(each)) if is_text(each) else each.numpy() for name, each in given.items()}
    fields |= {"inputs": view.array(batch["x"])} if "x" in batch else {}  # the data that samples reconstruct
    arrays: dict[str, Any] = {"x": view.array(samples), "seeds": np.array(seeds), **fields}
    arrays |= {name: each.numpy() for name, each in (noise or {}).items()}
    if (arrays["x"].dtype, arrays["x"].ndim) != (np.uint8, 4) and arrays["x"].ndim > 2:
        arrays["channels"] = np.array("first")  # of a series, which people have either way; images are known
    if classes and "label" in batch:
        arrays["classes"] = np.array(classes, str)
    with replacing(output / "samples.npz") as file:
        np.savez_compressed(file, **arrays)
    picture = None
    if "label" in batch and len(classes_there := batch["label"].unique()) > 1:
        picture = view.rows([samples[batch["label"] == each][:_OF_A_CLASS] for each in classes_there])
    picture = view.sheet(samples, batch) if picture is None else picture
    save_png(picture, output / "grid.png")
    return picture


def write_inputs(output: Path, view: View, samples: Tensor, inputs: Mapping[str, Tensor]) -> None:
    """Writes `inputs.png`: the images that samples are made from, each followed in its row by its sample.

    - `output`: the run folder.
    - `view`: the view of the samples.
    - `samples`: raw images (B, C, H, W); other data have no such picture.
    - `inputs`: images of any size by name, of 8 bits or from -1 to 1.
    """
    if not inputs or samples.dtype != torch.uint8 or samples.dim() != 4:
        return
    shown = [_like(image[:_SHOWN], samples) for image in inputs.values() if image.dim() == 4]
    if shown and (picture := view.rows([*torch.stack([*shown, samples[:_SHOWN]], 1)])) is not None:
        save_png(picture, output / "inputs.png")


def _like(image: Tensor, samples: Tensor) -> Tensor:
    """Returns images with the size, the channels and the type of samples."""
    levels = image.float() if image.dtype == torch.uint8 else (image.float() + 1) * 127.5
    levels = torch.nn.functional.interpolate(levels, samples.shape[2:], mode="nearest")
    if levels.shape[1] != samples.shape[1]:
        levels = levels.mean(1, keepdim=True).expand(-1, samples.shape[1], -1, -1)
    return levels.round().clamp(0, 255).to(torch.uint8)


def write_trajectory(
    output: Path, view: View, states: Sequence[Tensor], batch: Mapping[str, Tensor], gif: bool, trajectory: bool
) -> None:
    """Writes `denoising.gif` of all states (B, *) of a batch, and `trajectory.png` of some states, a sample per row.

    - `output`: the run folder.
    - `view`: the view of the samples. If it does not show each sample by itself, `trajectory.png` has a picture of all
      samples for each state.
    - `states`: the states from noise to samples.
    - `batch`: raw conditions of these samples by name, each (B, *).
    - `gif`, `trajectory`: which of the two pictures are written.
    """
    if gif:
        save_gif(view.frames(states, batch), output / "denoising.gif")
    if trajectory:
        chosen = [states[i] for i in np.linspace(0, len(states) - 1, min(_TIMES, len(states))).round().astype(int)]
        picture = view.rows([*torch.stack([state[:_SHOWN] for state in chosen], 1)])
        save_png(_side_by_side(view.frames(chosen, batch)) if picture is None else picture, output / "trajectory.png")


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures (H, W, C) of one size in rows, from left to right."""
    blank = [np.full_like(pictures[0], 255)] * (-len(pictures) % _ACROSS)
    whole = [*pictures, *blank]
    return np.concatenate([np.concatenate(whole[i : i + _ACROSS], 1) for i in range(0, len(whole), _ACROSS)])


class Features(NamedTuple):
    """Features (N, D) of samples, of the training items and of held-out items."""

    samples: Tensor
    train: Tensor
    held_out: Tensor


def features_of(samples: Tensor, evaluation: Evaluation, data: DataModule) -> Features:
    """Returns the features of samples and of the data by an evaluation's extractor; all processes must call it."""
    needs, extractor, size = frozenset({"features"}), evaluation.extractor, evaluation.batch_size
    count = min(len(data.splits[evaluation.held_out]["x"]), len(samples))
    sets = [
        extracted(extractor, {"x": samples}, len(samples), needs, size, "samples"),
        real(extractor, data, evaluation.reference, len(data.splits[evaluation.reference]["x"]), needs, size),
        real(extractor, data, evaluation.held_out, count, needs, size),
    ]
    return Features(*(each.features for each in sets if each.features is not None))


def write_neighbours(output: Path, view: View, samples: Tensor, features: Features, train: Column) -> None:
    """Writes `neighbours.png`: samples, each followed in its row by its nearest training items in feature space.

    A view that does not show each sample by itself gets a warning instead.
    """
    nearest = torch.cdist(features.samples[:_SHOWN], features.train).topk(_NEIGHBOURS, largest=False).indices
    rows = torch.cat([samples[:_SHOWN, None], train[nearest.flatten()].unflatten(0, nearest.shape)], 1)
    if (picture := view.rows([*rows])) is None:
        warn("neighbours.png is not written, because the view of the model does not show each sample by itself")
    else:
        save_png(picture, output / "neighbours.png")


def write_features(output: Path, features: Features) -> None:
    """Writes `features.png`: samples and held-out items on the first two principal axes of the training features."""
    from inkdrop.pictures.plots import clouds

    axes, centre = torch.pca_lowrank(features.train, 2)[2], features.train.mean(0)
    named = {"held out": features.held_out, "samples": features.samples}
    with replacing(output / "features.png") as file:
        clouds({name: (each - centre) @ axes for name, each in named.items()}).savefig(file)
