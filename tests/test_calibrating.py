"""`python -m inkdrop calibrate`: which model a calibration is of, what is told of it, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from entry_scripts import Script
from runs import TINY, trained

from inkdrop.__main__ import main
from inkdrop.checkpoints import open_checkpoint, read_checkpoint
from inkdrop.commands.calibrate import fitting as calibrating
from inkdrop.commands.calibrate.fitting import calibrate_checkpoint
from inkdrop.commands.sample.options import completed, find_calibration
from inkdrop.configuration.compose import composed, resolved

SMALL = ["num_trajectories=32", "num_rounds=10", "refinement=4", "time_grid.num_steps=2"]
TAKEN = ["sampler=calibrated", "time_grid.num_steps=2", "num_samples=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A barely trained model with labels, in a folder whose name is quoted in a shell."""
    folder = tmp_path_factory.mktemp("calibrated") / "run of mine"
    options = [option for option in TINY if not option.startswith("guidance")]
    kept = ["callbacks.ema.lengths=[0.1]", "callbacks.ema.snapshots={_target_:inkdrop.callbacks.Every,steps:3}"]
    trained(folder, "callbacks.evaluate=null", "callbacks.pictures=null", "optimizer.lr=0.02", *kept, options=options)
    return folder


@pytest.fixture(autouse=True)
def _none_yet(run: Path) -> None:
    for file in run.glob("checkpoints/calibrations/*"):
        file.unlink()


def plain(run: Path, *options: str) -> dict[str, Any]:
    return resolved(composed("calibrate", [f"checkpoint='{run}'", *SMALL, *options]), empty=())


def place(run: Path, *options: str) -> Path:
    asked = plain(run, *options)
    checkpoint = open_checkpoint(asked["checkpoint"])
    return find_calibration({**asked, **completed({**asked, "evaluate": False}, checkpoint)}, checkpoint, 2)


def calibrated(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[Any, str, str]:
    monkeypatch.setattr(sys, "argv", ["inkdrop", *arguments])
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    return code, *capfd.readouterr()


@pytest.mark.many
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["weights=raw", "guidance.scale=2"],
        ["guidance=static_threshold", "guidance.static_threshold.low=-0.9"],
        ["guidance=none"],
        ["guidance=[static_threshold,classifier_free]", "guidance.scale=2", "guidance.interval=[0.3,5]"],
        ["ema.length=0.1", "ema.step=3"],
    ],
)
def test_each_command_tells_the_other(
    options: list[str],
    run: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    missing = script("sample.py", f"checkpoint='{run}'", *options, *TAKEN)
    assert missing.code == 4
    command = shlex.split(missing.err.splitlines()[-1].split("num_steps: run ")[1])
    assert command[:4] == ["python", "-m", "inkdrop", "calibrate"]
    code, out, err = calibrated(monkeypatch, capfd, *command[3:], *SMALL)
    assert code == 0, err
    sampling = shlex.split(out.splitlines()[-1])
    assert sampling[:2] == ["inkdrop", "sample"]
    assert script("sample.py", *sampling[2:], "num_samples=2", "output_dir=told").code == 0
    assert script("sample.py", f"checkpoint='{run}'", *options, *TAKEN, "output_dir=asked").code == 0


@pytest.mark.slow
def test_one_model_has_one_calibration_however_it_is_asked_for(run: Path) -> None:
    assert place(run, "guidance.scale=2", "guidance.interval=[0.3,5]") == place(
        run, "guidance.scale=2.0", "guidance.interval=[0.3,5.0]"
    )
    first = next(iter(read_checkpoint(run)["ema"]))
    assert place(run, "weights=ema") == place(run) == place(run, f"weights={first}")
    assert place(run, "guidance=static_threshold") == place(run) == place(run, "guidance.scale=null")
    assert place(run, "ema.length=0.1") == place(run, "ema.length=0.1", "ema.step=6")
    models = [
        ["weights=raw"],
        ["ema.length=0.1"],
        ["ema.length=0.1", "ema.step=3"],
        ["guidance=none"],
        ["guidance.scale=2"],
        ["guidance=[static_threshold,classifier_free]", "guidance.scale=2"],
    ]
    assert len({place(run), *(place(run, *each) for each in models)}) == 1 + len(models)


@pytest.mark.slow
def test_the_nearer_of_two_calibrations_is_kept(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fit(*options: str) -> str:
        command = ["calibrate", f"checkpoint='{run}'", *SMALL, "sampler=ddim", "time_grid=trailing", *options]
        code, out, err = calibrated(monkeypatch, capfd, *command)
        assert code == 0, err
        return out

    errors = {}
    for memory in ("memory=1", "memory=2"):
        assert "earlier" not in fit(memory)
        errors[memory] = json.loads(place(run).read_text())["difference_on_other_seeds"]["after"]
        place(run).unlink()
    (far, error), (near, nearer) = sorted(errors.items(), key=lambda each: -each[1])
    assert nearer < error
    fit(far)
    assert f"the earlier calibration, with {error:.4f} on other samples, was replaced" in fit(near)
    second = place(run).read_text()
    assert f"the earlier calibration, with {nearer:.4f} on other samples, is better and was kept" in fit(far)
    assert place(run).read_text() == second


@pytest.mark.slow
def test_a_fit_that_is_no_nearer_than_the_solver_is_not_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrating, "_differences", lambda *_: [0.1, 0.2])
    with pytest.raises(ValueError, match=r"by 0\.2000 from the fine solution, and the solver itself by 0\.1000"):
        calibrate_checkpoint(plain(run))
    assert not place(run).exists()


@pytest.mark.parametrize("grid", ["restart", "churn", "explicit"])
def test_times_that_do_not_fall_in_so_many_steps_are_refused(grid: str, run: Path) -> None:
    options = [option for option in SMALL if grid == "restart" or not option.startswith("time_grid")]
    asked = resolved(composed("calibrate", [f"checkpoint='{run}'", *options, f"time_grid={grid}"]), empty=())
    with pytest.raises(ValueError, match="only a solver without noise on a grid with num_steps can be calibrated"):
        calibrate_checkpoint(asked)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["calibrate"], "error: checkpoint is needed and has no default: add checkpoint=..., which"),
        (["make-extractor"], "error: output is needed and has no default"),
        (["make-extractor", "extractor=identity", "output=x"], "Identity cannot be fitted: choose a classifier"),
        (["make-extractor", "extractor=inception", "output=x"], "Inception cannot be fitted: choose a classifier"),
    ],
)
def test_what_cannot_be_made_is_refused(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = calibrated(monkeypatch, capfd, *arguments)
    assert code == 2
    assert expected in err
