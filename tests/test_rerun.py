"""Beginning a run again, sweeps and samples: each in a folder of its own, and nothing is lost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from entry_scripts import Script, completed
from moments import at_call, full
from runs import IN_PROCESS, POINTS, SHORT, files, recorded
from runs import run as trained

from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
from inkdrop.runs.folder_names import apart
from inkdrop.runs.ownership import locked

OPTIONS = [*POINTS, *SHORT]


@pytest.fixture
def run(script: Script) -> Iterator[Path]:
    ended = script("train.py", *OPTIONS, "output_dir=run")
    assert ended.code == 0, ended.err
    before = files(Path("run"))
    yield Path("run")
    assert {name: each for name, each in files(Path("run")).items() if name in before} == before


@pytest.mark.slow
def test_config_yaml_begins_another_run(run: Path, script: Script) -> None:
    ended = script("train.py", "--config-dir", "run", "--config-name", "config", "seed=5")
    assert ended.code == 0, ended.err
    (folder,) = Path("runs/moons").iterdir()
    one, two = (read_checkpoint(each)["config"] for each in (run, folder))
    assert two["seed"] == two["task"]["seed"] == two["data"]["seed"] == 5  # its references are still references
    assert one["run_id"] != two["run_id"]
    names = ("config.yaml", "run.json", "metrics.jsonl", "result.json")
    assert all((folder / name).exists() for name in names)
    told = [yaml.safe_load((each / "config.yaml").read_text()) for each in (run, folder)]
    assert {name for name in told[0] if told[0][name] != told[1][name]} == {"seed"}
    ended = script("train.py", "--config-path", str(run.resolve()), "--config-name", "config", "output_dir=run")
    assert ended.code == 0, ended.err
    assert "nothing to do" in ended.out
    ended = script("train.py", "--config-dir", "run", "--config-name", "config", "output_dir=run", "seed=5")
    assert ended.code == 2
    assert "seed: 0 -> 5" in ended.err


@pytest.mark.slow
def test_config_yaml_of_an_earlier_version_is_refused(run: Path, script: Script) -> None:
    """It is a record of what was resolved, and no configuration to start from."""
    Path("old").mkdir()
    Path("old/config.yaml").write_text(yaml.safe_dump(read_checkpoint(run)["config"]))
    ended = script("train.py", "--config-dir", "old", "--config-name", "config", "seed=5")
    assert ended.code == 2
    assert "unknown option pipeline" in ended.err
    assert not Path("runs").exists()


def test_what_was_masked_has_to_be_given_again(script: Script) -> None:
    ended = script("train.py", *OPTIONS, "callbacks.checkpoint.folder='***'", "output_dir=run")
    assert ended.code == 2
    assert "callbacks.checkpoint.folder=*** stands for a secret" in ended.err


@pytest.mark.slow
def test_a_half_result_is_written_again(run: Path, script: Script) -> None:
    whole = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text('{"metrics": {"train/lo')
    ended = script("train.py", *OPTIONS, "output_dir=run")
    assert ended.code == 0, ended.err
    again = json.loads((run / "result.json").read_text())
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    (run / "result.json").write_text(json.dumps(whole, indent=2) + "\n")


@pytest.mark.slow
def test_a_run_that_ended_before_its_first_checkpoint_leaves_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed() -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        at_call(patch, CheckpointFolder, "save", 1, killed)
        with pytest.raises(RuntimeError, match="killed"):
            trained(tmp_path / "run", *SHORT)
    assert recorded(tmp_path / "run")
    trained(tmp_path / "run", *SHORT)
    trained(tmp_path / "whole", *SHORT)
    rows, whole = (
        [{name: row[name] for name in row if name != "train/samples_per_second"} for row in recorded(tmp_path / each)]
        for each in ("run", "whole")
    )
    assert rows == whole
    assert any("train/loss" in row for row in rows)


def test_a_half_configuration_of_an_earlier_version_is_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("data:\n  _target_: 'inkd")
    trained(tmp_path / "run", *SHORT)
    assert "config.yaml cannot be read, and is rewritten" in capsys.readouterr().err


@pytest.mark.slow
def test_two_of_the_same_second_have_a_folder_each(script: Script, tmp_path: Path) -> None:
    assert apart(tmp_path / "x") == tmp_path / "x"
    made = [apart(tmp_path / "x", made=True).name for _ in range(3)]
    assert made == ["x", "x-2", "x-3"]
    assert apart(tmp_path / "x") == tmp_path / "x-4"
    for number in ("", "-2"):
        ended = script("train.py", *OPTIONS, "output_dir=runs/${now:%Y}")
        assert ended.code == 0, ended.err
        assert ended.out.count("fresh run") == 1
        (folder,) = (each for each in Path("runs").iterdir() if each.name.endswith(number) and len(each.name) < 7)
        folder.rename(f"seen{number}")
        folder.mkdir()  # the other one's
    ended = script("train.py", "-m", *IN_PROCESS, *OPTIONS, "output_dir=runs/${now:%Y}", "seed=0,1")
    assert ended.code == 0, ended.err
    assert len(list(Path("runs").glob("*-3/*/result.json"))) == 2


@pytest.mark.slow
def test_a_sweep_that_only_checks_leaves_its_folder_free(script: Script) -> None:
    for steps in ("trainer.max_steps=0", "trainer.max_steps=4"):
        ended = script("train.py", "-m", *IN_PROCESS, *OPTIONS, steps, "seed=0,1", "output_dir=sweep")
        assert ended.code == 0, ended.err
    assert len(list(Path("sweep").glob("*/result.json"))) == 2
    ended = script("train.py", "-m", *IN_PROCESS, *OPTIONS, "seed=0,1", "output_dir=sweep")
    assert ended.out.count("nothing to do") == 2


@pytest.mark.slow
def test_a_sweep_whose_seeds_are_drawn_goes_on(script: Script) -> None:
    options = ["-m", *IN_PROCESS, *OPTIONS, "seed=null", "optimizer.lr=0.1,0.2", "output_dir=sweep"]
    assert script("train.py", *options).code == 0
    seeds = [json.loads((Path("sweep") / each / "result.json").read_text())["seed"] for each in "01"]
    assert seeds[0] != seeds[1]
    ended = script("train.py", *options)
    assert ended.code == 0, ended.err
    assert ended.out.count("nothing to do") == 2


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("run_id=mine", "run_id=mine would be shared by all trials of the sweep: remove it"),
        (
            "callbacks.checkpoint.folder=shared",
            "callbacks.checkpoint.folder=shared would be shared by all trials of",
        ),
        ("callbacks.ema.folder=shared", "callbacks.ema.folder=shared would be shared by all trials of"),
        ("+logger.csv.folder=shared", "logger.csv.folder=shared would be shared by all trials of"),
    ],
)
def test_what_all_trials_would_share_is_refused(option: str, said: str, script: Script) -> None:
    more = ["+logger.csv._target_=inkdrop.loggers.csv.CSV"] if "csv" in option else []
    ended = script("train.py", "-m", *IN_PROCESS, *OPTIONS, *more, option, "seed=0,1", "output_dir=sweep")
    assert ended.code == 2
    assert said in ended.err
    assert not list(Path.cwd().iterdir())


@pytest.mark.slow
def test_trials_with_folders_of_their_own_elsewhere_go_on(script: Script, tmp_path: Path) -> None:
    option = f"callbacks.checkpoint.folder={tmp_path / 'disk'}/${{output_dir}}"
    options = ["-m", *IN_PROCESS, *OPTIONS, option, "seed=0,1", "output_dir=sweep"]
    assert script("train.py", *options).code == 0
    assert len(list((tmp_path / "disk").rglob("step-00000004.ckpt"))) == 2
    assert script("train.py", *options).out.count("nothing to do") == 2


@pytest.mark.slow
def test_two_that_sample_into_one_folder(run: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = ["sample.py", "checkpoint=run", "num_samples=2", "time_grid.num_steps=2", "output_dir=out"]
    with locked(Path("out")):
        ended = script(*sample)
        assert ended.code == 4
        assert "another process writes to" in ended.err
    assert files(Path("out")) == {"lock": b""}

    def other() -> None:
        Path("out/result.json").write_text("{}")

    with monkeypatch.context() as patch:  # the other one was quicker, after all was checked
        at_call(patch, sys.modules["inkdrop.commands.sample.run"], "locked", 1, other)
        assert script(*sample).code == 2
    assert files(Path("out")) == {"lock": b"", "result.json": b"{}"}
    ended = script(*sample[:-1], "output_dir=run")
    assert ended.code == 2
    assert "contains other samples, or a run" in ended.err


@pytest.mark.slow
def test_killed_before_any_write_the_same_command_finishes_equal_to_the_bit(tmp_path: Path) -> None:
    done = completed("benchmarks/kills.py", str(tmp_path / "runs"), "--writes", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2], ids=["samples", "grid"])
def test_samples_on_a_full_disk_end_with_code_4(
    number: int, run: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = ["sample.py", "checkpoint=run", "num_samples=2", "time_grid.num_steps=2", "output_dir=out"]
    with monkeypatch.context() as patch:
        at_call(patch, os, "fsync", number, full)
        ended = script(*sample)
    assert ended.code == 4, ended.err
    assert "cannot be written: No space left on device" in ended.err
    assert "Traceback" not in ended.err
    assert not list(Path("out").glob("*unfinished"))
    assert script(*sample).code == 0
