"""Few-step training: closed forms on Gaussians, teachers that no checkpoint holds, and runs that resume to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analytic import gaussian
from runs import SHORT, STEPS, differing, interrupted, run, sampled
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import FlowMap, NetworkDenoiser, SelfConditioned
from inkdrop.errors import CheckpointError
from inkdrop.losses import (
    ConsistencyLoss,
    DenoisingLoss,
    DistributionMatching,
    Example,
    MeanFlow,
    ProgressiveDistillation,
    Shortcut,
)
from inkdrop.noises import NoiseSource, Paired
from inkdrop.predictions import DataPrediction, FlowPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Sampler, abm, dpmpp_2m, heun
from inkdrop.schedules import LinearInterpolation
from inkdrop.time_grids import Consistency, Trailing
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit

MEAN, VARIANCE = 0.7, 0.25
FLOW = ["schedule=linear", "prediction=flow", "time_sampler=uniform"]


def exact_map(x: Tensor, t: float | Tensor, s: float | Tensor = 0.0) -> Tensor:
    """The probability flow of N(MEAN, VARIANCE) from t to s, where alpha = 1 - t and sigma = t."""

    def law(at: float | Tensor) -> tuple[Any, Any]:
        at = torch.as_tensor(at)
        return (1 - at) * MEAN, ((1 - at) ** 2 * VARIANCE + at**2).sqrt()

    (mean_t, std_t), (mean_s, std_s) = law(t), law(s)
    return mean_s + std_s / std_t * (x - mean_t)


def test_consistency_grid_goes_down_to_the_data_and_up_by_new_noise() -> None:
    assert Consistency(Trailing(3))(LinearInterpolation()) == pytest.approx([1, 0, 2 / 3, 0, 1 / 3, 0])


class Perturbed(torch.nn.Module):
    """A closed form F(x, t, s) plus p + q x, which training shall bring to 0."""

    def __init__(self, exact: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.exact, self.wrong = exact, torch.nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, x: Tensor, c_noise: Tensor, vector: Tensor | None = None) -> Tensor:
        t = c_noise[:, None] / 1000
        until = torch.zeros_like(t) if vector is None else vector / 1000
        return self.exact(x, t, until).to(x.dtype) + self.wrong[0] + self.wrong[1] * x


class Bare(torch.nn.Module):
    """An embedding that is its argument."""

    def forward(self, values: Tensor) -> Tensor:
        return values[:, None]


class Streams:
    """Random streams of one generator, which are drawn faster than those of a run."""

    keys = (0,)

    def __init__(self, count: int):
        self.count, self.generator = count, torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return self.count

    def at(self, *purpose: Any) -> Streams:
        return self

    def uniform(self, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.rand((self.count, *shape), generator=self.generator, dtype=dtype)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        half = torch.randn((self.count // 2, *shape), generator=self.generator, dtype=dtype)
        return torch.cat([half, -half])


def wrong(loss: Any, denoiser: Any, more: Callable[[Tensor], dict[str, Tensor]] = lambda x: {}) -> float:
    """How far training on N(MEAN, VARIANCE) leaves the network from its closed form."""
    steps, batch, wrong = 200, 2048, denoiser.network.wrong
    optimizer = torch.optim.Adam([wrong], 0.03)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss.check(denoiser)
    streams: Any = Streams(batch)
    for _ in range(steps):
        x_0 = MEAN + VARIANCE**0.5 * streams.normal((1,))[torch.randperm(batch, generator=streams.generator)]
        fields = {"x": x_0, **more(x_0)}
        optimizer.zero_grad()
        loss(denoiser, Example(x_0, {}, fields), streams).loss.mean().backward()
        optimizer.step()
        scheduler.step()
    return float(wrong.detach().abs().max())


def velocity(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The average velocity of the probability flow from t to s, and the velocity where s = t."""
    power = (1 - t) ** 2 * VARIANCE + t**2
    at_once = -MEAN + (t - (1 - t) * VARIANCE) / power * (x - (1 - t) * MEAN)
    apart = t - s
    return torch.where(apart > 1e-6, (x - exact_map(x, t, s)) / apart.clamp(min=1e-6), at_once)


class Exact(torch.nn.Module):
    """The pipeline of the exact denoiser, as a teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = gaussian(LinearInterpolation(), torch.tensor([MEAN]), torch.tensor([[VARIANCE]]))
        self.conditioner = Unconditional()


def denoiser(exact: Callable[[Tensor, Tensor, Tensor], Tensor] = velocity) -> NetworkDenoiser:
    return NetworkDenoiser(Perturbed(exact), LinearInterpolation(), FlowPrediction())


def flow_map() -> FlowMap:
    return FlowMap(Perturbed(velocity), LinearInterpolation(), FlowPrediction(), Bare())


@pytest.mark.slow
def test_consistency_training_finds_the_map_to_the_data_of_a_gaussian() -> None:
    assert wrong(ConsistencyLoss(Uniform(), 0.005, 0.005, 1.0), denoiser()) < 1e-2


@pytest.mark.slow
def test_consistency_distillation_finds_the_map_to_the_data_of_a_gaussian() -> None:
    assert wrong(ConsistencyLoss(Uniform(), 0.005, 0.005, 1.0, teacher=Exact()), denoiser()) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("loss", [MeanFlow(Uniform(), power=0.0), Shortcut(Uniform())], ids=["mean flow", "shortcut"])
def test_flow_maps_find_the_average_velocity_of_a_gaussian(loss: Any) -> None:
    assert wrong(loss, flow_map()) < 1e-2


def test_a_reflowed_model_finds_the_straight_map_of_a_gaussian() -> None:
    deviation = VARIANCE**0.5

    def straight(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        eps = (x - (1 - t) * MEAN) / ((1 - t) * deviation + t)
        return eps - MEAN - deviation * eps

    model = denoiser(straight)
    model.noise = Paired()
    loss = DenoisingLoss(Uniform(), Unit())
    assert wrong(loss, model, lambda x: {"eps": (x - MEAN) / deviation}) < 1e-2
    with pytest.raises(ValueError, match="the data have no eps"):
        loss(model, Example(torch.zeros(2, 1), {}, {"x": torch.zeros(2, 1)}), Streams(2))  # type: ignore[arg-type]


@pytest.mark.slow
def test_progressive_distillation_leads_where_the_steps_of_the_teacher_lead() -> None:

    def steps(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The velocity of 20 steps of DDIM over half of the time."""
        ratio = torch.ones_like(t)
        for k in range(20):
            now = t - k / 40
            power = (1 - now) ** 2 * VARIANCE + now**2
            ratio = ratio * (1 - (now - (1 - now) * VARIANCE) / power / 40)
        mean = (1 - t) * MEAN
        return (x - (mean + MEAN / 2 + ratio * (x - mean))) * 2

    assert wrong(ProgressiveDistillation(Exact(), 2, Unit(), 20), denoiser(steps)) < 1e-2


def test_a_prediction_that_is_not_x_at_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="x itself at t = 0"):
        ConsistencyLoss(Uniform()).check(NetworkDenoiser(Bare(), LinearInterpolation(), DataPrediction()))


def test_flow_maps_need_a_denoiser_that_knows_where_a_move_ends() -> None:
    with pytest.raises(ValueError, match="set denoiser=flow_map"):
        MeanFlow(Uniform()).check(denoiser())  # type: ignore[arg-type]


def test_guidance_needs_a_teacher_that_was_trained_without_its_condition() -> None:
    for loss in (
        ConsistencyLoss(Uniform(), teacher=Exact(), scale=2.0),
        ProgressiveDistillation(Exact(), 2, Unit(), 2, scale=2.0),
        DistributionMatching(Exact(), Uniform(), Unit(), scale=2.0),
    ):
        with pytest.raises(ValueError, match="trained without its condition"):
            loss.check(denoiser())


def test_consistency_is_trained_with_self_conditioning_too() -> None:
    """The network sees one estimate beside x in each of both calls."""

    class Beside(torch.nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, concat: Tensor) -> Tensor:
            assert concat.shape == x.shape
            return x + 0 * concat

    model = SelfConditioned(Beside(), LinearInterpolation(), FlowPrediction(), 1)
    x_0 = torch.randn(6, 1)
    terms = ConsistencyLoss(Uniform())(model, Example(x_0, {}, {"x": x_0}), Generators.from_seeds(range(6)))
    assert torch.isfinite(terms.loss).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_samplers_say_where_a_move_ends(steps: int) -> None:
    """With the exact average velocity, any number of steps leads to the data of the probability flow."""
    model = flow_map()
    torch.nn.init.zeros_(model.network.wrong)  # type: ignore[arg-type]
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    source: Any = NoiseSource(Paired(), Generators.from_seeds(range(9)))
    with torch.no_grad():
        x_0 = DDIM(Trailing(steps))(model.begin(), eps, {}, source)
    assert torch.allclose(x_0, exact_map(eps, 1.0), atol=1e-5)


@pytest.mark.parametrize(
    "sampler", [abm(Trailing(40)), heun(Trailing(40)), dpmpp_2m(Trailing(80))], ids=["abm", "heun", "2m"]
)
def test_samplers_of_several_estimates_solve_the_ordinary_equation_of_a_map(sampler: Sampler) -> None:
    model = flow_map()
    torch.nn.init.zeros_(model.network.wrong)  # type: ignore[arg-type]
    eps = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    source: Any = NoiseSource(Paired(), Generators.from_seeds(range(9)))
    with torch.no_grad():
        x_0 = sampler(model.begin(), eps, {}, source)
    assert torch.allclose(x_0, exact_map(eps, 1.0), atol=1e-2)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    run(folder, *FLOW, *SHORT)
    return folder


DISTILLED = {
    "consistency": ["loss=consistency_distillation", "time_grid=consistency", "sampler=ddim"],
    "progressive": ["loss=progressive", "loss.num_steps=2", "sampler=ddim", "time_grid=trailing"],
}


@pytest.mark.slow
@pytest.mark.parametrize("method", DISTILLED)
def test_a_teacher_is_in_no_checkpoint_and_its_run_resumes_to_the_bit(
    method: str, teacher: Path, tmp_path: Path
) -> None:
    names = [*FLOW, *DISTILLED[method], f"loss.teacher.checkpoint={teacher}", f"init_from={teacher}"]
    whole = run(tmp_path / "whole", *names)
    plain = run(tmp_path / "plain", *FLOW, f"init_from={teacher}")
    assert whole["state_dict"].keys() == plain["state_dict"].keys()
    assert whole["trainable"] == plain["trainable"]
    assert "weights" not in whole["models"]["loss.teacher"]
    interrupted(tmp_path / "whole", 9, tmp_path / "again")
    again = run(tmp_path / "again", *names, "resume_allow=[output_dir]")
    assert again["global_step"] == STEPS
    assert all(torch.equal(again["state_dict"][name], value) for name, value in whole["state_dict"].items())


@pytest.mark.slow
def test_a_generator_and_its_fake_model_resume_to_the_bit(teacher: Path, tmp_path: Path) -> None:
    names = [*FLOW, "loss=distribution_matching", "sampler=ddim", "time_grid=trailing", "time_grid.num_steps=1"]
    names += [f"loss.teacher.checkpoint={teacher}", f"init_from={teacher}"]
    whole = run(tmp_path / "whole", *names)
    trained, start = whole["state_dict"], read_checkpoint(teacher)["state_dict"]
    fake = [name for name in whole["trainable"] if ".fake." in name]
    assert len(fake) * 2 == len(whole["trainable"])
    changed = [n for n in fake if not torch.equal(trained[n], start[n.replace("loss.fake", "pipeline.denoiser")])]
    assert len(changed) > len(fake) / 2
    interrupted(tmp_path / "whole", 9, tmp_path / "again")
    assert differing(whole, run(tmp_path / "again", *names, "resume_allow=[output_dir]")) == []


@pytest.mark.slow
def test_a_teacher_that_is_gone_is_named_before_the_run_goes_on_and_sampling_never_needs_it(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "teacher"
    shutil.copytree(teacher, moved)
    names = [*FLOW, *DISTILLED["consistency"], f"loss.teacher.checkpoint={moved}"]
    run(tmp_path / "whole", *names)
    interrupted(tmp_path / "whole", 9, tmp_path / "again")
    before = sorted(each.name for each in (tmp_path / "again").rglob("*"))
    shutil.rmtree(moved)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "again", *names, "resume_allow=[output_dir]")
    assert stopped.value.code == CheckpointError.exit_code
    assert str(moved) in capsys.readouterr().err
    assert sorted(each.name for each in (tmp_path / "again").rglob("*")) == before
    samples, result = sampled(tmp_path / "whole", tmp_path / "samples", "num_samples=5", "time_grid.num_steps=2")
    assert len(samples["x"]) == 5
    assert result["network_calls"] == 2


@pytest.mark.slow
def test_pairs_are_noise_and_the_data_that_the_teacher_makes_of_it(teacher: Path, tmp_path: Path) -> None:
    pairs, _ = sampled(teacher, tmp_path / "pairs", "num_samples=40", "save_noise=true")
    pipeline = inkdrop.load(teacher)
    again = pipeline({}, [7] * 40, eps=torch.from_numpy(pairs["eps"]))
    assert torch.allclose(again, torch.from_numpy(pairs["x"]), atol=1e-5)
    fields = ["data=arrays", f"data.path={tmp_path}/pairs/samples.npz", "+data.fields.eps=eps"]
    straight = [*fields, "data.shape=[2]", "data.num_classes=0", "noise=paired"]
    run(tmp_path / "reflow", *FLOW, *SHORT, f"init_from={teacher}", *straight)
    samples, _ = sampled(tmp_path / "reflow", tmp_path / "samples", "num_samples=5")
    assert len(samples["x"]) == 5
    with pytest.raises(SystemExit):
        sampled(teacher, tmp_path / "edited", "save_noise=true", "origin=reconstruction")
    assert not (tmp_path / "edited" / "samples.npz").exists()


@pytest.mark.slow
def test_the_generator_of_distribution_matching_finds_the_law_of_the_teacher() -> None:
    """In one dimension, an affine generator of a normal law has the teacher's mean and deviation."""
    teacher: Any = Exact()
    teacher.denoiser = denoiser(lambda x, t, s: velocity(x, t, t))
    torch.nn.init.zeros_(teacher.denoiser.network.wrong)
    loss = DistributionMatching(teacher, Uniform(), Unit())
    torch.nn.init.normal_(loss.fake.network.wrong)
    model, streams = denoiser(lambda x, t, s: x - MEAN - x * VARIANCE**0.5), Streams(2048)
    groups: Any = [{"params": [model.network.wrong], "lr": 0.01}, {"params": [loss.fake.network.wrong], "lr": 0.05}]
    optimizer = torch.optim.Adam(groups)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 800)
    x_0 = torch.zeros(2048, 1)
    for _ in range(800):
        optimizer.zero_grad()
        loss(model, Example(x_0, {}, {"x": x_0}), streams).loss.mean().backward()  # type: ignore[arg-type]
        optimizer.step()
        scheduler.step()
    assert float(model.network.wrong.detach().abs().max()) < 5e-2  # type: ignore[operator]
    assert not teacher.denoiser.network.wrong.any()


@pytest.mark.slow
def test_a_distilled_network_is_given_the_scale_of_guidance(tmp_path: Path) -> None:
    """A student of a guided teacher starts with its weights, and its samples depend on the scale in one call a step."""
    file = tmp_path / "points.npz"
    generator = torch.Generator().manual_seed(0)
    np.savez(file, x=torch.randn(64, 2, generator=generator), label=torch.arange(64) % 2)
    fields = ["data=arrays", f"data.path={file}", "data.shape=[2]", "+data.fields.label=label", "conditioner=label"]
    guided = [*fields, "guidance=classifier_free", *FLOW]
    run(tmp_path / "teacher", *guided, *SHORT)
    latent = ["loss=latent_consistency", f"loss.teacher.checkpoint={tmp_path}/teacher", f"init_from={tmp_path}/teacher"]
    named = ["denoiser=scale_conditioned", "guidance=distilled", "time_grid=consistency", "sampler=ddim"]
    run(tmp_path / "student", *guided, *latent, *named, "optimizer.lr=0.03", "scheduler.warmup_steps=1")
    options = ["num_samples=6", "weights=raw"]
    made = [
        sampled(tmp_path / "student", tmp_path / f"samples-{scale}", *options, f"guidance.scale={scale}")
        for scale in (1.0, 3.0)
    ]
    assert [result["network_calls"] for _, result in made] == [2, 2]
    assert not np.allclose(made[0][0]["x"], made[1][0]["x"])


def test_the_gap_falls_over_the_run_and_both_calls_have_the_same_dropout() -> None:
    loss, x_0 = ConsistencyLoss(Uniform(), 0.25, 0.01), torch.randn(3, 8)
    example = Example(x_0, {}, {"x": x_0}, None, None, torch.tensor([0.0, 0.5, 1.0]))
    assert loss.gap(example).tolist() == pytest.approx([0.25, 0.05, 0.01], rel=1e-6)

    class Dropping(torch.nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return torch.nn.functional.dropout(x, 0.5)

    model = NetworkDenoiser(Dropping(), LinearInterpolation(), FlowPrediction())
    terms = ConsistencyLoss(Uniform(), 1e-9, 1e-9)(model, example, Generators.from_seeds(range(3)))
    assert float(terms.parts["error"].max()) < 1e-9
    now = LinearInterpolation().points([0.5])[0]
    assert not torch.equal(model(x_0, now, {}).x_0, model(x_0, now, {}).x_0)
