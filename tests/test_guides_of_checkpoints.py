"""The models of guidance travel with the checkpoint of the run that they guide."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import POINTS, STEPS, TINY, arrays_of, differing, interrupted, run, sampled, trained

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.content import num_bytes
from inkdrop.checkpoints.models import inner_models, loads_noted
from inkdrop.configuration import build
from inkdrop.errors import CheckpointError
from inkdrop.models import Frozen, Reference

WEAK = "pipeline.guidance.autoguidance.weak"
SMALL = [*(option for option in TINY if not option.startswith("guidance")), "trainer.max_steps=3"]
NEW = ["num_samples=5", "guidance=autoguidance"]


def guided(weak: Path) -> list[str]:
    names = [f"guidance.autoguidance.weak.checkpoint={weak}", "guidance.autoguidance.scale=3"]
    return [*POINTS, "guidance=autoguidance", *names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gone`, and `strong`, which was guided by it as `weak`; `other`; samples of `strong` from before it was moved."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "weak", "trainer.max_steps=4")
    run(folder / "other", "trainer.max_steps=4", "seed=1")
    run(folder / "strong", model=guided(folder / "weak"))
    sampled(folder / "strong", folder / "before", "num_samples=5")
    (folder / "weak").rename(folder / "gone")
    return folder


@pytest.mark.slow
def test_weights_of_a_guide_are_kept_once_and_apart_from_what_is_trained(runs: Path) -> None:
    content, weak = read_checkpoint(runs / "strong"), read_checkpoint(runs / "gone")
    kept = content["models"][WEAK]
    own = {name.removeprefix("pipeline."): each for name, each in weak["ema"]["0.9"].items()}
    assert own.keys() <= kept["weights"].keys()
    assert all(torch.equal(kept["weights"][name], own[name]) for name in own)
    assert content["state_dict"].keys() == weak["state_dict"].keys()
    assert content["ema"]["0.9"].keys() == weak["ema"]["0.9"].keys()
    assert content["trainable"] == weak["trainable"]
    once = sum(each.numel() * each.element_size() for each in kept["weights"].values())
    assert num_bytes({"models": content["models"]}) == once
    assert content["config"]["guidance"]["autoguidance"]["weak"]["checkpoint"] == str(runs / "weak")


@pytest.mark.parametrize("options", [[], ["guidance.scale=3"], ["weights=0.9", "guidance.interval=null"]])
def test_samples_need_no_file_of_the_guide(options: list[str], runs: Path, tmp_path: Path) -> None:
    then = arrays_of(runs / "before")
    now, _ = sampled(runs / "strong", tmp_path / "now", "num_samples=5", *options)
    assert np.array_equal(now["x"], then["x"])


def test_a_pipeline_needs_no_file_of_the_guide(runs: Path) -> None:
    then = arrays_of(runs / "before")
    pipeline = inkdrop.load(runs / "strong")
    assert torch.allclose(pipeline({}, range(5)), torch.from_numpy(then["x"]), atol=1e-6)
    pipeline.guidance = {}
    assert not torch.allclose(pipeline({}, range(5)), torch.from_numpy(then["x"]), atol=1e-3)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_without_the_guide(runs: Path, tmp_path: Path) -> None:
    interrupted(runs / "strong", 9, tmp_path / "again")
    again = run(tmp_path / "again", "resume_allow=[output_dir]", model=guided(runs / "weak"))
    assert again["global_step"] == STEPS
    assert differing(read_checkpoint(runs / "strong"), again) == []


@pytest.mark.slow
def test_another_file_in_the_place_of_the_guide(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    then = arrays_of(runs / "before")
    here = f"guidance.checkpoint={runs / 'weak'}"
    interrupted(runs / "strong", 9, tmp_path / "again")
    shutil.copytree(runs / "other", runs / "weak")
    try:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "again", model=guided(runs / "weak"))
        error = capsys.readouterr().err
        own, _ = sampled(runs / "strong", tmp_path / "own", "num_samples=5")
        read, _ = sampled(runs / "strong", tmp_path / "read", *NEW, here, "guidance.scale=3")
        short, _ = sampled(runs / "strong", tmp_path / "short", "num_samples=5", here)
    finally:
        shutil.rmtree(runs / "weak")
    assert end.value.code == 4
    assert f"{WEAK}.checkpoint=" in error
    assert "is not the file that the run was started with" in error
    assert np.array_equal(own["x"], then["x"])  # the guide of the run
    assert not np.array_equal(read["x"], then["x"])  # that of the file which the command names
    assert np.array_equal(read["x"], short["x"])
    chosen, _ = sampled(runs / "strong", tmp_path / "chosen", *NEW, f"guidance.checkpoint={runs / 'gone'}",
                        "guidance.scale=3")  # fmt: skip
    assert np.array_equal(chosen["x"], then["x"])


def test_a_guide_that_a_command_names_is_read_from_its_file(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        sampled(runs / "strong", tmp_path / "lost", *NEW, f"guidance.checkpoint={runs / 'weak'}")
    assert end.value.code == 4
    assert "weak does not exist" in capsys.readouterr().err


def test_a_checkpoint_that_holds_no_weights_of_its_guide_reads_their_file(runs: Path, tmp_path: Path) -> None:
    """It is one of an earlier version."""
    content = read_checkpoint(runs / "strong")
    del content["models"][WEAK]["weights"]
    torch.save(content, tmp_path / "earlier.ckpt")
    with pytest.raises(CheckpointError, match="weak does not exist"):
        inkdrop.load(tmp_path / "earlier.ckpt")
    shutil.copytree(runs / "gone", runs / "weak")
    try:
        pipeline = inkdrop.load(tmp_path / "earlier.ckpt")
    finally:
        shutil.rmtree(runs / "weak")
    expected = inkdrop.load(runs / "strong")
    assert torch.equal(pipeline({}, range(5)), expected({}, range(5)))


def test_a_model_within_another_brings_no_guides(runs: Path, tmp_path: Path) -> None:
    content = run(tmp_path / "stronger", "trainer.max_steps=2", model=guided(runs / "strong"))
    assert content["models"][WEAK]["models"] == {}
    assert torch.isfinite(inkdrop.load(tmp_path / "stronger")({}, range(2))).all()


def test_weights_that_do_not_fit_are_refused(runs: Path, tmp_path: Path) -> None:
    content = read_checkpoint(runs / "strong")
    weights = content["models"][WEAK]["weights"]
    name = next(iter(weights))
    for wrong in ({**weights, name: torch.zeros(3)}, {**weights, name: 3}):
        content["models"][WEAK]["weights"] = wrong
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(CheckpointError, match=name):
            inkdrop.load(tmp_path / "wrong.ckpt")


def test_targets_of_a_guide_are_checked(runs: Path, tmp_path: Path) -> None:
    content = read_checkpoint(runs / "strong")
    for wrong in ("subprocess.call", "torch.optim.AdamW", "inkdrop.train"):
        content["models"][WEAK]["config"]["denoiser"]["network"]["_target_"] = wrong
        torch.save(content, tmp_path / "wrong.ckpt")
        with pytest.raises(CheckpointError, match="is not allowed"):
            inkdrop.load(tmp_path / "wrong.ckpt")
        with pytest.raises(SystemExit) as end:
            sampled(tmp_path / "wrong.ckpt", tmp_path / wrong)
        assert end.value.code == 4


@pytest.mark.parametrize("holders", ["rr", "ff", "fr", "r.", "f.", ".."])
def test_what_is_kept_of_a_file_that_is_read_twice(holders: str, runs: Path) -> None:
    """Each of two places holds its model by `Frozen`, by `Reference`, or by no module."""
    node = {"_target_": "inkdrop.pipeline.loaded", "checkpoint": str(runs / "gone")}
    nodes = {"one": node, "two": dict(node)}
    with loads_noted() as noted:
        models = build(nodes).values()
    kinds = {"f": Frozen, "r": Reference}
    parts = [kinds[each](model) for each, model in zip(holders, models, strict=True) if each in kinds]
    modules = [module for part in parts for module in part.modules()]
    kept = inner_models(nodes, noted, modules)
    assert kept.keys() == {"one", "two"}
    for each in kept.values():
        assert each["saved"] is (holders == "ff")
        assert ("weights" in each) is (holders not in ("rr", "ff"))


@pytest.mark.slow
def test_a_classifier_and_the_guide_of_an_evaluation_travel_too(tmp_path: Path) -> None:
    small = [*SMALL, "experiment=digits_unconditional", "network.base_channels=8"]
    classifier, weak = tmp_path / "classifier", tmp_path / "weak"
    steps = ["trainer.max_steps=3", "trainer.val_check_interval=3", "data.batch_size=16", "prediction=v"]
    trained(classifier, "experiment=digits_classifier", "network.network.base_channels=8", options=steps)
    trained(weak, options=small)
    file = f"{{_target_:inkdrop.pipeline.loaded,checkpoint:{weak}}}"
    guide = f"{{weak:{{_target_:inkdrop.guidance.Autoguidance,scale:2,weak:{file}}}}}"
    chosen = [
        "guidance=classifier",
        f"guidance.classifier.classifier.checkpoint={classifier}",
        "callbacks.checkpoint.every.steps=1",
    ]
    chosen += [f"callbacks.evaluate.variants={{weak:{{_target_:inkdrop.callbacks.Variant,guidance:{guide}}}}}"]
    whole = tmp_path / "whole"
    metrics = trained(whole, "callbacks.checkpoint.keep=9", *chosen, options=small)["metrics"]
    then, _ = sampled(whole, tmp_path / "then", "num_samples=3", "condition.label=7")
    shutil.rmtree(classifier)
    shutil.rmtree(weak)
    now, _ = sampled(whole, tmp_path / "now", "num_samples=3", "condition.label=7")
    assert np.array_equal(now["x"], then["x"])
    interrupted(whole, 1, tmp_path / "again")
    again = run(tmp_path / "again", *chosen, "logger=none", "callbacks.checkpoint.keep=9", model=small)
    content = read_checkpoint(whole)
    assert {"pipeline.guidance.classifier.classifier", "callbacks.evaluate.variants.weak.guidance.weak.weak"} <= set(
        content["models"]
    )
    assert differing(content, again) in ([], ["callbacks"])
    measured = {name: value for name, value in metrics.items() if name.endswith("@weak")}
    assert measured
    results = again["callbacks"]["Evaluate"]["results"]
    assert {name: results[name] for name in measured} == measured
