"""Guidance by train.py and sample.py: its options, its own models, and what is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import Plain
from runs import TINY, sampled, trained
from torch import Tensor

import inkdrop
from inkdrop.configuration.guides import guides
from inkdrop.guidance import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    EnergyGuidance,
    Guidance,
    mean_value,
)
from inkdrop.pipeline import loaded

OPTIONS = [option for option in TINY if not option.startswith("guidance")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled model, an unconditional one, and a classifier, all barely trained."""
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "labelled", options=[*OPTIONS, "optimizer.lr=0.02"])
    trained(folder / "unconditional", "experiment=digits_unconditional", options=OPTIONS)
    small = ["trainer.max_steps=20", "trainer.val_check_interval=10", "data.batch_size=16", "prediction=v"]
    trained(folder / "classifier", "experiment=digits_classifier", "network.network.base_channels=8", options=small)
    return folder


@pytest.mark.slow
def test_a_scale_on_the_command_line_is_classifier_free_guidance(runs: Path, tmp_path: Path) -> None:
    chosen = ("num_samples=8", "time_grid.num_steps=3")
    plain, before = sampled(runs / "labelled", tmp_path / "plain", *chosen)
    guided, result = sampled(runs / "labelled", tmp_path / "guided", *chosen, "guidance.scale=4")
    assert (plain["x"] != guided["x"]).any()
    assert (before["network_calls"], result["network_calls"]) == (3, 6)
    pipeline = inkdrop.load(runs / "labelled")
    pipeline.sampler.time_grid.num_steps = 3  # type: ignore[attr-defined]
    pipeline.guidance = {"free": ClassifierFree(4.0), "clip": pipeline.guidance["static_threshold"]}
    expected = pipeline(pipeline.request(range(8)), range(8))
    assert (guided["x"][..., 0] == expected[:, 0].numpy()).all()
    nowhere, _ = sampled(
        runs / "labelled", tmp_path / "nowhere", *chosen, "guidance.scale=4", "guidance.interval=[1e8,1e9]"
    )
    assert (nowhere["x"] == plain["x"]).all()


@pytest.mark.slow
def test_a_classifier_guides_an_unconditional_model(runs: Path, tmp_path: Path) -> None:
    chosen = ("num_samples=6", "time_grid.num_steps=3", "guidance=classifier")
    classifier = f"guidance.checkpoint={runs / 'classifier'}"
    found = [
        sampled(runs / "unconditional", tmp_path / f"{scale}-{label}", *chosen, classifier,
                f"guidance.scale={scale}", f"condition.label={label}")[0]
        for scale, label in ((0, 3), (50, 3), (50, 5))
    ]  # fmt: skip
    assert found[1]["label"].tolist() == [3] * 6
    assert (found[0]["x"] != found[1]["x"]).any()
    assert (found[1]["x"] != found[2]["x"]).any()
    pipeline: Any = inkdrop.load(runs / "unconditional")
    pipeline.sampler.time_grid.num_steps = 3
    pipeline.guidance = {"classifier": ClassifierGuidance(loaded(str(runs / "classifier")), 50.0)}  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = pipeline(pipeline.request(range(6), label=5), range(6))
    assert (found[2]["x"][..., 0] == expected[:, 0].numpy()).all()


@pytest.mark.slow
def test_a_model_guides_itself_by_other_weights(runs: Path, tmp_path: Path) -> None:
    weak = (f"guidance.checkpoint={runs / 'labelled'}", "guidance.autoguidance.weak.weights=raw")
    chosen = ("num_samples=4", "time_grid.num_steps=3", "guidance=[autoguidance,static_threshold]")
    found, _ = sampled(runs / "labelled", tmp_path / "out", *chosen, *weak, "guidance.scale=3")
    pipeline: Any = inkdrop.load(runs / "labelled")
    pipeline.sampler.time_grid.num_steps = 3
    raw = inkdrop.load(runs / "labelled", weights="raw")
    pipeline.guidance = {"auto": Autoguidance(raw, 3.0), "clip": pipeline.guidance["static_threshold"]}
    expected = pipeline(pipeline.request(range(4)), range(4))
    assert (found["x"][..., 0] == expected[:, 0].numpy()).all()


REFUSED: dict[str, tuple[str, list[str], str]] = {
    "no guide has a scale": (
        "labelled",
        ["guidance=static_threshold", "guidance.scale=2"],
        r"guidance\.scale=2 has no effect, because no guide has this option \(guides: static_threshold\): choose one",
    ),
    "the run has none": ("unconditional", ["guidance.scale=2"], r"\(guides: static_threshold\): choose one"),
    "no condition": ("unconditional", ["guidance=classifier_free", "guidance.scale=2"], "and this model has none"),
    "a classifier makes no samples": (
        "classifier",
        [],
        "is a NoisyClassifier, which draws no samples but guides another model",
    ),
    "no classifier": (
        "unconditional",
        ["guidance=classifier", "guidance.checkpoint=nowhere"],
        "nowhere",
    ),
    "a model for a classifier": (
        "unconditional",
        ["guidance=classifier", "guidance.checkpoint={runs}/unconditional"],
        "guidance.checkpoint is not a classifier",
    ),
    "a classifier for a model": (
        "unconditional",
        ["guidance=autoguidance", "guidance.checkpoint={runs}/classifier"],
        "is a classifier: set guidance=classifier",
    ),
    "an interval alone": ("labelled", ["guidance.interval=[0.1,1]"], r"set guidance\.scale too"),
    "no signal": ("linear", ["guidance=energy"], r"alpha = 0: set guidance\.interval"),
    "free around a weaker model": (
        "labelled",
        ["guidance=[autoguidance,classifier_free]", "guidance.checkpoint={runs}/labelled", "guidance.scale=2"],
        "put classifier_free before autoguidance",
    ),
    "a step without a length": (
        "labelled",
        ["guidance=autoguidance", "guidance.checkpoint={runs}/labelled", "guidance.autoguidance.weak.step=3"],
        "set length too",
    ),
    "another schedule": (
        "unconditional",
        ["guidance=autoguidance", "guidance.checkpoint={runs}/other"],
        "guidance.weak must have the schedule",
    ),
}


@pytest.mark.many
@pytest.mark.parametrize(("run", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_guide_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, options: list[str], message: str
) -> None:
    if "{runs}/other" in str(options) and not (runs / "other").exists():
        trained(runs / "other", "schedule=cosine", options=[*OPTIONS, "trainer.max_steps=1"])
    if run == "linear" and not (runs / run).exists():
        flow = ["schedule=linear", "prediction=flow", "time_sampler=uniform", "trainer.max_steps=1"]
        trained(runs / run, options=[option for option in OPTIONS if option != "prediction=v"] + flow)
    filled = [option.format(runs=runs) for option in options]
    with pytest.raises((SystemExit, ValueError)) as stopped:
        sampled(runs / run, tmp_path / "out", *filled)
    assert re.search(message, f"{capsys.readouterr().err} {stopped.value}")
    assert {file.name for file in (tmp_path / "out").iterdir()} <= {"lock"}


def test_short_options_go_to_the_guides_that_have_them() -> None:
    free = {"_target_": "free", "scale": None, "mix": {"_target_": "mix", "scale": 7}}
    other = {"_target_": "other", "weak": {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "???"}, "scale": 1.0}
    unset = {"scale": "as_run", "interval": "as_run", "checkpoint": "as_run"}
    assert guides({**unset, "scale": 2, "free": free}) == {"free": {**free, "scale": 2}}
    both = guides({"scale": 2, "checkpoint": "run", "free": free, "other": other})
    weak = {"_target_": "inkdrop.pipeline.loaded", "checkpoint": "run"}
    assert both == {"free": {**free, "scale": 2}, "other": {**other, "scale": 2, "weak": weak}}
    assert guides({**unset, "scale": 2}) == {"scale": 2}
    assert guides({**unset, "scale": None, "other": other}) == {"other": {**other, "scale": None}}
    assert guides(unset) is None
    assert guides({**unset, "none": None}) == {}
    ramp = {"_target_": "ramp"}
    assert guides({"scale": ramp, "free": free}) == {"free": {**free, "scale": ramp}}
    with pytest.raises(ValueError, match=r"guidance\.checkpoint=run has no effect, because no guide has this option"):
        guides({"checkpoint": "run", "free": free})


@pytest.mark.slow
def test_a_run_that_was_guided_by_another_is_sampled_without_it(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "classifier", tmp_path / "classifier")
    by = [
        "guidance=[classifier,static_threshold]",
        f"guidance.classifier.classifier.checkpoint={tmp_path / 'classifier'}",
    ]
    trained(tmp_path / "run", "conditioner=none", *by, options=[*OPTIONS, "trainer.max_steps=1"])
    chosen = ("num_samples=2", "time_grid.num_steps=2")
    with_it, _ = sampled(tmp_path / "run", tmp_path / "with", *chosen)
    off, _ = sampled(tmp_path / "run", tmp_path / "off", *chosen, "guidance.scale=null")
    shutil.rmtree(tmp_path / "classifier")
    without, _ = sampled(tmp_path / "run", tmp_path / "without", *chosen, "guidance=static_threshold")
    assert (off["x"] == without["x"]).all()
    assert (off["x"] != with_it["x"]).any()


@pytest.mark.parametrize("inner", ["free", "auto"])
def test_an_energy_around_another_guide_has_its_gradient_in_an_inference_mode(runs: Path, inner: str) -> None:
    pipeline: Any = inkdrop.load(runs / "labelled")
    weak = inkdrop.load(runs / "labelled", weights="raw")
    guides: dict[str, Guidance] = {"free": ClassifierFree(3.0), "auto": Autoguidance(weak, 3.0)}
    pipeline.sampler.time_grid.num_steps, pipeline.codec = 3, Plain()
    pipeline.guidance = {"inner": guides[inner]}
    free = pipeline(pipeline.request(range(4)), range(4))
    pipeline.guidance["energy"] = EnergyGuidance(mean_value, 3.0)
    expected = pipeline(pipeline.request(range(4)), range(4))
    with torch.inference_mode():
        found = pipeline(pipeline.request(range(4)), range(4))
    assert torch.equal(found, expected)
    assert not torch.allclose(expected, free, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("name", ["free", "classifier", "energy"])
def test_guidance_of_a_compiled_network_and_in_bfloat16_is_the_same(runs: Path, name: str) -> None:
    def drawn(compiled: bool, precision: torch.dtype) -> Tensor:
        pipeline: Any = inkdrop.load(runs / ("labelled" if name == "free" else "unconditional"))
        classifier: Any = loaded(str(runs / "classifier"))
        guides: dict[str, Guidance] = {
            "free": ClassifierFree(3.0),
            "classifier": ClassifierGuidance(classifier, 3.0),
            "energy": EnergyGuidance(mean_value, 3.0),
        }
        pipeline.sampler.time_grid.num_steps, pipeline.guidance = 4, {"guide": guides[name]}
        pipeline.codec = Plain()
        if compiled:
            for network in (pipeline.network, classifier.network):
                network.compile(backend="eager")
        with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            x: Tensor = pipeline(pipeline.request(range(6), **({} if name == "energy" else {"label": 3})), range(6))
        return x

    expected = drawn(False, torch.float32)
    assert torch.allclose(drawn(True, torch.float32), expected, atol=1e-5)
    low = drawn(False, torch.bfloat16)
    assert low.dtype == torch.float32
    assert 0 < (low - expected).norm() / expected.norm() < 0.05
