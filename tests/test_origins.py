"""Noise between two seeds, and the noise that data come from."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import SCHEDULES, exact_pipeline, mixture
from runs import sampled, trained
from small_tasks import small_task
from torch import Tensor

from inkdrop.commands.calibrate.fitting import calibrate_checkpoint
from inkdrop.commands.sample.origins import Interpolation, Reconstruction
from inkdrop.configuration.compose import composed, resolved
from inkdrop.noises import slerp
from inkdrop.samplers import Ancestral, Calibrated, abm
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


def test_interpolation_begins_and_ends_with_the_samples_of_the_two_seeds() -> None:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]), abm(Centred(10, 0.47, 1.5)))
    origin = Interpolation([3, 7], 5)
    eps = origin.noise(pipeline, {}, torch.arange(5))
    samples = pipeline({}, range(5), eps=eps)
    assert torch.allclose(samples[[0, -1]], pipeline({}, [3, 7]), atol=1e-5)
    part = origin.noise(pipeline, {}, torch.tensor([3, 1]))
    assert eps is not None
    assert part is not None
    assert torch.allclose(part, eps[[3, 1]])


def test_reconstruction_comes_back_to_the_data() -> None:
    denoiser = mixture(SCHEDULES["vp"])
    pipeline = exact_pipeline(denoiser, abm(Centred(200, 0.47, 1.5)))
    origin = Reconstruction(pipeline, {"x": denoiser.draw(20)}, 16)
    assert origin.conditions({"label": torch.zeros(16)}) == {}
    samples = pipeline({}, range(16), eps=origin.noise(pipeline, {}, torch.arange(16)))
    assert origin.facts(pipeline, samples)["round_trip_rms"] < 1e-3
    assert origin.facts(pipeline, samples + 1)["round_trip_rms"] > 0.9


def test_dropout_has_no_part_in_the_way_back() -> None:
    pipeline = small_task(dropout=0.5).pipeline.train()
    for parameter in pipeline.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    batch = {"x": noise(0, 1, dim=2).float()}
    eps = pipeline.invert(batch)
    assert pipeline.training
    assert torch.equal(eps, pipeline.eval().invert(batch))


def test_reconstruction_refuses_noise_and_more_items_than_there_are() -> None:
    denoiser = mixture(SCHEDULES["vp"])
    with pytest.raises(ValueError, match="num_samples=21"):
        Reconstruction(exact_pipeline(denoiser), {"x": denoiser.draw(20)}, 21)
    with pytest.raises(ValueError, match="reconstruct=true requires a sampler with an inverse: Ancestral draws noise"):
        Reconstruction(exact_pipeline(denoiser, Ancestral(Trailing(5))), {"x": denoiser.draw(20)}, 2)
    with pytest.raises(ValueError, match=r"the time grid returns to t = 0\.6, draws noise there"):
        Reconstruction(exact_pipeline(denoiser, abm(Explicit([1.0, 0.5, 0.6, 0.2]))), {"x": denoiser.draw(20)}, 2)
    calibrated = Calibrated(Explicit([1.0, 0.5]), [[1.0, 1.0], [1.0, 1.0]])
    with pytest.raises(ValueError, match="sampler=calibrated was fitted to one direction"):
        Reconstruction(exact_pipeline(denoiser, calibrated), {"x": denoiser.draw(20)}, 2)


@pytest.mark.slow
def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of few steps is interpolated, reconstructed and calibrated by the options of the pages."""
    run = tmp_path / "run"
    trained(run, "callbacks.evaluate=null", "callbacks.pictures=null", "trainer.max_steps=3")
    steps = ["sampler=abm", "time_grid=centred", "guidance=none"]
    few = [*steps, "time_grid.num_steps=8", "condition.label=1"]
    between, told = sampled(run, tmp_path / "between", "interpolate=[3,7]", "num_samples=4", "batch_size=3", *few)
    assert told["interpolate"] == [3, 7]
    end, _ = sampled(run, tmp_path / "end", "seed=3", "num_samples=1", *few)
    assert np.abs(between["x"][0].astype(int) - end["x"][0]).max() <= 1
    assert np.abs(between["x"][0].astype(int) - between["x"][-1]).max() > 1
    back = ["reconstruct=true", "num_samples=4", "batch_size=3", *steps]
    _, told = sampled(run, tmp_path / "back", *back, "time_grid.num_steps=60")
    _, coarse = sampled(run, tmp_path / "coarse", *back, "time_grid.num_steps=2")
    assert told["round_trip_rms"] < min(0.02, coarse["round_trip_rms"])
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong", "reconstruct=true", "interpolate=[1,2]")
    assert "interpolate, reconstruct and evaluate exclude each other" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong 0", *back, "condition.label=1")
    assert "remove condition.label" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong 1", "time_grid=explicit", "time_grid.times=[0.3,0.1]")
    assert "the time grid starts at t = 0.3" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "wrong 2", "sampler=calibrated", "time_grid=karras", "time_grid.num_steps=4")
    assert "sampler=calibrated has its own times" in capsys.readouterr().err

    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "graphs", "cuda_graphs=true")
    assert "compile=true" in capsys.readouterr().err

    with pytest.raises(SystemExit, match="2"):
        sampled(run, tmp_path / "repeats", "interpolate=[1,2]", "repeats=2")
    assert "repeats=2" in capsys.readouterr().err
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
    _, told = sampled(run, tmp_path / "few", *calibrated)
    assert told["network_calls"] == 3
    assert told["sampler"]["coefficients"] == content["coefficients"]
    with pytest.raises(SystemExit, match="4"):  # other weights have another calibration
        sampled(run, tmp_path / "raw", *calibrated, "weights=raw")
    file.write_text(file.read_text()[:-9])
    with pytest.raises(SystemExit, match="4"):
        sampled(run, tmp_path / "damaged", *calibrated)
    assert f"{file} cannot be read: it is not JSON" in capsys.readouterr().err
