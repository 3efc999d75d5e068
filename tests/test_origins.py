"""Noise between two seeds, and the noise that data come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from analytic import SCHEDULES, BatchGaussian, exact_pipeline, gaussian, mixture, sliced_w1
from runs import sampled, trained
from small_tasks import small_task
from torch import Tensor

import inkdrop
from inkdrop.commands.calibrate.fitting import calibrate_checkpoint
from inkdrop.configuration.compose import composed, resolved
from inkdrop.noises import slerp
from inkdrop.pipeline import Pipeline
from inkdrop.pipeline.origins import Edit, Interpolation, Inverted, Origin, Start
from inkdrop.samplers import Ancestral, Calibrated, abm, heun
from inkdrop.time_grids import Centred, Explicit, Trailing


def noise(*seeds: int, dim: int = 4000) -> Tensor:
    return torch.stack([torch.randn(dim, generator=torch.Generator().manual_seed(seed)).double() for seed in seeds])


def test_the_great_circle_keeps_the_length_of_noise_and_goes_at_one_speed() -> None:
    first, second = noise(0, 1)
    shares = torch.linspace(0, 1, 9).double()
    way = slerp(first.expand(9, -1), second.expand(9, -1), shares)
    assert torch.allclose(way[[0, -1]], torch.stack([first, second]))
    lengths = way.norm(dim=1) / math.sqrt(way.shape[1])
    assert (lengths - 1).abs().max() < 0.05  # a straight line falls to 0.71
    angles = torch.cosine_similarity(way[1:], way[:-1]).acos()
    assert angles.max() - angles.min() < 0.01


def test_equal_noise_stays() -> None:
    same = noise(0)
    assert torch.allclose(slerp(same, same, torch.tensor([0.3])), same)


def started(origin: Origin, pipeline: Pipeline, seeds: Sequence[int], items: Mapping[str, Tensor]) -> Start:
    origin.check(pipeline)
    return origin.begin(pipeline, origin.sources(pipeline, seeds, items), {})


def test_interpolation_begins_and_ends_with_the_samples_of_the_two_seeds() -> None:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]), abm(Centred(10, 0.47, 1.5)))
    origin = Interpolation([3, 7])
    sources = origin.sources(pipeline, range(5), {})
    eps = origin.begin(pipeline, sources, {}).eps
    samples = pipeline({}, range(5), eps=eps)
    assert torch.allclose(samples[[0, -1]], pipeline({}, [3, 7]), atol=1e-5)
    part = origin.begin(pipeline, {"share": sources["share"][[3, 1]]}, {}).eps
    assert eps is not None
    assert part is not None
    assert torch.allclose(part, eps[[3, 1]])


def test_reconstruction_comes_back_to_the_data() -> None:
    denoiser = mixture(SCHEDULES["vp"])
    pipeline = exact_pipeline(denoiser, abm(Centred(200, 0.47, 1.5)))
    origin, items = Inverted(), {"x": denoiser.draw(16)}
    assert origin.takes_items
    samples = pipeline({}, range(16), **started(origin, pipeline, range(16), items)._asdict())
    assert origin.facts(pipeline, items, samples)["rms_to_origin"] < 1e-3
    assert origin.facts(pipeline, items, samples + 1)["rms_to_origin"] > 0.9


def test_dropout_has_no_part_in_the_way_back() -> None:
    pipeline = small_task(dropout=0.5).pipeline.train()
    for parameter in pipeline.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = {"x": noise(0, 1, dim=2).float()}
    eps = pipeline.invert(batch)
    assert pipeline.training
    assert torch.equal(eps, pipeline.eval().invert(batch))


@pytest.mark.parametrize("t_start", [0.2, 0.5, 1.0])
def test_edits_have_the_law_of_data_given_the_noised_guide(t_start: float) -> None:
    """A run from the guide at t_start draws x_0 given x_t, where x_t is the noised guide."""
    count, guide = 3000, torch.tensor([[0.9, -0.3]], dtype=torch.float64)
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    pipeline = exact_pipeline(denoiser, Ancestral(Trailing(60)))
    origin = Edit(t_start=t_start)
    start = started(origin, pipeline, range(count), {"x": guide.expand(count, 2)})
    edited = pipeline({}, range(count), **start._asdict())
    (now,) = denoiser.schedule.points([t_start])

    def exact(seed: int) -> Tensor:
        eps = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        return denoiser.draw_given(now.alpha * guide + now.sigma * eps, now, seed + 1)

    floor = max(sliced_w1(exact(seed), exact(99)) for seed in (0, 2, 4))
    assert sliced_w1(edited, exact(99)) < 2 * floor
    assert sliced_w1(edited + 0.2, exact(99)) > 2 * floor


@pytest.mark.slow
def test_translation_between_gaussians_is_the_closed_form_map() -> None:
    """Two Gaussians with common axes: `y = mean' + sqrt(C' C^-1) (x - mean)`, the optimal transport between them."""
    schedule, (first, second) = SCHEDULES["vp"], ([0.3, 0.05], [0.02, 0.4])
    means = torch.tensor([[0.5, -0.2], [-0.6, 0.9]])
    old, new = (
        exact_pipeline(gaussian(schedule, mean, torch.diag(torch.tensor(variances))), heun(Centred(200, 0.47, 1.5)))
        for mean, variances in zip(means, (first, second), strict=True)
    )
    origin = Inverted()
    origin.model = old
    data = old.denoiser.draw(200)
    translated = new({}, range(200), **started(origin, new, range(200), {"x": data})._asdict())
    exact = means[1] + (torch.tensor(second) / torch.tensor(first)).sqrt() * (data - means[0])
    assert (translated - exact).square().mean().sqrt() < 1e-2  # what is left is the signal at t = 1
    back = Inverted()
    back.model = new
    returned = old({}, range(200), **started(back, old, range(200), {"x": translated})._asdict())
    assert (returned - data).square().mean().sqrt() < 1e-5


def test_inversion_refuses_noise() -> None:
    denoiser = mixture(SCHEDULES["vp"])
    with pytest.raises(ValueError, match="requires a sampler with an inverse: Ancestral draws noise"):
        Inverted().check(exact_pipeline(denoiser, Ancestral(Trailing(5))))
    with pytest.raises(ValueError, match=r"the time grid returns to t = 0\.6, draws noise there"):
        Inverted().check(exact_pipeline(denoiser, abm(Explicit([1.0, 0.5, 0.6, 0.2]))))
    calibrated = Calibrated(Explicit([1.0, 0.5]), [[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="sampler=calibrated was fitted to one direction"):
        Inverted().check(exact_pipeline(denoiser, calibrated))
    with pytest.raises(ValueError, match="held-out items have their own conditions"):
        Inverted(condition={"label": 3})


FAST = ["evaluate=true", "extractor=identity", "sampler=ddim", "time_grid.num_steps=2"]
WRONG = {
    "origin=edit origin.image=absent.png": "origin.image=absent.png does not exist",
    "origin=edit origin.image={picture} origin.t_start=0": "origin.t_start=0",
    "origin=reconstruction sampler=ancestral": "requires a sampler with an inverse",
    "origin=translation origin.image={picture} sampler=abm": "origin.checkpoint",
    "origin=inverted sampler=abm": "origin.image",
    "origin=inverted origin.image={picture} sampler=abm origin.condition.colour=red": "condition.colour",
    "held_out=validation": "held_out has no effect without an evaluation",
    "origin=edit held_out=missing": "held_out=missing is not a split",
}


@pytest.mark.slow
def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of few steps is interpolated, reconstructed and calibrated by the options of the pages."""
    run = tmp_path / "run"
    trained(run, "callbacks.evaluate=null", "callbacks.pictures=null", "trainer.max_steps=3")
    steps = ["sampler=abm", "time_grid=centred", "guidance=none"]
    few = [*steps, "time_grid.num_steps=8", "condition.label=1"]
    between, record = sampled(
        run, tmp_path / "between", "origin=interpolation", "origin.seeds=[3,7]", "num_samples=4", "batch_size=3", *few
    )
    assert record["origin"]["seeds"] == [3, 7]
    end, _ = sampled(run, tmp_path / "end", "seed=3", "num_samples=1", *few)
    assert np.abs(between["x"][0].astype(int) - end["x"][0]).max() <= 1
    assert np.abs(between["x"][0].astype(int) - between["x"][-1]).max() > 1
    back = ["origin=reconstruction", "num_samples=4", "batch_size=3", *steps]
    _, record = sampled(run, tmp_path / "back", *back, "time_grid.num_steps=60")
    _, coarse = sampled(run, tmp_path / "coarse", *back, "time_grid.num_steps=2")
    assert record["rms_to_origin"] < min(0.02, coarse["rms_to_origin"])
    picture = tmp_path / "guide.png"
    PIL.Image.fromarray(between["x"][0].reshape(8, 8)).save(picture)
    ways = ["origin=edit", f"origin.image={picture}", "num_samples=3", "sampler=ddim", "guidance=none"]
    kept, record = sampled(run, tmp_path / "kept", *ways, "origin.t_start=0.05", "condition.label=1")
    assert record["origin"] == {"_target_": "inkdrop.pipeline.origins.Edit", "image": str(picture), "t_start": 0.05}
    changed, far = sampled(run, tmp_path / "changed", *ways, "origin.t_start=0.9", "condition.label=1")
    assert record["rms_to_origin"] < 0.25 < far["rms_to_origin"]
    assert not np.array_equal(kept["x"], changed["x"])
    _, measured = sampled(run, tmp_path / "measured", *ways[:1], *FAST, "num_samples=20", "metric=rmse")
    assert measured["metrics"]["rmse_20"] > 0
    assert set(measured["protocol"]["sampling"]["origin"]) == {"_target_", "t_start", "sources"}
    other, record = sampled(
        run, tmp_path / "other", "origin=inverted", f"origin.image={picture}", *few, "origin.condition.label=1"
    )
    same, back = sampled(run, tmp_path / "same", "origin=inverted", f"origin.image={picture}", *few)
    assert record["rms_to_origin"] == back["rms_to_origin"]  # under the same condition, typed or not
    assert np.array_equal(other["x"], same["x"])
    pipeline = inkdrop.load(run)
    pipeline.sampler = abm(Centred(8, 0.47, 1.5))
    one, two = (Inverted(str(picture), {"label": label}).sources(pipeline, [0], {}) for label in (1, 2))
    assert (one["label"].item(), two["label"].item()) == (1, 2)
    noises = [Inverted().begin(pipeline, each, {"label": torch.tensor([1])}).eps for each in (one, two)]
    assert not torch.equal(*noises)  # data are inverted under their own condition
    translated, _ = sampled(
        run,
        tmp_path / "translated",
        "origin=translation",
        f"origin.checkpoint={run}",
        *few,
        "num_samples=2",
        f"origin.image={picture}",
        "origin.condition.label=1",
    )
    assert np.array_equal(translated["x"], same["x"][:2])
    for wrong, words in WRONG.items():
        chosen = wrong.format(run=run, picture=picture).split()
        with pytest.raises(ValueError) as error:  # noqa: PT011
            inkdrop.sample(f"checkpoint={run}", f"output_dir={tmp_path / 'no'}", *chosen)
        assert words in str(error.value)
        assert not (tmp_path / "no").exists()
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong 1", "time_grid=explicit", "time_grid.times=[0.3,0.1]")
    assert "the time grid starts at t = 0.3" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong 2", "sampler=calibrated", "time_grid=karras", "time_grid.num_steps=4")
    assert "sampler=calibrated has its own times" in capsys.readouterr().err

    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "graphs", "cuda_graphs=true")
    assert "compile=true" in capsys.readouterr().err

    for wrong in (["sampler=ancestral"], ["time_grid=explicit"]):
        with pytest.raises(ValueError, match="without noise on a grid with num_steps"):
            calibrate_checkpoint(resolved(composed("calibrate", [f"checkpoint={run}", *wrong]), empty=()))

    calibrated = ["sampler=calibrated", "time_grid.num_steps=3", "num_samples=2"]
    with pytest.raises(SystemExit, match="4"):
        sampled(run, tmp_path / "missing", *calibrated)
    assert "python -m inkdrop calibrate" in capsys.readouterr().err
    small = ["num_trajectories=4", "num_rounds=2", "refinement=4"]
    options = [f"checkpoint={run}", "time_grid.num_steps=3", *small]
    file, content, *_ = calibrate_checkpoint(resolved(composed("calibrate", options), empty=()))
    assert content["difference"]["after"] < content["difference"]["before"]
    _, record = sampled(run, tmp_path / "few", *calibrated)
    assert record["network_calls"] == 3
    assert record["sampler"]["coefficients"] == content["coefficients"]
    with pytest.raises(SystemExit, match="4"):  # other weights have another calibration
        sampled(run, tmp_path / "raw", *calibrated, "weights=raw")
    file.write_text(file.read_text()[:-9])
    with pytest.raises(SystemExit, match="4"):
        sampled(run, tmp_path / "damaged", *calibrated)
    assert f"{file} cannot be read: it is not JSON" in capsys.readouterr().err
