"""--help: quick, complete, without the heavy packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "lightning", "wandb", "torchmetrics", "torchvision", "torch_fidelity", "sklearn", "numpy", "pydantic")


@pytest.mark.parametrize("script", ["train.py", "sample.py"])
def test_help_imports_nothing_heavy(script: str) -> None:
    code = (
        f"import sys, runpy; sys.argv = [{script!r}, '--help']; runpy.run_path({script!r}, run_name='__main__'); "
        f"print('heavy', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "heavy []"


def test_help_shows_each_option_with_value_and_explanation() -> None:
    command = [sys.executable, "train.py", "experiment=moons", "optimizer.lr=0.5", "--help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "usage: python train.py" in output
    assert "[moons]" in output
    line = next(line for line in output.splitlines() if line.strip().startswith("optimizer.lr="))
    assert line.split() == ["optimizer.lr=0.5", "learning", "rate", "after", "warm-up"]
    assert "._target_" not in output


def test_help_of_a_choice_that_changes_another_explains_what_it_leaves() -> None:
    command = [sys.executable, "train.py", "network=unet_1d", "--help"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "lengths at which blocks attend" in output
    assert "groups of the normalisation" in output


def test_help_of_a_wrong_choice_names_the_choices() -> None:
    command = [sys.executable, "train.py", "sampler=nope", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ancestral" in done.stderr
