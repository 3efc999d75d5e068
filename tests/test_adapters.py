"""Adapters: alone trained, the base to the bit without them, saved and shared apart from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_scripts import completed
from peft import PeftModel
from runs import POINTS, STEPS, arrays_of, as_a_command, differing, interrupted, run, sampled
from torch import Tensor, nn

import inkdrop
from inkdrop.adapters import Adapter, LoRA
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.adapters import WEIGHTS
from inkdrop.commands.export import export
from inkdrop.commands.merge import merge
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.pipeline import Pipeline, add_adapters

LAYERS = ["layers.0", "layers.3"]
ADAPTED = ["adapter=lora", "adapter.lora.layers=[layers.0,layers.3]", "optimizer.lr=0.05"]
PLAIN = [option for option in POINTS if not option.startswith(("experiment", "network"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a LoRA on it."""
    folder = tmp_path_factory.mktemp("adapters")
    run(folder / "base")
    run(folder / "lora", f"base={folder / 'base'}", *ADAPTED, model=PLAIN)
    return folder


def estimate(pipeline: Pipeline) -> Tensor:
    """The estimate of the network for fixed inputs."""
    x_t = torch.randn(6, *pipeline.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cond = pipeline.conditioner(pipeline.example(6))
        return pipeline.eval().denoiser(x_t, pipeline.denoiser.schedule.points([0.5])[0], cond).x_0


def disturbed(pipeline: Pipeline, seed: int = 0) -> Pipeline:
    """The model with other weights of its adapters."""
    weights, generator = dict(pipeline.named_parameters()), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in pipeline.trained:
            weights[name].copy_(torch.randn(weights[name].shape, generator=generator) / 4)
    return pipeline


def adapted(runs: Path, **adapters: Adapter) -> Pipeline:
    """The base with new adapters."""
    pipeline = inkdrop.load(runs / "base")
    torch.manual_seed(0)
    pipeline.attach(adapters)
    return pipeline


@pytest.mark.slow
def test_at_the_start_the_model_is_the_base_to_the_bit(runs: Path) -> None:
    base = inkdrop.load(runs / "base")
    for options in ({}, {"use_rslora": True}, {"initialization": "normal"}, {"dropout": 0.5}):
        pipeline = adapted(runs, lora=LoRA(LAYERS, rank=3, **options))  # type: ignore[arg-type]
        assert torch.equal(estimate(pipeline), estimate(base))
        assert not torch.equal(estimate(disturbed(pipeline)), estimate(base))
        assert len(pipeline.trained) == 4
        assert [name for name, each in pipeline.named_parameters() if each.requires_grad] == pipeline.trained


def test_without_strength_the_model_is_the_base_to_the_bit(runs: Path) -> None:
    base, pipeline = inkdrop.load(runs / "base"), disturbed(adapted(runs, lora=LoRA(LAYERS, use_dora=True)))
    whole = estimate(pipeline)
    pipeline.adapters["lora"].rescale(pipeline, "lora", 0.0)
    assert torch.equal(estimate(pipeline), estimate(base))
    pipeline.adapters["lora"].rescale(pipeline, "lora", 1.0)
    assert torch.equal(estimate(pipeline), whole)


def test_the_change_is_the_product_of_both_matrices_times_the_factor(runs: Path) -> None:
    pipeline = disturbed(adapted(runs, lora=LoRA(LAYERS, rank=4, alpha=6.0, scale=0.5)))
    layer: Any = pipeline.denoiser.network.blocks[0].layers[0]  # type: ignore[union-attr, index]
    x = torch.randn(5, layer.in_features)
    weight = layer.base_layer.weight + 0.5 * 6 / 4 * layer.lora_B["lora"].weight @ layer.lora_A["lora"].weight
    assert torch.allclose(layer(x), x @ weight.T + layer.base_layer.bias, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "scale": 0.7}, {"use_dora": True}])
def test_merged_weights_do_what_the_adapter_does(runs: Path, options: dict[str, Any]) -> None:
    base, pipeline = inkdrop.load(runs / "base"), disturbed(adapted(runs, lora=LoRA(LAYERS, **options)))
    before = estimate(pipeline)
    pipeline.adapters["lora"].merge(pipeline, "lora")
    assert (estimate(pipeline) - before).abs().max() < 1e-5
    assert [name for name, _ in pipeline.named_parameters()] == [name for name, _ in base.named_parameters()]


def test_several_adapters_add_up_in_either_order(runs: Path, tmp_path: Path) -> None:
    first, second = LoRA(LAYERS, rank=2), LoRA(["blocks.0.layers.0"], rank=3)
    one = disturbed(adapted(runs, a=first, b=second))
    other = adapted(runs, b=second, a=first)
    with torch.no_grad():
        weights = dict(one.named_parameters())
        for name, weight in other.named_parameters():
            weight.copy_(weights[name])
    assert (estimate(one) - estimate(other)).abs().max() < 1e-6
    assert (estimate(one) - estimate(inkdrop.load(runs / "base"))).abs().max() > 1e-3


def test_convolutions_and_layers_that_are_none() -> None:
    model = nn.ModuleDict({"denoiser": nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))})
    x = torch.randn(2, 3, 6, 6)
    before = model["denoiser"](x)
    assert len(LoRA(["0"], "denoiser")(model, "lora")) == 2
    assert torch.equal(model["denoiser"](x), before)
    assert len(LoRA(["*"], "")(model, "all")) == 2
    with pytest.raises(ValueError, match=r"denoiser\.1 of layers is a GroupNorm, but LoRA changes linear and"):
        LoRA(["0", "1"], "denoiser")(model, "other")
    with pytest.raises(ValueError, match=r"no layer has the name q of layers: the model has denoiser\.0"):
        LoRA(within="")(model, "other")
    with pytest.raises(
        ValueError, match=r"no layer has the name q of layers: the model has nothing within denoiser\.network"
    ):
        LoRA()(model, "other")


def test_dropout_may_be_another_than_that_of_the_base(runs: Path, tmp_path: Path) -> None:
    options = [f"base={runs / 'base'}", *ADAPTED, "network.dropout=0.5", "trainer.max_steps=1"]
    assert run(tmp_path / "run", *options, model=PLAIN)["config"]["network"]["dropout"] == 0.5


def test_training_changes_and_keeps_the_adapter_alone(runs: Path) -> None:
    base, content = read_checkpoint(runs / "base"), read_checkpoint(runs / "lora")
    start, weights = base["ema"]["0.9"], content["state_dict"]
    names = [name for name in content["trainable"] if ".lora_" in name]
    assert content["trainable"] == names
    assert len(names) == 4
    assert all(list(average) == names for average in content["ema"].values())
    assert len(content["optimizer_states"][0]["state"]) == len(names)
    assert all(weights[name].any() for name in names)
    frozen = {name.replace(".base_layer", ""): value for name, value in weights.items() if name not in names}
    assert all(torch.equal(frozen[name], value) for name, value in start.items())


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 9, STEPS - 1])
def test_a_run_resumes_to_the_bit_without_its_base(runs: Path, tmp_path: Path, step: int) -> None:
    interrupted(runs / "lora", step, tmp_path / "lora")
    (runs / "base").rename(runs / "away")
    try:
        again = run(tmp_path / "lora", f"base={runs / 'base'}", *ADAPTED, "resume_allow=[output_dir]", model=PLAIN)
    finally:
        (runs / "away").rename(runs / "base")
    assert differing(read_checkpoint(runs / "lora"), again) == []


@pytest.mark.slow
def test_two_devices_train_an_adapter_as_one(runs: Path, tmp_path: Path) -> None:
    options = [f"base={runs / 'base'}", *ADAPTED, "network.dropout=0.0", "trainer.max_steps=8"]
    one = run(tmp_path / "one", *options, model=PLAIN)
    devices = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    done = completed("train.py", *PLAIN, *options, *devices, f"output_dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    two = read_checkpoint(tmp_path / "two")
    assert two["trainable"] == one["trainable"]
    start = adapted(runs, lora=LoRA(LAYERS)).state_dict()
    for name, value in one["state_dict"].items():
        assert torch.allclose(two["state_dict"][name], value, rtol=1e-4, atol=1e-5), name
    moved = [name for name in one["trainable"] if "lora_B" in name]
    assert all((one["state_dict"][name] - start[name.removeprefix("pipeline.")]).abs().max() > 0.01 for name in moved)


@pytest.mark.slow
def test_sampling_chooses_the_strength_and_adds_adapters(runs: Path, tmp_path: Path) -> None:
    few = ["num_samples=6", "sampler=ddim", "time_grid.num_steps=4"]

    def of(name: str, run: str, *options: str) -> tuple[Any, dict[str, Any]]:
        arrays, result = sampled(runs / run, tmp_path / name, *few, *options)
        return arrays["x"], result

    base, whole = of("base", "base")[0], of("whole", "lora")[0]
    assert abs(whole - base).max() > 1e-2
    assert (of("none", "lora", "adapter.scale=0")[0] == base).all()
    half, result = of("half", "lora", "adapter.scale=0.5")
    assert result["adapter"] == {"scale": 0.5}
    assert 0 < abs(half - base).max() < abs(whole - base).max()
    entry = f"{{checkpoint:{runs / 'lora'},scale:0.5}}"
    assert abs(of("added", "base", f"adapters=[{entry}]")[0] - half).max() < 1e-5
    twice, result = of("twice", "base", f"adapters=[{entry},{entry}]")
    assert abs(twice - whole).max() < 1e-5
    assert [each["scale"] for each in result["adapters"]] == [0.5, 0.5]


@pytest.mark.slow
def test_the_merged_run_samples_the_same_and_is_a_base_itself(runs: Path, tmp_path: Path) -> None:
    file = merge(str(runs / "lora"), str(tmp_path / "merged"))
    assert file.is_file()
    before, after = inkdrop.load(runs / "lora"), inkdrop.load(tmp_path / "merged")
    assert not after.adapters
    assert (estimate(after) - estimate(before)).abs().max() < 1e-5
    again = run(tmp_path / "again", f"base={tmp_path / 'merged'}", *ADAPTED, "trainer.max_steps=1", model=PLAIN)
    assert again["global_step"] == 1
    with pytest.raises(ConfigurationError, match="has no adapters: name a run of adapter="):
        merge(str(runs / "base"), str(tmp_path / "other"))
    with pytest.raises(ConfigurationError, match="exists: choose a new one"):
        merge(str(runs / "lora"), str(tmp_path / "merged"))


def test_the_shared_folder_is_small_and_reads_back(runs: Path, tmp_path: Path) -> None:
    export(str(runs / "lora"), str(tmp_path / "shared"), format="adapter")
    base = inkdrop.load(runs / "base")
    assert add_adapters(base, tmp_path / "shared") == ["shared"]
    assert torch.equal(estimate(base), estimate(inkdrop.load(runs / "lora")))
    with pytest.raises(CheckpointError, match=r"changes the model with SHA-256 [0-9a-f]{64}, but this one has"):
        add_adapters(inkdrop.load(runs / "base", "raw"), tmp_path / "shared")
    (tmp_path / "shared" / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        add_adapters(inkdrop.load(runs / "base"), tmp_path / "shared")


def test_peft_loads_the_shared_folder(runs: Path, tmp_path: Path) -> None:
    export(str(runs / "lora"), str(tmp_path / "shared"), format="adapter")
    config = json.loads((tmp_path / "shared" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 4)
    base = inkdrop.load(runs / "base")
    PeftModel.from_pretrained(base, str(tmp_path / "shared"))  # type: ignore[arg-type]
    assert torch.equal(estimate(base), estimate(inkdrop.load(runs / "lora")))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["experiment=moons", "adapter=lora"], 2, "adapter=lora changes a trained model: name it by base=RUN"),
        (["base=BASE", "network.num_blocks=3"], 2, "network.num_blocks=3 is not the model of base=BASE"),
        (["base=BASE", "init_from=BASE"], 2, "base=RUN has the initial weights: remove init_from"),
        (["base=BASE", "adapter=lora"], 2, "no layer has the name q of layers: the model has denoiser"),
        (
            ["base=BASE", "adapter.lora.rank=2"],
            2,
            "nothing is chosen for adapter: add adapter=NAME (available: controlnet",
        ),
        (["base=nowhere"], 4, "base=nowhere does not exist"),
        (["base=LORA"], 4, "base=LORA has adapters: merge them first by `python -m inkdrop merge`"),
    ],
)
def test_what_cannot_be_adapted_is_refused_before_anything_is_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, message: str
) -> None:
    places = {"BASE": str(runs / "base"), "LORA": str(runs / "lora")}
    for name, place in places.items():
        options, message = [each.replace(name, place) for each in options], message.replace(name, place)
    with pytest.raises(SystemExit) as end:
        as_a_command(inkdrop.train, *PLAIN, *options, f"output_dir={tmp_path / 'run'}")
    assert message in capsys.readouterr().err
    assert end.value.code == code
    assert not (tmp_path / "run").exists()


def test_options_of_sampling_that_have_no_effect_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        "adapter.interval=[1]": "adapter.interval",
        "adapter.scale=0.5": "adapter.scale=0.5 has no effect: the run has no adapter",
        "adapters=[{scale:1}]": "adapters: an entry has no checkpoint",
        "adapters=[{checkpoint:x,strength:1}]": "adapters: an entry has no option strength",
        f"adapters=[{{checkpoint:{runs / 'base'}}}]": "has no adapters: name a run of adapter=",
    }
    for number, (options, message) in enumerate(cases.items()):
        with pytest.raises(SystemExit):
            sampled(runs / "base", tmp_path / str(number), options)
        assert message in capsys.readouterr().err
    assert not any(arrays_of(each) for each in tmp_path.iterdir() if (each / "samples.npz").exists())


@pytest.mark.slow
def test_a_base_and_an_adapted_run_guide_each_other(runs: Path, tmp_path: Path) -> None:
    """A model within another is adapted too, also where only the checkpoint holds it."""
    few = ["num_samples=6", "sampler=ddim", "time_grid.num_steps=4", "guidance=autoguidance", "guidance.scale=2"]
    options = [*few, f"guidance.checkpoint={runs / 'lora'}"]
    x = sampled(runs / "base", tmp_path / "samples", *options)[0]["x"]
    assert (x != sampled(runs / "base", tmp_path / "plain", *few, f"guidance.checkpoint={runs / 'base'}")[0]["x"]).any()
    guided = ["guidance=autoguidance", "guidance.autoguidance.scale=2"]
    guided += [f"guidance.autoguidance.weak.checkpoint={tmp_path / 'weak'}"]
    shutil.copytree(runs / "lora", tmp_path / "weak")
    run(tmp_path / "guided", *guided, "trainer.max_steps=1")
    before = sampled(tmp_path / "guided", tmp_path / "before", *few[:3])[0]["x"]
    shutil.rmtree(tmp_path / "weak")
    assert (sampled(tmp_path / "guided", tmp_path / "after", *few[:3])[0]["x"] == before).all()
