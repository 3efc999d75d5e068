"""--help: quick, complete, without the heavy packages."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from entry_scripts import ROOT, completed
from hydra.errors import SearchPathException

from inkdrop.configuration.compose import CONF
from inkdrop.configuration.help import show

HEAVY = ("torch", "lightning", "wandb", "torchmetrics", "torchvision", "torch_fidelity", "sklearn", "numpy", "pydantic")


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_help_imports_nothing_heavy(script: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, '--help']; runpy.run_path({script!r}, run_name='__main__'); "
        f"print('heavy', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "heavy []"


def test_help_shows_each_option_with_value_and_explanation() -> None:
    output = completed("train.py", "experiment=moons", "optimizer.lr=0.5", "--help").stdout
    assert "usage: python train.py" in output
    assert "[moons]" in output
    line = next(line for line in output.splitlines() if line.strip().startswith("optimizer.lr="))
    assert line.split() == ["optimizer.lr=0.5", "learning", "rate", "after", "warm-up"]
    assert "._target_" not in output


def test_help_of_a_choice_that_changes_another_explains_what_it_leaves() -> None:
    output = completed("train.py", "network=unet_1d", "--help").stdout
    assert "lengths at which blocks attend" in output
    assert "groups of the normalisation" in output


def test_help_lists_and_explains_groups_of_which_several_are_taken() -> None:
    output = completed("train.py", "metric=[kernel,nearest]", "--help").stdout
    lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if line.startswith("  ")}
    assert {each for each in lines["metric"] if each.startswith("[")} == {"[kernel]", "[nearest]"}
    assert {each for each in lines["guidance"] if each.startswith("[")} == {"[classifier_free]", "[static_threshold]"}
    assert {"frechet", "cmmd"} <= set(lines["metric"])
    assert lines["metric.kernel.subset_size=1000"][:3] == ["items", "of", "a"]
    assert lines["guidance.static_threshold.low=-1.0"] == ["smallest", "value"]
    output = completed("sample.py", "--help").stdout
    assert re.search(r"^  metric +accuracy_score  clip_score ", output, re.MULTILINE)


def test_help_of_a_wrong_choice_names_the_choices() -> None:
    done = completed("train.py", "sampler=nope", "--help")
    assert done.returncode != 0
    assert "ancestral" in done.stderr


@pytest.fixture
def own_conf(tmp_path: Path) -> Path:
    """A folder of the user's own with a member of a group, an experiment and a primary configuration."""
    folder = tmp_path / "my conf=1"
    files = {
        "network/mine.yaml": "defaults:\n  - unet\nbase_channels: 48  # wider than usual\n",
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /network: mine\nname: mine  # my name\n",
        "own.yaml": "defaults:\n  - train\n  - _self_\nseed: 5  # my seed\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--config-dir", "{}", "experiment=mine"], ["network.base_channels=48 wider than usual", "name=mine my name"]),
        (["-cd", "{}", "network=mine"], ["network.base_channels=48 wider than usual"]),
        (["--config-dir={}", "-cn", "own"], ["seed=5 my seed", "optimizer.lr=0.004 learning rate after warm-up"]),
        (["hydra.searchpath=['file://{}']", "network=mine"], ["network.base_channels=48 wider than usual"]),
        (
            ["hydra.searchpath=[]", "--config-dir", "{}", "network=mine"],
            ["network.num_blocks=1 number of residual blocks"],
        ),
    ],
)
def test_help_shows_groups_and_options_of_the_users_own(
    arguments: list[str], lines: list[str], own_conf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show(CONF, "train", "Trains.", ["--help", *(each.format(own_conf) for each in arguments)])
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        assert any(each.startswith(line) for each in told), line
    assert any(each.startswith("network ") and "mine" in each and "unet" in each for each in told)


def test_help_of_a_folder_that_is_not_there_says_so() -> None:
    with pytest.raises(SearchPathException, match="--config-dir=nowhere is not a folder"):
        show(CONF, "train", "Trains.", ["--config-dir", "nowhere"])


def test_samplers_stand_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    show(CONF, "train", "Trains.", [])
    lines = [line.strip() for line in capsys.readouterr().out.split("\nOptions:")[0].splitlines()[4:]]
    families = {family: names.split() for family, _, names in (line.partition(": ") for line in lines) if names}
    assert families.pop("earlier names") == ["clip"]  # of a guide
    assert "dpmpp_2m" in families["sampler        ODE, multistep"]
    assert "heun" in families["ODE, one step"]
    assert "ancestral" in families["SDE"]
    names = [name.strip("[]") for each in families.values() for name in each]
    assert sorted(names) == sorted(file.stem for file in (CONF / "sampler").glob("*.yaml"))


@pytest.mark.parametrize("script", ["train.py", pytest.param("sample.py", marks=pytest.mark.slow)])
def test_help_ends_silently_where_nobody_reads_it(script: str) -> None:
    """As in `train.py --help | head`, whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, script, "--help"]
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_help_ends_with_the_options_of_a_sweep() -> None:
    shown = completed("train.py", "--help", "hydra/sweeper=optuna").stdout
    assert "  hydra/launcher basic  [processes]  ray  slurm\n" in shown
    assert "  hydra/sweeper  basic  grid  [optuna]\n" in shown
    for option, comment in (
        ("hydra.launcher.jobs=auto", "number of trials at a time; auto divides the devices among them"),
        ("hydra.sweeper.trials=20", "number of trials, or null"),
    ):
        assert re.search(rf"^  {re.escape(option)} +{re.escape(comment)}$", shown, re.MULTILINE)
    every = re.findall(r"^  hydra\.(?:launcher|sweeper)\.(.*)$", shown, re.MULTILINE)
    assert all(" " in each for each in every), "each option says what it is"
    assert "hydra/launcher" not in completed("sample.py", "--help").stdout
