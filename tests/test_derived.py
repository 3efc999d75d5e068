"""Derived fields: random in training by position, fixed for held-out items, and part of the data's fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import TINY, differing, interrupted, run, sampled, trained
from torch import Tensor

from inkdrop.commands.check_data.inspection import inspect
from inkdrop.data import Digits, Mixture
from inkdrop.data.degradations import BoxMask, Copy, Downscale
from inkdrop.data.loaders import Batch, Derive, OrderedLoader, collect
from inkdrop.errors import DataError
from inkdrop.randomness import Generators

DERIVE = "data.derive={image:{_target_:inkdrop.data.degradations.Downscale,factor:2}}"


class Noisy(Derive):
    """The image and noise."""

    def __init__(self, strength: float = 1.0):
        self.strength = strength

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        return fields["x"].float() + self.strength * generators.normal(fields["x"].shape[1:])


class Sum(Derive):
    """Another derived field, and its sum."""

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        return fields["noisy"].flatten(1).sum(1)


def digits(**derive: Derive) -> Digits:
    return Digits([1, 8, 8], 10, 32, derive=derive)


def test_training_draws_a_derived_field_anew_by_position() -> None:
    loader = digits(noisy=Noisy()).train_dataloader()
    first, later = loader.batch(0), loader.batch(40)
    noise = torch.cat([batch["noisy"] - batch["x"] for batch in (first, later)])
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(loader.batch(0)["noisy"], first["noisy"])
    ranks = [Digits([1, 8, 8], 10, 32, derive={"noisy": Noisy()}) for _ in range(2)]
    shares = []
    for rank, data in enumerate(ranks):
        data._place = lambda rank=rank: (rank, 2)  # type: ignore[method-assign,misc]
        shares.append(data.train_dataloader().batch(0)["noisy"])
    assert torch.equal(torch.cat(shares), first["noisy"])
    item = int(loader.order([0])[0])
    position = next(p for p in range(1097, 3000) if int(loader.order([p])[0]) == item)
    again = loader.batch(position // 32)
    assert torch.equal(again["x"][position % 32], first["x"][0])
    assert not torch.isclose(again["noisy"][position % 32], first["noisy"][0]).all()


def test_held_out_items_have_the_same_derived_field_in_every_batch() -> None:
    data = digits(noisy=Noisy(), total=Sum())
    whole = collect(data.splits["validation"])
    for size in (7, 64):
        batches = list(OrderedLoader(data.splits["validation"], size))
        for name in ("noisy", "total"):
            assert torch.equal(torch.cat([batch[name] for batch in batches]), whole[name])
    assert torch.allclose(whole["total"], whole["noisy"].flatten(1).sum(1))
    column: Any = data.splits["validation"]["noisy"]
    assert (tuple(column.shape), column.dtype, len(column)) == ((350, 1, 8, 8), torch.float32, 350)
    assert set(data.splits["train"]) == {"x", "label", "noisy", "total"}


def test_the_fingerprint_knows_what_is_derived() -> None:
    prints = [digits(**each).fingerprint for each in ({}, {"a": Noisy()}, {"a": Noisy(2.0)}, {"b": Noisy()})]
    assert len(set(prints)) == 4
    assert digits(a=Noisy()).fingerprint == prints[1]
    assert Digits([1, 8, 8], 10, 32).fingerprint == prints[0]


def test_what_cannot_be_derived_is_named() -> None:
    with pytest.raises(ValueError, match=r"data\.derive\.label would replace a field"):
        digits(label=Noisy())
    with pytest.raises(DataError, match=r"data\.derive\.total needs the field noisy, .*: available: x"):
        digits(total=Sum()).splits["validation"]["total"][torch.tensor([0])]
    with pytest.raises(ValueError, match="Downscale of factor 3 needs images whose sides it divides"):
        digits(small=Downscale(3)).train_dataloader().batch(0)
    with pytest.raises(ValueError, match=r"data\.sources\.a\.derive is not used"):
        Mixture({"a": digits(noisy=Noisy())}, [1, 8, 8], None, 32, False)


def test_the_degradations() -> None:
    x = torch.arange(2 * 16, dtype=torch.uint8).reshape(2, 1, 4, 4)
    generators = Generators.from_seeds(range(2))
    small = Downscale(2)({"x": x}, generators)
    assert small[0].flatten().tolist() == [2, 4, 10, 12]  # of 2.5, 4.5, 10.5, 12.5, to even
    assert small.dtype == torch.uint8
    assert torch.equal(Copy()({"x": x}, generators), x)
    count = 4000
    masks = BoxMask(0.25, 0.5)({"x": torch.zeros(count, 3, 8, 12)}, Generators.from_seeds(range(count)))
    assert masks.shape == (count, 1, 8, 12)
    holes = 1 - masks.long()
    heights, widths = holes.amax(3).sum((1, 2)), holes.amax(2).sum((1, 2))
    assert torch.equal(heights * widths, holes.sum((1, 2, 3)))  # a rectangle
    assert (int(heights.min()), int(heights.max()), int(widths.min()), int(widths.max())) == (2, 4, 3, 6)
    corners = holes[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean(0)
    assert corners.min() > 0.012
    with pytest.raises(ValueError, match="swap"):
        BoxMask(0.5, 0.25)


@pytest.mark.slow
def test_a_model_is_conditioned_on_what_is_derived_in_training_pictures_and_evaluation(tmp_path: Path) -> None:
    options = [DERIVE, "conditioner=image", "conditioner.concat_channels=2"]
    result = trained(tmp_path / "run", *options)
    assert "fd_digits_20" in result["metrics"]
    assert list((tmp_path / "run" / "pictures").glob("*.png"))
    found, sampled_result = sampled(tmp_path / "run", tmp_path / "s", "evaluate=true", "num_samples=20")
    pipeline_data = Digits([1, 8, 8], 10, 16, derive={"image": Downscale(2)})
    assert np.array_equal(found["image"], collect(pipeline_data.splits["validation"])["image"][:20].numpy())
    assert "fd_digits_20" in sampled_result["metrics"]


@pytest.mark.slow
def test_replacement_is_measured_on_what_is_derived(tmp_path: Path) -> None:
    known = "known:{_target_:inkdrop.data.degradations.Copy},mask:{_target_:inkdrop.data.degradations.BoxMask}"
    trained(tmp_path / "run", f"data.derive={{{known}}}", "callbacks.pictures=null", "callbacks.evaluate=null")
    found, result = sampled(
        tmp_path / "run", tmp_path / "s", "evaluate=true", "num_samples=20", "constraint=replacement", "sampler=ddim"
    )
    samples, mask = found["x"].reshape(20, 8, 8), found["mask"].reshape(20, 8, 8)
    assert np.array_equal(samples[mask == 1], found["known"].reshape(20, 8, 8)[mask == 1])
    assert 0 < mask.mean() < 1
    assert result["protocol"]["sampling"]["constraint"] == {"_target_": "inkdrop.constraints.Replacement"}


@pytest.mark.slow
def test_a_run_with_derived_noise_resumes_to_the_bit(tmp_path: Path) -> None:
    noisy = [DERIVE.replace("inkdrop.data.degradations.Downscale,factor:2", "test_derived.Noisy"), *TINY]
    noisy += ["conditioner=image", "conditioner.concat_channels=2", "allow_targets=[test_derived.]", "logger=none"]
    noisy += ["callbacks.pictures=null", "callbacks.evaluate=null", "callbacks.checkpoint.every.steps=2"]
    noisy += ["callbacks.checkpoint.keep=10"]
    whole = run(tmp_path / "whole", model=noisy)
    interrupted(tmp_path / "whole", 2, tmp_path / "again")
    assert differing(whole, run(tmp_path / "again", model=noisy)) == []


def test_check_data_looks_at_data_with_derived_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(digits(image=Downscale(2)), tmp_path)
    assert "350 items of shape" in capsys.readouterr().out
