"""Random warps of training images, and the condition that tells the network of them."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from analytic import SCHEDULES
from torch import Tensor, nn

from inkdrop.codecs import Pixels
from inkdrop.conditioners import Augmentation, Combined, Label
from inkdrop.data import Digits
from inkdrop.data.augmentations import moved, resampled, rotated, scaled, warp
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing

# Columns of the labels that each strength governs.
KINDS = {"flip_x": [0], "flip_y": [1], "scale": [2], "rotation": [3, 4], "anisotropy": [5, 6], "translation": [7, 8]}
OFF: dict[str, Any] = dict.fromkeys(KINDS, 0.0)


def images(count: int, channels: int = 1, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def one(number: float) -> Tensor:
    return torch.tensor([number], dtype=torch.float64)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_rot90(quarters: int) -> None:
    x = images(1, 3)
    turned = resampled(x, rotated(one(quarters * math.pi / 2)))
    assert torch.equal(turned, torch.rot90(x, quarters, (3, 2)))  # from the right towards the bottom


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, -3), (-1, 2)])
def test_moves_by_whole_pixels_are_rolls_with_a_reflected_border(right: int, down: int) -> None:
    x = images(1, 2, 8, 12)
    shifted = resampled(x, moved(torch.tensor([[right, down]], dtype=torch.float64)))
    padded = torch.cat([x.flip(3), x, x.flip(3)], dim=3)
    padded = torch.cat([padded.flip(2), padded, padded.flip(2)], dim=2)
    assert torch.equal(shifted, padded.roll((right, down), (3, 2))[:, :, 8:16, 12:24])


def test_images_that_are_not_square_are_turned_in_pixels_and_enlarged_about_their_centre() -> None:
    x = torch.zeros(1, 1, 9, 15, dtype=torch.float64)
    x[0, 0, 4, 10] = 1  # three pixels to the right of the centre
    turned = resampled(x, rotated(one(math.pi / 2)))
    assert (turned[0, 0] > 0.99).nonzero().tolist() == [[7, 7]]  # three pixels below it
    ramp = (torch.arange(33, dtype=torch.float64) - 16).expand(1, 1, 33, 33)
    enlarged = resampled(ramp, scaled(one(2.0), one(1.0)))
    assert torch.allclose(enlarged, ramp / 2, atol=1e-12)


def test_a_label_of_zeros_means_an_untouched_image_to_the_bit() -> None:
    x = images(2000)
    out = warp({"x": x, "label": torch.arange(2000)}, Generators.from_seeds(range(2000)), probability=0.2)
    touched = out["augmentation"].any(1)
    assert torch.equal(out["x"][~touched], x[~touched])
    # Flips happen in half of the cases in which they take part.
    assert touched.double().mean().item() == pytest.approx(1 - 0.9**2 * 0.8**4, abs=0.03)
    assert torch.equal(out["label"], torch.arange(2000))
    floats = x.double()  # in which no change is rounded away
    warped = warp({"x": floats}, Generators.from_seeds(range(2000)), 0.2)["x"]
    assert torch.equal((warped != floats).flatten(1).any(1), touched)


def test_flips_are_exact_and_told() -> None:
    x = images(400)
    out = warp({"x": x}, Generators.from_seeds(range(400)), 1.0, **{**OFF, "flip_x": 0.5, "flip_y": 0.5})
    label = out["augmentation"]
    assert torch.equal(label[:, 2:], torch.zeros(400, 7))
    for item, (across, down) in enumerate(label[:, :2].tolist()):
        dims = [3] * (across == 1) + [2] * (down == 1)
        assert torch.equal(out["x"][item : item + 1], x[item : item + 1].flip(dims))
    assert label[:, :2].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.08)


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_takes_part_by_itself_and_fills_its_own_labels(kind: str) -> None:
    strength = {"flip_x": 0.5, "flip_y": 0.5, "rotation": 180.0, "translation": 0.125}.get(kind, 0.2)
    x = images(1000)
    label = warp({"x": x}, Generators.from_seeds(range(1000)), 0.3, **{**OFF, kind: strength})["augmentation"]
    others = [column for column in range(9) if column not in KINDS[kind]]
    assert not label[:, others].any()
    share = 0.15 if "flip" in kind else 0.3
    assert label[:, KINDS[kind]].any(1).double().mean().item() == pytest.approx(share, abs=0.04)
    # The other kinds do not change what this one draws.
    together = warp({"x": x}, Generators.from_seeds(range(1000)), 0.3)["augmentation"]
    assert torch.equal(label[:, KINDS[kind]], together[:, KINDS[kind]])


def test_the_labels_say_what_was_done() -> None:
    """A ramp under one kind at a time is a ramp whose slope the labels predict."""
    size = 65
    across = (torch.arange(size, dtype=torch.float64) - size // 2).expand(1, 1, size, size)
    x = torch.cat([across, across.mT], dim=1).repeat(20, 1, 1, 1)  # channels: x, and y

    def done(kind: str, strength: float) -> tuple[Tensor, Tensor]:
        out = warp({"x": x}, Generators.from_seeds(range(20)), 1.0, **{**OFF, kind: strength})
        return out["augmentation"].double(), out["x"]

    def slopes(y: Tensor) -> Tensor:
        """The matrix (B, 2, 2) from places to what is seen there, near the centre."""
        c = size // 2
        return torch.stack([y[:, :, c, c + 1] - y[:, :, c, c], y[:, :, c + 1, c] - y[:, :, c, c]], dim=2)

    label, y = done("scale", 0.2)
    factor = 2 ** (-0.2 * label[:, 2])
    assert torch.allclose(slopes(y), torch.diag_embed(torch.stack([factor, factor], 1)), atol=1e-5)
    label, y = done("rotation", 180.0)
    cos, sin = label[:, 3] + 1, label[:, 4]
    back = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    assert torch.allclose(slopes(y), back, atol=1e-5)
    label, y = done("anisotropy", 0.2)
    stretch, direction = label[:, 5:7].norm(dim=1), torch.atan2(label[:, 6], label[:, 5]) / 2
    along = torch.stack([direction.cos(), direction.sin()], dim=1)
    project = along[:, :, None] * along[:, None, :]
    less, more = (2 ** (sign * 0.2 * stretch)[:, None, None] for sign in (-1, 1))
    assert torch.allclose(slopes(y), less * project + more * (torch.eye(2) - project), atol=1e-5)
    label, y = done("translation", 0.01)
    c = size // 2
    assert torch.allclose(-y[:, :, c, c], 0.01 * size * label[:, 7:], atol=1e-5)


def test_warps_are_keyed_by_the_sample_and_not_by_the_batch() -> None:
    x = images(12)
    whole = warp({"x": x}, Generators.from_positions(0, range(12)), 0.5)
    part = warp({"x": x[5:8]}, Generators.from_positions(0, range(5, 8)), 0.5)
    assert whole["augmentation"].any()
    for name in ("x", "augmentation"):
        assert torch.equal(part[name], whole[name][5:8])


def test_a_data_module_augments_training_batches_alone() -> None:
    data = Digits([1, 8, 8], 10, 64, augment=functools.partial(warp, probability=0.5))
    train = next(iter(data.train_dataloader()))
    assert train["augmentation"].shape == (64, 9)
    assert train["augmentation"].any()
    assert "augmentation" not in next(iter(data.val_dataloader()))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="warp takes images"):
        warp({"x": torch.zeros(3, 2)}, Generators.from_seeds(range(3)))


class Told(nn.Module):
    """A network that shows its condition."""

    def forward(self, x: Tensor, c_noise: Tensor, vector: Tensor) -> Tensor:
        return x + vector.sum(1)[:, None, None, None]


def pipeline(conditioner: Any) -> Pipeline:
    denoiser = NetworkDenoiser(Told(), SCHEDULES["vp"], DataPrediction())
    return Pipeline(denoiser, conditioner, Pixels(), DDIM(Trailing(4)), [1, 8, 8])


def test_nothing_done_adds_nothing_and_sampling_never_hears_of_augmentation() -> None:
    label = Label(3, 4)
    both = Combined({"label": label, "augmentation": Augmentation(9, 4)}, dim=4)
    batch = {"label": torch.tensor([2, 0])}
    assert both.names == ("label",)
    assert torch.equal(both(batch)["vector"], label(batch)["vector"])
    assert torch.equal(both.null(batch)["vector"], label.null(batch)["vector"])
    done = torch.eye(9)[[4, 7]]
    told = both({**batch, "augmentation": done})["vector"] - label(batch)["vector"]
    assert torch.allclose(told, both.parts["augmentation"].map.weight.T[[4, 7]], atol=1e-6)  # type: ignore[union-attr, index, operator]
    with pytest.raises(ValueError, match="augmentation is unknown"):
        both.request([0], augmentation=1)

    augmented, plain = pipeline(both), pipeline(label)
    seeds = [3, 4]
    samples = plain(plain.request(seeds, label=[2, 0]), seeds)
    assert torch.equal(augmented(augmented.request(seeds, label=[2, 0]), seeds), samples)
    assert torch.equal(augmented(plain.request(seeds, label=[2, 0]), seeds), samples)


def test_a_model_that_is_told_nothing_else_samples_under_no_condition() -> None:
    alone = pipeline(Augmentation(9, 4))
    assert torch.equal(alone({}, [3, 4]), alone(alone.request([3, 4]), [3, 4]))
