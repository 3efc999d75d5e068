"""Models within models: a checkpoint is enough on its own, and says when a file was replaced."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import POINTS, STEPS, differing, interrupted, run, sampled
from torch import Tensor, nn

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.content import migrated
from inkdrop.checkpoints.models import check_models, embedded
from inkdrop.codecs import Codec
from inkdrop.errors import CheckpointError
from inkdrop.losses import DenoisingLoss
from inkdrop.models import Frozen, Reference
from inkdrop.randomness import Generators

ALLOWED = "allow_targets=[test_inner_models.]"
HELD = "pipeline.codec.model._model."


class Latents(Codec):
    """Four numbers for each point: its standardised coordinates by the first weights of another model."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = Frozen(model)

    def shape(self, raw: Sequence[int]) -> list[int]:
        return [4]

    @property
    def map(self) -> Tensor:
        return self.model.model.network.input.weight[:4]  # (4, D)

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return self.model.model.codec.encode(batch) @ self.map.T

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.model.model.codec.decode(x @ torch.linalg.pinv(self.map).T)


class Deep(Latents):
    """The same around a model of four latents."""

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return self.model.model.codec.encode(batch)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.model.model.codec.decode(x)


class Taught(DenoisingLoss):
    """Knows a teacher, which does not matter to it."""

    def __init__(self, *args: Any, teacher: Any, **options: Any):
        super().__init__(*args, **options)
        self.teacher = Reference(teacher)


def options(inner: Path, codec: str = "Latents") -> list[str]:
    names = [f"codec._target_=test_inner_models.{codec}", "+codec.model._target_=inkdrop.pipeline.loaded"]
    return [*POINTS, "codec=pixels", *names, f"+codec.model.checkpoint={inner}", ALLOWED]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gone`, and `moved` whose codec reads it as `inner`; `deep`, whose codec reads `moved` as `outer`; `other`."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "inner", "trainer.max_steps=4")
    run(folder / "other", "trainer.max_steps=4", "seed=1")
    digest = hashlib.sha256((folder / "inner/checkpoints/step-00000004.ckpt").read_bytes()).hexdigest()
    (folder / "digest").write_text(digest)
    run(folder / "outer", model=options(folder / "inner"))
    sampled(folder / "outer", folder / "before", "num_samples=5", ALLOWED)
    run(folder / "deep", "trainer.max_steps=3", model=options(folder / "outer", "Deep"))
    sampled(folder / "deep", folder / "deep_before", "num_samples=5", ALLOWED)
    (folder / "inner").rename(folder / "gone")
    (folder / "outer").rename(folder / "moved")
    return folder


@pytest.mark.slow
def test_weights_travel_once_and_nothing_trains_them(runs: Path) -> None:
    content, inner = read_checkpoint(runs / "moved"), read_checkpoint(runs / "gone")
    held = {name.removeprefix(HELD): each for name, each in content["state_dict"].items() if name.startswith(HELD)}
    averaged = {name.removeprefix("pipeline."): each for name, each in inner["ema"]["0.9"].items()}
    assert held
    assert averaged.keys() <= held.keys()
    assert all(torch.equal(held[name], averaged[name]) for name in averaged)
    assert not [name for name in content["trainable"] if name.startswith("pipeline.codec")]
    assert not [name for average in content["ema"].values() for name in average if name.startswith("pipeline.codec")]
    trained = sum(len(group["params"]) for group in content["optimizer_states"][0]["param_groups"])
    assert trained == len(content["trainable"])


def test_the_checkpoint_keeps_what_the_model_is_next_to_an_unchanged_configuration(runs: Path) -> None:
    content = read_checkpoint(runs / "moved")
    assert content["config"]["codec"]["model"]["checkpoint"] == str(runs / "inner")
    kept = content["models"]["pipeline.codec.model"]
    assert kept["sha256"] == (runs / "digest").read_text()
    assert kept["source"] == {"checkpoint": str(runs / "inner"), "weights": "ema", "length": None, "step": None}
    assert kept["config"] == read_checkpoint(runs / "gone")["config"]["pipeline"]
    assert read_checkpoint(runs / "deep")["models"]["pipeline.codec.model"]["models"].keys() == {"pipeline.codec.model"}


@pytest.mark.parametrize(("name", "before"), [("moved", "before"), ("deep", "deep_before")])
def test_samples_need_no_other_file(name: str, before: str, runs: Path, tmp_path: Path) -> None:
    then = np.load(runs / before / "samples.npz")
    now, _ = sampled(runs / name, tmp_path / "now", "num_samples=5", ALLOWED)
    assert all(np.array_equal(now[each], then[each]) for each in then.files)
    pipeline = inkdrop.load(runs / name, allow_targets=["test_inner_models."])
    assert pipeline.shape == (4,)
    assert torch.allclose(pipeline({}, range(5)), torch.from_numpy(now["x"]), atol=1e-6)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_without_the_file(runs: Path, tmp_path: Path) -> None:
    interrupted(runs / "moved", 9, tmp_path / "outer")
    again = run(tmp_path / "outer", "resume_allow=[output_dir]", model=options(runs / "inner"))
    whole = read_checkpoint(runs / "moved")
    assert again["global_step"] == STEPS
    assert differing(whole, again) == []
    assert again["models"] == whole["models"]


@pytest.mark.slow
def test_a_run_does_not_resume_with_another_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(runs / "moved", 9, tmp_path / "outer")
    shutil.copytree(runs / "other", runs / "inner")
    try:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "outer", model=options(runs / "inner"))
    finally:
        shutil.rmtree(runs / "inner")
    assert end.value.code == 4
    assert "pipeline.codec.model.checkpoint=" in (error := capsys.readouterr().err)
    assert f"is not the file that the run was started with, whose SHA-256 is {(runs / 'digest').read_text()}" in error


@pytest.mark.slow
def test_a_reference_is_saved_nowhere_and_read_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "other", tmp_path / "teacher")
    taught = [*POINTS, "loss._target_=test_inner_models.Taught", "+loss.teacher._target_=inkdrop.pipeline.loaded"]
    taught += [f"+loss.teacher.checkpoint={tmp_path / 'teacher'}", ALLOWED]
    plain, content = run(tmp_path / "plain"), run(tmp_path / "taught", model=taught)
    assert content["state_dict"].keys() == plain["state_dict"].keys()
    assert content["models"]["loss.teacher"]["saved"] is False
    interrupted(tmp_path / "taught", 20, tmp_path / "again")
    assert differing(content, run(tmp_path / "again", model=taught)) == []
    shutil.rmtree(tmp_path / "teacher")
    interrupted(tmp_path / "taught", 20, tmp_path / "lost")
    with pytest.raises(SystemExit) as end:
        run(tmp_path / "lost", model=taught)
    assert end.value.code == 4
    assert "teacher does not exist" in capsys.readouterr().err


def test_holders_are_never_trained() -> None:
    inner = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    for kind in (Frozen, Reference):
        outer = nn.Sequential(nn.Linear(3, 3), kind(inner)).train()
        assert not inner[1].training
        x = torch.randn(2, 3, requires_grad=True)
        held: Any = outer[1]
        assert torch.equal(held(x), inner(x))
        held(x).sum().backward()
        assert x.grad is not None
        assert inner[0].weight.grad is None
        outer.double()
        assert inner[0].weight.dtype == torch.float64
        assert len([*outer.parameters()]) == (4 if kind is Frozen else 2)
        assert len(outer.state_dict()) == (4 if kind is Frozen else 2)
        inner.float()


def test_models_nested_too_deep_are_refused() -> None:
    node = {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "x"}
    entry: dict[str, Any] = {"config": {"codec": node}, "classes": [], "saved": True, "source": {}, "sha256": ""}
    entry["models"] = {"pipeline.codec": entry}
    with pytest.raises(CheckpointError, match="more than 16 models within each other"):
        embedded({"codec": node}, {"pipeline.codec": entry}, "run.ckpt", "pipeline")


@pytest.mark.parametrize("name", ["config", "classes", "source", "sha256", "saved", "models"])
@pytest.mark.parametrize("value", [None, 3], ids=["absent", "of another type"])
def test_a_record_of_a_model_that_is_damaged_is_refused_by_name(name: str, value: Any) -> None:
    node = {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "x"}
    entry: dict[str, Any] = {"config": {}, "classes": [], "source": {}, "sha256": "", "saved": True, "models": {}}
    entry |= {name: value}
    if value is None:
        del entry[name]
    with pytest.raises(CheckpointError, match=f"not an inkdrop checkpoint: of its model pipeline.codec, .*{name}"):
        embedded({"codec": node}, {"pipeline.codec": entry}, "run.ckpt", "pipeline")


@pytest.mark.parametrize("kept", [{}, {"source": {}, "sha256": ""}, {"source": {"checkpoint": "x"}, "sha256": 3}])
def test_a_run_whose_record_of_a_model_is_damaged_does_not_resume(kept: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"does not say which file pipeline\.codec is"):
        check_models({"pipeline.codec": kept})


def test_a_part_called_module_keeps_its_name() -> None:
    state = {"pipeline.codec.module.weight": torch.ones(1), "pipeline.denoiser.network.module.a": torch.ones(1)}
    content = {"format": 5, "config": {}, "state_dict": state, "trainable": [], "ema": {}}
    assert set(migrated(content)["state_dict"]) == {"pipeline.codec.module.weight", "pipeline.denoiser.network.a"}
    state["pipeline.denoiser.network.b"] = torch.ones(1)
    assert set(migrated({**content, "state_dict": state})["state_dict"]) == set(state)
