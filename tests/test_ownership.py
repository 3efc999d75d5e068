"""A folder has one owner: what is another run's is refused before anything is touched, one's own is found."""

from __future__ import annotations

import errno
import fcntl
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkpoint_files import content
from omegaconf import OmegaConf
from runs import SHORT, differing, files
from runs import run as trained

import inkdrop
from inkdrop.checkpoints import CheckpointFolder, find_checkpoint
from inkdrop.checkpoints.files import complete, places, read_record
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.runs.ownership import claim, locked, new_run_id, owner, refuse_foreign, run_id_of


def config(run: Path, **folders: Path | str) -> dict[str, Any]:
    """What a configuration says of folders: those within the run folder, but for the ones that are given."""
    places = {"checkpoint": "checkpoints", "ema": "snapshots", "pictures": "pictures"}
    callbacks = {name: {"folder": str(folders.get(name, run / place))} for name, place in places.items()}
    loggers = {"csv": {"_target_": "inkdrop.loggers.csv.CSV"}, "wandb": {"_target_": "inkdrop.loggers.wandb.WandB"}}
    logger = {name: {**part, "folder": str(folders.get(name, run / name))} for name, part in loggers.items()}
    return {"output_dir": str(run), "run_id": None, "callbacks": callbacks, "logger": logger}


def begun(run: Path, run_id: str, **folders: Path) -> Path:
    """A run folder as one that was begun left it, with a checkpoint."""
    run.mkdir(parents=True)
    claim(run, run_id, config(run, **folders), {"seed": 0})
    saved(folders.get("checkpoint", run / "checkpoints"), run_id)
    (run / "metrics.jsonl").touch()
    return run


def of_an_earlier_version(run: Path, run_id: str, **folders: Path) -> Path:
    """The same, of a version that wrote no owners."""
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({**config(run, **folders), "run_id": run_id}))
    (run / "metrics.jsonl").touch()
    saved(folders.get("checkpoint", run / "checkpoints"), run_id, None)
    return run


def saved(folder: Path, run_id: str, owner: str | None = "own") -> None:
    store = CheckpointFolder(folder)
    store.owner = run_id if owner else None
    store.save({**content(), "config": {"run_id": run_id}}, 5)
    store.wait()


FOLDERS = ("checkpoint", "ema", "pictures", "csv")
# name: what lies in the folder `there` that a fresh run is told to write to
FOREIGN: dict[str, Callable[[Path, Path], Any]] = {
    "checkpoints of a run": lambda there, root: begun(root / "other", "a", checkpoint=there),
    "pictures of a run": lambda there, root: begun(root / "other", "a", pictures=there),
    "within a run": lambda there, root: begun(there.parent, "a"),
    "within a run of an earlier version": lambda there, root: of_an_earlier_version(there.parent, "a"),
    "checkpoints of an earlier version": lambda there, root: saved(there, "a", None),
    "its own name, but not its folder": lambda there, root: begun(root / "other", "mine", checkpoint=there),
    "files of anybody": lambda there, root: (there.mkdir(parents=True), (there / "x").touch()),
    "a run": lambda there, root: begun(there, "a"),
}


@pytest.mark.parametrize("option", FOLDERS)
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_folder_is_refused_and_not_touched(
    make: Callable[[Path, Path], Any], option: str, tmp_path: Path
) -> None:
    there = tmp_path / "disk" / "there"
    make(there, tmp_path)
    before = files(tmp_path)
    plain = {**config(tmp_path / "new", **{option: there}), "run_id": "mine"}
    with pytest.raises(ConfigurationError, match=f"{option}.folder={there} (belongs to run|is not empty)"):
        refuse_foreign(tmp_path / "new", plain)
    assert files(tmp_path) == before


# name: what makes the folder of the run, told the folder for its checkpoints; whether these are its own
OWN: dict[str, Callable[[Path, Path], Any]] = {
    "fresh": lambda run, there: None,
    "fresh, into an empty folder": lambda run, there: there.mkdir(),
    "fresh, into a folder that was only locked": lambda run, there: (there.mkdir(), (there / "lock").touch()),
    "begun": lambda run, there: begun(run, "a", checkpoint=there),
    "begun by an earlier version": lambda run, there: of_an_earlier_version(run, "a", checkpoint=there),
    "begun, and moved since": lambda run, there: begun(run.parent / "old", "a", checkpoint=there).rename(run),
}


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_what_is_its_own_is_not_refused(make: Callable[[Path, Path], Any], tmp_path: Path) -> None:
    run, there = tmp_path / "run", tmp_path / "there"
    made = make(run, there)
    refuse_foreign(run, config(run, checkpoint=there))
    assert bool(complete(places(run, "checkpoints"))) == isinstance(made, Path)


def test_w_and_b_shares_its_folder(tmp_path: Path) -> None:
    begun(tmp_path / "a", "a", wandb=tmp_path / "wandb")
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "offline-run-1").touch()
    refuse_foreign(tmp_path / "b", config(tmp_path / "b", wandb=tmp_path / "wandb"))


def test_a_run_folder_has_one_owner(tmp_path: Path) -> None:
    begun(tmp_path / "a", "a")
    assert run_id_of(tmp_path / "a") == "a"
    with pytest.raises(ConfigurationError, match="contains run a: remove run_id=b"):
        refuse_foreign(tmp_path / "a", {**config(tmp_path / "a"), "run_id": "b"})
    for inside in ("checkpoints", "checkpoints/"):
        with pytest.raises(ConfigurationError, match=r"output_dir=.*checkpoints belongs to run a"):
            refuse_foreign(tmp_path / "a" / inside, config(tmp_path / "a" / inside))
    begun(tmp_path / "b", "b")
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    with pytest.raises(ConfigurationError, match=r"belongs to run a, but .* contains run b"):
        refuse_foreign(tmp_path / "b", config(tmp_path / "b"))


def test_a_copy_of_a_run_folder_does_not_share_what_lies_elsewhere(tmp_path: Path) -> None:
    begun(tmp_path / "run", "a", checkpoint=tmp_path / "there")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(ConfigurationError, match=f"belongs to run a in {tmp_path / 'run'}"):
        refuse_foreign(tmp_path / "copy", config(tmp_path / "copy", checkpoint=tmp_path / "there"))
    refuse_foreign(tmp_path / "copy", config(tmp_path / "copy"))


def test_all_places_of_a_run_are_remembered(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", "a", checkpoint=tmp_path / "one")
    claim(run, "a", config(run, checkpoint=tmp_path / "two"), {})
    assert places(run, "checkpoints") == [run / "checkpoints", tmp_path / "one", tmp_path / "two"]
    claim(run, "a", config(run), {})
    assert read_record(run)["checkpoints"] == [str(tmp_path / "one"), str(tmp_path / "two"), "checkpoints"]
    assert find_checkpoint(run) == tmp_path / "one" / "step-00000005.ckpt"
    shutil.rmtree(tmp_path / "one")
    begun(tmp_path / "other", "b", checkpoint=tmp_path / "one")  # another run has the folder now
    with pytest.raises(CheckpointError, match="is not a run folder"):
        find_checkpoint(run)
    (run / "run.json").write_text('{"run_id": 3}')
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        find_checkpoint(run)


def test_a_checkpoint_folder_keeps_what_is_anothers(tmp_path: Path) -> None:
    saved(tmp_path, "a")
    before = files(tmp_path)
    other = CheckpointFolder(tmp_path, keep=1)
    for name in (None, "b"):
        other.owner = name
        with pytest.raises(CheckpointError, match="belongs to run a"):
            other.save(content(), 9)
        with pytest.raises(CheckpointError, match="belongs to run a"):
            other.cut(0)
    other._write(content(), 9)  # whoever has taken it since
    with pytest.raises(CheckpointError, match="belongs to run a"):
        other.wait()
    (tmp_path / "step-00000009.ckpt").unlink()
    assert files(tmp_path) == before


def test_an_index_of_an_earlier_version_gets_an_owner(tmp_path: Path) -> None:
    of_an_earlier_version(tmp_path / "run", "a", checkpoint=tmp_path / "there")
    claim(tmp_path / "run", "a", config(tmp_path / "run", checkpoint=tmp_path / "there"), {})
    assert str(owner(tmp_path / "there")) == f"run a in {tmp_path / 'run'}"
    saved(tmp_path / "there", "a")
    assert json.loads((tmp_path / "there" / "index.json").read_text())["run"] == str(tmp_path / "run")
    (tmp_path / "there" / "index.json").unlink()
    claim(tmp_path / "run", "a", config(tmp_path / "run", checkpoint=tmp_path / "there"), {})
    assert len(complete([tmp_path / "there"])) == 1  # an index without the file would have hidden it


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK])
def test_a_file_system_without_locks_is_told_of(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(*_: Any) -> None:
        raise OSError(number, "not here")

    monkeypatch.setattr(fcntl, "flock", without)
    with locked(tmp_path):
        pass
    assert f"warning: {tmp_path} cannot be locked (not here)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_its_checkpoints_elsewhere_goes_on_and_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = f"callbacks.checkpoint.folder={tmp_path / 'disk'}"
    trained(tmp_path / "run", *SHORT, elsewhere, "trainer.max_steps=2", "callbacks.checkpoint.keep=1")
    allowed = "resume_allow=[trainer.max_steps,callbacks.checkpoint.keep]"
    last = trained(tmp_path / "run", *SHORT, elsewhere, allowed)
    whole = trained(tmp_path / "whole", *SHORT)
    assert differing(last, whole) == []
    assert not (tmp_path / "run" / "checkpoints").exists()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["checkpoint"] == str(tmp_path / "disk" / "step-00000004.ckpt")
    assert inkdrop.load(tmp_path / "run").shape == inkdrop.load(tmp_path / "whole").shape
    with pytest.raises(SystemExit) as stopped:  # as the next trial of a sweep does
        trained(tmp_path / "next", *SHORT, elsewhere)
    assert stopped.value.code == 2
    assert find_checkpoint(tmp_path / "run").exists()


def test_the_configuration_of_an_earlier_version_is_not_trained_into_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train.py --config-path RUN --config-name config seed=5`, whose folders are those of RUN."""
    trained(tmp_path / "run", *SHORT)
    (tmp_path / "run" / "run.json").unlink()
    before = files(tmp_path / "run")
    folders = [f"callbacks.{name}.folder={tmp_path / 'run' / kind}" for name, kind in (("checkpoint", "checkpoints"),)]
    with pytest.raises(SystemExit) as stopped:
        trained(tmp_path / "outputs", *SHORT, *folders, "seed=5", "run_id=mine")
    assert stopped.value.code == 2
    assert "callbacks.checkpoint.folder" in capsys.readouterr().err
    assert files(tmp_path / "run") == before


@pytest.mark.slow
def test_the_name_of_a_run_is_no_number_to_any_reader() -> None:
    for name in {new_run_id() for _ in range(2000)}:
        assert re.fullmatch("[a-f][0-9a-f]{7}", name)
        with pytest.raises(ValueError, match="could not convert"):
            float(name)
        assert OmegaConf.create(f"id: {name}").id == name


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True], ids=["inside", "elsewhere"])
def test_a_run_of_an_earlier_version_goes_on_to_the_bit(elsewhere: bool, tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / ("disk" if elsewhere else "run/checkpoints")
    options = [*SHORT, f"callbacks.checkpoint.folder={disk}"]
    begun = trained(run, *options, "trainer.max_steps=2")
    (run / "run.json").unlink()
    (run / "result.json").unlink()
    (run / "config.yaml").write_text(yaml.safe_dump(begun["config"]))
    index = json.loads((disk / "index.json").read_text())
    (disk / "index.json").write_text(json.dumps({"files": index["files"]}))
    last = trained(run, *options, "resume_allow=[trainer.max_steps]")
    assert last["config"]["run_id"] == begun["config"]["run_id"]
    assert differing(last, trained(tmp_path / "whole", *SHORT)) == []
    assert json.loads((disk / "index.json").read_text())["owner"] == begun["config"]["run_id"]
