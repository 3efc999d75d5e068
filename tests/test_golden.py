"""What earlier code wrote is read by this one, and leads to the same numbers.

Each folder of `golden/` is a set that `golden/make.py` made by the code of its time. Names, hashes and weights are
compared exactly everywhere. What is computed is equal to the bit on a machine like that of the set, and nearly
elsewhere. Modules may move, so that of inkdrop's own only what stays is named here.
"""

from __future__ import annotations

import functools
import json
import logging.config
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from entry_scripts import Ended, Script
from golden.make import loaded, machine
from hydra.utils import get_class

from inkdrop.configuration import build, check
from inkdrop.configuration.moved import renamed

SETS = {file.parent.name: json.loads(file.read_text()) for file in Path(__file__).parent.glob("golden/*/commands.json")}
COMMAND = "src/inkdrop/__main__.py"  # python -m inkdrop
# What depends on the clock, the machine, the commit, or the folder.
FREE = ("time", "seconds", "samples_per_second", "train/samples_per_second", "evaluation_seconds", "logged", "facts")
FREE += ("evaluation_share_of_time", "versions", "git_commit", "threads", "config", "format", "loops")
FREE += ("pytorch-lightning_version",)
# Points in the plane are drawn with sine and cosine; their fingerprint is of all bits, and so differs by processor.
DRAWN = ("data_fingerprint", "fingerprint", "hash")
RTOL, ATOL, LEVELS = 1e-4, 1e-5, 1


class Golden(NamedTuple):
    """A copy of a set in the working directory, its commands, and whether numbers are equal to the bit here."""

    folder: Path
    commands: dict[str, Any]
    exact: bool


def cases(kind: str) -> pytest.MarkDecorator:
    """All that the sets have of this kind."""
    found = [(each, name) for each, commands in SETS.items() for name in commands[kind]]
    return pytest.mark.parametrize(("golden", "name"), found, indirect=["golden"])


@pytest.fixture
def golden(request: pytest.FixtureRequest, script: Script) -> Golden:
    folder = Path(__file__).parent / "golden" / request.param
    shutil.copytree(folder, Path.cwd(), dirs_exist_ok=True)
    exact = json.loads((folder / "machine.json").read_text()) == machine()
    return Golden(folder, SETS[request.param], exact)


def differences(then: Any, now: Any, exact: bool, place: str = "", free: tuple[str, ...] = FREE) -> Iterator[str]:
    """Where what was found then and what is found now are not equal, or not nearly where they need not be to the bit.

    Records may have got further entries; a model, its state and its metrics have the names that they had.
    """
    if isinstance(then, dict):
        if not exact and of_drawn_points(then):
            free = (*free, *DRAWN)
        if missing := set(then) - set(now):
            yield f"{place}: lacks {missing}"
        if place and not place.endswith("sampler") and (new := set(now) - set(then)):
            yield f"{place}: now has {new}"
        for name in set(then) & set(now) - {*free}:
            if not str(name).startswith("evaluation/"):
                yield from differences(then[name], now[name], exact, f"{place}.{name}", free)
    elif isinstance(then, list | tuple):
        if len(then) != len(now):
            yield f"{place}: {len(now)} instead of {len(then)}"
        for number, (before, after) in enumerate(zip(then, now, strict=False)):
            yield from differences(before, after, exact, f"{place}[{number}]", free)
    elif isinstance(then, torch.Tensor):
        yield from _different_numbers(then.numpy(), now.numpy(), exact, place)
    elif isinstance(then, float | np.ndarray):
        yield from _different_numbers(np.asarray(then), np.asarray(now), exact, place)
    elif then != now:
        yield f"{place}: {now!r} instead of {then!r}"


def of_drawn_points(record: dict[str, Any]) -> bool:
    """Whether a checkpoint, the protocol of an evaluation, or the data in it are of such points."""
    return "Toy" in record or "Toy" in [record.get("data")] or "Toy" in [record.get("measurement", {}).get("data")]


def goes_on(ended: Ended, golden: Golden, run: str) -> bool:
    """Whether a run went on; one of points that are drawn otherwise on this machine must be refused."""
    if golden.exact or ended.code == 0 or not of_drawn_points(content(golden.folder / run)):
        assert ended.code == 0, ended.err
        return True
    assert ended.code == 3
    assert "the data are not those that the run was started with: their fingerprints differ" in ended.err
    return False


def _different_numbers(then: np.ndarray, now: np.ndarray, exact: bool, place: str) -> Iterator[str]:
    if (then.dtype, then.shape) != (now.dtype, now.shape):
        yield f"{place}: {now.dtype}{now.shape} instead of {then.dtype}{then.shape}"
    elif exact or then.dtype.kind not in "fu":
        if then.tobytes() != now.tobytes():
            yield f"{place}: differs"
    elif then.dtype == np.uint8:
        if np.abs(then.astype(int) - now).max() > LEVELS:
            yield f"{place}: differs by more than {LEVELS}"
    elif not np.allclose(then, now, RTOL, ATOL, equal_nan=True):
        yield f"{place}: differs by {np.abs(then - now).max():.2g}"


def content(run: Path) -> dict[str, Any]:
    """What the last checkpoint of a run holds."""
    return torch.load(max(run.glob("checkpoints/step-*.ckpt")), weights_only=True)


def options(config: Any, place: str = "") -> Iterator[str]:
    """The names of all options of a configuration."""
    for name, value in config.items():
        yield f"{place}.{name}"
        if isinstance(value, dict):
            yield from options(value, f"{place}.{name}")


def targets(node: Any) -> Iterator[str]:
    """All import paths in a configuration."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(each)
    if isinstance(node, dict) and "_target_" in node:
        yield node["_target_"]


def assert_equal_runs(then: Path, now: Path, exact: bool) -> None:
    """Two runs have come to the same end, and their records tell the same."""
    before, after = content(then), content(now)
    assert [*differences(before, after, exact)] == []
    first, second = (each["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"] for each in (before, after))
    assert first == second
    assert {*options(renamed(before["config"]))} <= {*options(after["config"])}
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (then, now)]
    assert [*differences(*rows, exact, "metrics.jsonl")] == []
    results = [json.loads((run / "result.json").read_text()) for run in (then, now)]
    for result in results:
        del result["checkpoint"]  # an absolute path
    assert [*differences(*results, exact)] == []
    snapshots, others = ([torch.load(file) for file in sorted(run.glob("snapshots/*.ckpt"))] for run in (then, now))
    assert [*differences(snapshots, others, exact, "snapshots")] == []


@cases("load")
def test_a_model_has_its_weights_and_makes_its_samples(golden: Golden, name: str) -> None:
    options = golden.commands["load"][name]
    weights, samples = loaded(options)
    then = json.loads((golden.folder / "weights.json").read_text())[name]
    assert list(weights) == list(then)
    if golden.exact or "length" not in options:  # else they are computed
        assert weights == then
    with np.load(golden.folder / "loaded.npz") as file:
        assert [*differences(file[name], samples, golden.exact)] == []


@pytest.mark.many
@cases("sample")
def test_the_same_samples_are_drawn_and_measured_alike(golden: Golden, name: str, script: Script) -> None:
    ended = script("sample.py", *golden.commands["sample"][name], "output_dir=now")
    assert ended.code == 0, ended.err
    folders = (golden.folder / "samples" / name, Path("now"))
    arrays = [dict(np.load(folder / "samples.npz")) for folder in folders]
    assert [*differences(*arrays, golden.exact)] == []
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert [*differences(*results, golden.exact)] == []


@pytest.mark.slow
@cases("killed")
def test_a_run_that_was_killed_goes_on_to_the_same_end(golden: Golden, name: str, script: Script) -> None:
    whole, _ = golden.commands["killed"][name]
    shutil.copytree(name, "again")
    for folder in (name, "again"):
        ended = script("train.py", *golden.commands["train"][whole], f"output_dir={Path(folder).resolve()}")
        if not goes_on(ended, golden, whole):
            return
        assert ("resumed from step 3" if "interrupted" in name else "fresh run") in ended.out
    assert_equal_runs(golden.folder / whole, Path(name), golden.exact)
    assert_equal_runs(Path(name), Path("again"), exact=True)


@pytest.mark.many
@cases("train")
def test_a_run_begins_again_from_its_configuration(golden: Golden, name: str, script: Script) -> None:
    ended = script("train.py", "--config-dir", name, "--config-name", "config", "output_dir=now")
    assert ended.code == 0, ended.err
    assert_equal_runs(golden.folder / name, Path("now"), golden.exact)


@pytest.mark.many
@cases("killed")
def test_a_run_that_was_killed_goes_on_from_its_configuration(golden: Golden, name: str, script: Script) -> None:
    whole, _ = golden.commands["killed"][name]
    ended = script("train.py", "--config-dir", name, "--config-name", "config", f"output_dir={Path(name).resolve()}")
    if goes_on(ended, golden, whole):
        assert_equal_runs(golden.folder / whole, Path(name), golden.exact)


@pytest.mark.many
@cases("train")
def test_a_run_that_has_ended_has_nothing_to_do(golden: Golden, name: str, script: Script) -> None:
    ended = script("train.py", *golden.commands["train"][name], f"output_dir={Path(name).resolve()}")
    if goes_on(ended, golden, name):
        assert "nothing to do: the run has all its 6 steps" in ended.out
    assert (Path(name) / "result.json").read_bytes() == (golden.folder / name / "result.json").read_bytes()


@cases("calibrate")
def test_a_calibration_has_its_name_and_its_steps(golden: Golden, name: str, script: Script) -> None:
    (file,) = Path(name).glob("checkpoints/calibrations/*.json")
    then = json.loads(file.read_text())
    file.unlink()
    ended = script(COMMAND, "calibrate", f"checkpoint={name}", *golden.commands["calibrate"][name])
    assert ended.code == 0, ended.err
    now = json.loads(file.read_text())
    assert now.keys() == then.keys()
    if golden.exact:  # else the fit may end elsewhere in its valley
        assert [*differences(then, now, exact=True)] == []


@pytest.mark.parametrize("golden", SETS, indirect=True)
def test_results_stand_side_by_side_under_their_protocols(golden: Golden, script: Script) -> None:
    ended = script(COMMAND, "report", "samples")
    assert ended.code == 0, ended.err
    results = [json.loads(file.read_text()) for file in golden.folder.glob("samples/*/result.json")]
    measured = {value["hash"] for each in results for value in each.get("protocol", {}).get("metrics", {}).values()}
    assert len(measured) >= 3
    assert [each for each in measured if each not in ended.out] == []


# All that the YAML files of conf/ named when these sets were begun, and what a user's own files may therefore name.
TARGETS = (Path(__file__).parent / "golden" / "targets.txt").read_text().split()
HYDRA = {"inkdrop.experiment.CheckConfiguration", "inkdrop.masking.Masking"}  # which Hydra itself makes


def test_a_file_of_a_user_may_name_all_that_conf_named(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("".join(f"- _target_: {name}\n  _partial_: true\n" for name in TARGETS if name not in HYDRA))
    parts = yaml.safe_load(file.read_text())
    assert len(parts) == len(TARGETS) - 2 == 173
    check(parts)
    for part, made in zip(parts, build(parts), strict=True):
        assert isinstance(made, functools.partial)
        assert made.func.__name__ == part["_target_"].rpartition(".")[2]  # the name of a state, in hashes and caches


def test_a_file_of_a_user_may_name_what_hydra_makes() -> None:
    assert set(TARGETS) > HYDRA
    assert get_class("inkdrop.experiment.CheckConfiguration").__name__ == "CheckConfiguration"
    made = logging.config.DictConfigurator({}).configure_filter({"()": "inkdrop.masking.Masking"})  # type: ignore[attr-defined]
    assert type(made).__name__ == "Masking"
    assert made.filter(logging.makeLogRecord({"msg": "text"}))


@cases("load")
def test_all_that_a_checkpoint_names_is_found(golden: Golden, name: str) -> None:
    """The parts of training too, which loading a model builds none of."""
    config = content(Path(golden.commands["load"][name]["path"]))["config"]
    found = list(targets(config))
    assert len(set(found)) >= 25
    check([{"_target_": each, "_partial_": True} for each in found])
