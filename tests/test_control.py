"""ControlNet and the T2I-adapter: nothing at the start, the base unchanged, and a hint that is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import RECORDED, STEPS, differing, interrupted, run, sampled
from torch import Tensor

import inkdrop
from inkdrop.adapters import ControlNet, LoRA, T2IAdapter
from inkdrop.checkpoints import read_checkpoint
from inkdrop.pipeline import Pipeline

SHORT = [option for option in RECORDED if not option.startswith("data.batch_size")]
SCENES = ["data=scenes", "conditioner=words", "prediction=v", "metric=none", "extractor=none", *SHORT]
SCENES += ["data.batch_size=4", "data.num_scenes=40", "data.num_held_out=4", "conditioner.depth=1"]
UNET = ["network.base_channels=8", "network.channel_multipliers=[1,2]", "network.attention_resolutions=[8]"]
SMALL = ["trainer.max_steps=3", "callbacks.checkpoint.every.steps=1"]
HINTED = [*SHORT, "data.batch_size=4", "+data.fields.outline=outline", "adapter=controlnet"]
HINTED += ["adapter.controlnet.hint=outline", *SMALL, "optimizer.lr=0.01"]
TRANSFORMER = ["network=dit", "network.width=16", "network.depth=3", "network.num_heads=2", "network.patch_size=4"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bases of a UNet and a transformer, and a ControlNet on the first."""
    folder = tmp_path_factory.mktemp("control")
    run(folder / "base", *SMALL, *UNET, model=SCENES)
    run(folder / "dit", *SMALL, *TRANSFORMER, model=SCENES)
    run(folder / "hinted", f"base={folder / 'base'}", model=HINTED)
    return folder


def estimate(pipeline: Pipeline, hint: Tensor | None = None, t: float = 0.5) -> Tensor:
    """The estimate of a network for fixed inputs."""
    x_t = torch.randn(2, *pipeline.shape, generator=torch.Generator().manual_seed(0))
    batch: dict[str, Tensor] = pipeline.request(
        [0, 1], caption="a red circle", **({} if hint is None else {"hint": hint})
    )
    with torch.no_grad():
        return pipeline.eval().denoiser(x_t, pipeline.denoiser.schedule.points([t])[0], pipeline.conditioner(batch)).x_0


def disturbed(pipeline: Pipeline) -> Pipeline:
    """The model with other weights of its adapters."""
    weights, generator = dict(pipeline.named_parameters()), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in pipeline.trained:
            weights[name] += 0.1 * torch.randn(weights[name].shape, generator=generator)
    return pipeline


def random_hint(*shape: int) -> Tensor:
    return torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.many
@pytest.mark.parametrize(
    ("base", "adapter", "shape"),
    [
        ("base", ControlNet(), [1, 16, 16]),
        ("base", ControlNet(shape=[3, 96, 96]), [3, 96, 96]),
        ("base", ControlNet(shape=[3, 8, 8]), [3, 8, 8]),
        ("base", T2IAdapter(), [1, 16, 16]),
        ("dit", ControlNet(), [1, 16, 16]),
    ],
)
def test_at_the_start_the_model_is_the_base_to_the_bit(runs: Path, base: str, adapter: Any, shape: list[int]) -> None:
    before, pipeline, hint = inkdrop.load(runs / base), inkdrop.load(runs / base), random_hint(*shape)
    pipeline.attach({"hinted": adapter})
    assert torch.equal(estimate(pipeline, hint), estimate(before))
    assert all(name.startswith("denoiser.network.controls.hinted.") for name in pipeline.trained)
    after = estimate(disturbed(pipeline), hint)
    assert not torch.equal(after, estimate(before))
    assert not torch.equal(after, estimate(pipeline, hint.flip(-1)))
    adapter.rescale(pipeline, "hinted", 0.0)
    assert torch.equal(estimate(pipeline, hint), estimate(before))
    adapter.rescale(pipeline, "hinted", 1.0)
    assert torch.equal(estimate(pipeline, hint), after)


@pytest.mark.slow
def test_it_acts_only_within_its_noise_levels(runs: Path) -> None:
    before, pipeline, hint = inkdrop.load(runs / "base"), inkdrop.load(runs / "base"), random_hint(1, 16, 16)
    adapter = ControlNet()
    pipeline.attach({"hinted": adapter})
    disturbed(pipeline)
    points = {t: pipeline.denoiser.schedule.points([t])[0] for t in (0.2, 0.5, 0.8)}
    levels = {t: point.sigma / point.alpha for t, point in points.items()}
    whole = {t: estimate(pipeline, hint, t) for t in points}
    adapter.limit(pipeline, "hinted", (levels[0.2] * 1.1, levels[0.8] / 1.1))
    for t in points:
        expected = whole[t] if t == 0.5 else estimate(before, None, t)
        assert torch.equal(estimate(pipeline, hint, t), expected)


@pytest.mark.slow
def test_several_hints_and_a_lora_act_together_in_any_order(runs: Path) -> None:
    lora = LoRA()
    parts = {"a": ControlNet("hint"), "b": T2IAdapter("other", weakest=0.1), "c": lora}
    one, other = inkdrop.load(runs / "base"), inkdrop.load(runs / "base")
    for name in ("a", "b", "c"):
        one.attach({name: parts[name]})
    for name in ("c", "b"):
        other.attach({name: parts[name]})
    assert one.names == ["caption", "hint", "other"]
    assert other.names == ["caption", "other"]
    disturbed(one)
    with torch.no_grad():
        weights = dict(one.named_parameters())
        for name in other.trained:
            dict(other.named_parameters())[name].copy_(weights[name])
    hints = {"hint": random_hint(1, 16, 16), "other": random_hint(1, 16, 16)}
    one.adapters["a"].rescale(one, "a", 0.0)
    x_t, point = torch.randn(2, 3, 16, 16), one.denoiser.schedule.points([0.5])[0]
    found = []
    for pipeline in (one, other):
        given = {name: hint for name, hint in hints.items() if name in pipeline.names}
        with torch.no_grad():
            cond = pipeline.eval().conditioner(pipeline.request([0, 1], caption="a red circle", **given))
            found.append(pipeline.denoiser(x_t, point, cond).x_0)
    assert torch.allclose(*found, atol=1e-6)


def test_training_leaves_the_base_as_it_is(runs: Path) -> None:
    base, content = read_checkpoint(runs / "base"), read_checkpoint(runs / "hinted")
    average = base["ema"]["0.9"]
    assert content["trainable"]
    assert all(name.startswith("pipeline.denoiser.network.controls.controlnet.") for name in content["trainable"])
    after = {
        name.replace("conditioner.parts.model.", "conditioner."): each for name, each in content["state_dict"].items()
    }
    assert all(torch.equal(after[name], value) for name, value in average.items())
    left = [name for name in content["trainable"] if ".leave." in name and name.endswith("weight")]
    assert all(content["state_dict"][name].any() for name in left)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit(runs: Path, tmp_path: Path) -> None:
    interrupted(runs / "hinted", 1, tmp_path / "hinted")
    again = run(tmp_path / "hinted", f"base={runs / 'base'}", "resume_allow=[output_dir]", model=HINTED)
    assert differing(read_checkpoint(runs / "hinted"), again) == []
    assert again["global_step"] == 3 < STEPS


@pytest.mark.slow
def test_sample_takes_a_hint_from_a_file(runs: Path, tmp_path: Path) -> None:
    few = ["num_samples=2", "time_grid.num_steps=2", 'condition.caption="a red circle"']
    np.save(tmp_path / "hint.npy", random_hint(1, 16, 16)[:1].numpy())
    hint = f"++condition.outline={tmp_path / 'hint.npy'}"
    base = sampled(runs / "base", tmp_path / "base", *few)[0]["x"]
    hinted = sampled(runs / "hinted", tmp_path / "hinted", *few, hint, "adapter.scale=100")[0]["x"]
    none, result = sampled(runs / "hinted", tmp_path / "none", *few, hint, "adapter.scale=0")
    assert (none["x"] == base).all()
    assert (hinted != base).any()
    given = f"adapters=[{{checkpoint:{runs / 'hinted'},scale:100}}]"
    assert (sampled(runs / "base", tmp_path / "added", *few, f"+{hint.lstrip('+')}", given)[0]["x"] == hinted).all()
    far, result = sampled(runs / "hinted", tmp_path / "far", *few, hint, "adapter.interval=[0,1e-4]")
    assert (far["x"] == base).all()
    assert result["adapter"] == {"interval": [0, 1e-4]}


@pytest.mark.slow
def test_hints_and_networks_that_do_not_fit_are_refused(runs: Path) -> None:
    with pytest.raises(ValueError, match=r"a hint of shape \[1, 24, 24\] does not fit features of size \[16, 16\]"):
        inkdrop.load(runs / "base").attach({"a": ControlNet(shape=[1, 24, 24])})
    with pytest.raises(ValueError, match=r"a hint of shape \[1, 16\] does not fit features of size \[16, 16\]"):
        inkdrop.load(runs / "base").attach({"a": ControlNet(shape=[1, 16])})
    with pytest.raises(ValueError, match="adapter=t2i_adapter changes UNets only"):
        inkdrop.load(runs / "dit").attach({"a": T2IAdapter()})
    pipeline = inkdrop.load(runs / "base")
    pipeline.attach({"a": ControlNet()})
    with pytest.raises(ValueError, match=r"hint has the shape \[3, 16, 16\], but the adapter takes \[1, 16, 16\]"):
        estimate(pipeline, random_hint(3, 16, 16))
    with pytest.raises(ValueError, match="ControlNet is more than a change of weights: it cannot be merged"):
        pipeline.adapters["a"].merge(pipeline, "a")
