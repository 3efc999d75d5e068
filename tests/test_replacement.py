"""constraint=replacement from the command line: known pixels are kept, and what cannot work is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from entry_scripts import Script
from runs import sampled, trained
from torch import Tensor

import inkdrop
from inkdrop.constraints import Constrained, Constraint, ConstraintFactory
from inkdrop.constraints.base import Stepping
from inkdrop.schedules import Point


class Noisy(ConstraintFactory):
    """Acts on moves that draw noise only."""

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        raise AssertionError

    def check(self, sampler: Stepping, points: Sequence[Point]) -> None:
        if sampler.deterministic:
            raise ValueError(f"particles need a sampler that draws noise, on {len(points) - 1} steps")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, two pictures of 8 x 8, and a mask that knows the left half."""
    folder = tmp_path_factory.mktemp("replacement")
    trained(folder / "run", "callbacks.pictures=null", "callbacks.evaluate=null")
    rng = np.random.default_rng(0)
    for name in "ab":
        PIL.Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{name}.png")
    PIL.Image.fromarray(np.repeat(np.where(np.arange(8) < 4, 255, 0)[None], 8, 0).astype(np.uint8)).save(
        folder / "m.png"
    )
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "small.png")
    return folder


def options(folder: Path, known: str = "a.png", mask: str = "m.png") -> list[str]:
    return ["constraint=replacement", f"condition.known={folder / known}", f"condition.mask={folder / mask}"]


@pytest.mark.many
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "abm", "heun"])
def test_known_pixels_are_kept_exactly(sampler: str, folder: Path, tmp_path: Path) -> None:
    files = f"[{folder / 'a.png'},{folder / 'b.png'}]"
    given = ["constraint=replacement", f"condition.known={files}", f"condition.mask={folder / 'm.png'}"]
    found, result = sampled(folder / "run", tmp_path / "s", "num_samples=4", f"sampler={sampler}", *given)
    known = np.stack([np.asarray(PIL.Image.open(folder / f"{name}.png")) for name in "abab"])
    samples = found["x"].reshape(4, 8, 8)
    assert np.array_equal(samples[:, :, :4], known[:, :, :4])
    assert not np.array_equal(samples[0, :, 4:], samples[2, :, 4:])
    free, _ = sampled(folder / "run", tmp_path / "free", "num_samples=4", f"sampler={sampler}")
    assert not np.array_equal(free["x"].reshape(4, 8, 8)[:, :, 4:], samples[:, :, 4:])
    assert result["network_calls"] > 0


@pytest.mark.many
@pytest.mark.parametrize(
    "chosen",
    [
        ["constraint=particles", "constraint.copies=3", "sampler=ancestral"],
        ["constraint=pigdm", "sampler=ddim"],
        ["constraint=dps", "sampler=ddim"],
        ["constraint=replacement", "time_grid=resampled", "time_grid.repeats=3", "time_grid.num_steps=4"],
    ],
    ids=["particles", "pigdm", "dps", "repaint"],
)
def test_other_constraints_with_guidance_in_any_batch(chosen: list[str], folder: Path, tmp_path: Path) -> None:
    """Known pixels are exact, the last sample is that of another batch size, and the record says what was measured."""
    files = [f"condition.known={folder / 'a.png'}", f"condition.mask={folder / 'm.png'}"]
    ways = ["num_samples=3", "condition.label=2", "guidance=classifier_free", "guidance.scale=2", *chosen, *files]
    found, result = sampled(folder / "run", tmp_path / "all", *ways)
    known = np.asarray(PIL.Image.open(folder / "a.png"))
    assert (found["x"].reshape(3, 8, 8)[:, :, :4] == known[:, :4]).all()
    alone, _ = sampled(folder / "run", tmp_path / "two", *ways, "batch_size=2")
    assert np.abs(found["x"].astype(int) - alone["x"]).max() <= 1
    if "time_grid=resampled" in chosen:
        assert result["sampler"]["time_grid"]["time_grid"]["num_steps"] == 4  # that of the repeated grid
    if "constraint=particles" in chosen:
        assert 1 / 3 - 1e-6 <= result["least_effective_share_min"] <= result["least_effective_share_mean"] <= 1


@pytest.mark.slow
def test_derived_fields_of_held_out_items_are_what_is_known(folder: Path, tmp_path: Path) -> None:
    """The error of the filled-in images counts the hidden pixels alone: known ones are exact."""
    fields = [
        "derive.known={_target_:inkdrop.data.degradations.Copy}",
        "derive.mask={_target_:inkdrop.data.degradations.BoxMask,low:0.5,high:0.5}",
    ]
    ways = ["evaluate=true", "num_samples=20", "metric=rmse", "extractor=none", "sampler=ddim"]
    found, result = sampled(folder / "run", tmp_path / "filled", *ways, "constraint=replacement", *fields)
    _, free = sampled(folder / "run", tmp_path / "free", *ways)
    hidden = found["mask"].reshape(20, 8, 8) == 0
    assert 0.1 < hidden.mean() < 0.5
    assert ((found["x"].reshape(20, 8, 8) == found["known"].reshape(20, 8, 8)) | hidden).all()
    assert result["metrics"]["rmse_20"] < 0.7 * free["metrics"]["rmse_20"]
    assert result["protocol"]["sampling"]["constraint"]["_target_"].endswith("Replacement")


WRONG: dict[str, tuple[list[str], str]] = {
    "one step": (["time_grid.num_steps=1"], "constraint=replacement needs at least two steps"),
    "no mask": (["condition.mask=null"], "condition.mask=None must be a file, or a list of files"),
    "no file": (["condition.mask=absent.png"], "condition.mask=absent.png does not exist"),
    "smaller": (["condition.known=small.png"], r"condition.known has the shape [1, 4, 4], but samples have the shape"),
    "smaller mask": (["condition.mask=small.png"], r"condition.mask has the shape [1, 4, 4], but samples have"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_before_the_folder_exists(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    more, words = WRONG[name]
    out = tmp_path / "out"
    with pytest.raises(ValueError) as error:  # noqa: PT011
        inkdrop.sample("checkpoint=run", f"output_dir={out}", "sampler=ddim", *options(folder), *more)
    assert words in str(error.value)
    assert not out.exists()


def test_a_sampler_that_does_not_suit_the_constraint_is_refused(folder: Path, tmp_path: Path) -> None:
    allowed = ["+constraint._target_=test_replacement.Noisy", "allow_targets=[test_replacement.]"]
    with pytest.raises(ValueError, match="particles need a sampler that draws noise, on 4 steps"):
        inkdrop.sample(f"checkpoint={folder / 'run'}", f"output_dir={tmp_path / 'out'}", "sampler=ddim", *allowed)
    assert not (tmp_path / "out").exists()


def test_the_help_of_a_checkpoint_lists_its_conditions(folder: Path, script: Script) -> None:
    ended = script("sample.py", "--help", f"checkpoint={folder / 'run'}")
    assert ended.code == 0, ended.err
    assert ended.out.endswith(f"Conditions of {folder / 'run'}:\n  condition.label=...\n")


def test_the_protocol_tells_samples_under_a_constraint_from_others() -> None:
    from inkdrop.metrics.protocol import sampling_facts

    plain = sampling_facts({"sampler": 1, "guidance": 2}, "ema", 0, 4, "32-true")
    assert plain == sampling_facts({"sampler": 1, "guidance": 2, "constraint": None}, "ema", 0, 4, "32-true")
    given = sampling_facts({"sampler": 1, "guidance": 2, "constraint": {"copies": 3}}, "ema", 0, 4, "32-true")
    assert given == {**plain, "constraint": {"copies": 3}}
