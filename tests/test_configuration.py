"""Configurations: every YAML composes, fits its targets and is explained; wrong ones are refused by name."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import every
from choices import CONF, FILES, OF_SAMPLING, choices, composed, reads_its_codec
from generated import example

from inkdrop.commands.sample import Sample
from inkdrop.configuration import CHECKPOINT_TARGETS, USER_TARGETS, build, check, check_settings
from inkdrop.configuration.compose import GLOBAL
from inkdrop.configuration.help import comments_in
from inkdrop.errors import ConfigurationError
from inkdrop.models import Model


def check_all(plain: dict[str, Any]) -> None:
    check_settings(plain)
    check(plain)


@pytest.mark.many
@pytest.mark.parametrize("overrides", choices(), ids=lambda overrides: overrides[0])
def test_every_choice_composes_checks_and_builds(overrides: list[str]) -> None:
    if reads_its_codec(overrides):
        with pytest.raises(ValueError, match=r"RUN does not exist|(FOLDER/vae|MODEL)/config\.json cannot be read"):
            composed(overrides)
        return
    plain = composed(overrides)
    check_all(plain)
    foreign = [each.partition("=")[2] for each in overrides if re.search(r"\.(encoder|clip|clip_2|t5)\.path=", each)]
    if not foreign:  # whose files a run saves instead
        check({name: plain[name] for name in ("pipeline", "evaluation", "data")}, CHECKPOINT_TARGETS)
    read = [each for each in overrides if ".checkpoint=" in each and "extractor." not in each]
    checkpoints = foreign + [each.partition("=")[2] for each in read]
    if checkpoints or overrides == ["sampler=calibrated"]:  # which need a file that is not here
        with pytest.raises(ValueError, match="|".join(["python -m inkdrop calibrate", *checkpoints])):
            build(plain["task"])
        return
    if (plain["baseline"] or {}).get("needs"):  # it is not run here, and may be too large
        return
    assert isinstance(build(plain["task"]).pipeline, Model)
    build(plain["data"])
    build(list(plain["callbacks"].values()))


@pytest.mark.parametrize(
    "file", sorted(each for name in OF_SAMPLING for each in (CONF / name).iterdir()), ids=lambda file: file.stem
)
def test_every_choice_of_sampling_alone_composes_and_checks(file: Path) -> None:
    plain = composed(Sample().spelled(["checkpoint=run", *(example(file) or "").split()]), "sample")
    check({"part": plain[file.parent.name]})


@every({str(file.relative_to(CONF)): file for file in FILES})
def test_every_option_is_explained_beside_it(file: Path) -> None:
    explained = dict(comments_in(file, ""))
    options = [path for path in _options(yaml.safe_load(file.read_text()) or {}) if file.parent.name not in GLOBAL]
    missing = [path for path in options if path not in explained]
    assert not missing


def _options(node: Any, path: str = "") -> list[str]:
    """Leaves that a user sets: no targets, no references, nothing of Hydra's."""
    if isinstance(node, dict) and node:
        return [
            leaf
            for key, value in node.items()
            if key not in ("_target_", "_partial_", "hydra", "defaults")
            for leaf in _options(value, f"{path}.{key}" if path else key)
        ]
    return [] if isinstance(node, str) and "${" in node and "now:" not in node else [path] if path else []


@every({overrides[0]: overrides for overrides in choices()})
def test_defaults_in_python_equal_those_in_yaml(overrides: list[str]) -> None:
    """A default that stands in both places must be one; experiments may differ."""
    group, name = overrides[0].split("=")
    node = yaml.safe_load((CONF / group / f"{name}.yaml").read_text()) or {}
    if "_target_" not in node or name in ("ddpm_cifar10", "unet", "image_and_words"):
        return  # these state an architecture or an experiment's choice, not a default
    target = build({"_target_": node["_target_"], "_partial_": True}).func
    for key, parameter in inspect.signature(target).parameters.items():
        value = node.get(key)
        if parameter.default is not parameter.empty and key in node and not isinstance(value, dict | str):
            assert value == parameter.default, key


def test_foreign_targets_are_refused_at_any_depth_without_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marker.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\ndef f(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for node in (
        {"a": [{"b": {"_target_": "marker.f"}}]},
        {"_target_": "inkdrop.guidance.Clip", "low": {"_target_": "marker.f"}},
    ):
        for action in (check, build):
            with pytest.raises(ConfigurationError, match=r"marker.f is not allowed"):
                action(node)
    assert not (tmp_path / "imported").exists()
    assert build({"_target_": "marker.f"}, (*USER_TARGETS, "marker.")) is None


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "lightning.pytorch.loggers.CSVLogger",
        "inkdrop.runs.record.write_json",
        "inkdrop.commands.train.run.train",
        "inkdrop.commands.check_data.inspect",
        "inkdrop.metrics.fitting.make_extractor",
        "inkdrop.loggers.jsonl.JSONLines",
        "inkdrop.networks.diffusers_format.Path",
        "inkdrop.noises.brownian.partial",
    ],
)
def test_a_checkpoint_may_name_parts_of_a_model_only(target: str) -> None:
    for action in (check, build):
        with pytest.raises(ConfigurationError, match="not allowed"):
            action({"_target_": target}, CHECKPOINT_TARGETS)


def test_a_part_is_found_under_the_import_path_of_an_earlier_version() -> None:
    moved = {"_target_": "inkdrop.metrics.distances.FrechetDistance"}
    for allowed in (USER_TARGETS, CHECKPOINT_TARGETS):
        check(moved, allowed)
        assert build(moved, allowed) == build({"_target_": "inkdrop.metrics.FrechetDistance"})
    for wrong in ("inkdrop.metrics.distances", "inkdrop.metrics.distances.x.FrechetDistance"):
        with pytest.raises(ConfigurationError):
            check({"_target_": wrong})


def test_build_calls_innermost_first_and_makes_plain_partials() -> None:
    import functools

    sampler = build(
        {
            "_target_": "inkdrop.samplers.Ancestral",
            "time_grid": {"_target_": "inkdrop.time_grids.Trailing", "num_steps": 3},
            "deviation": {"_target_": "inkdrop.deviations.large", "_partial_": True},
        }
    )
    assert sampler.time_grid.num_steps == 3
    assert type(sampler.deviation) is functools.partial
    assert build({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}
