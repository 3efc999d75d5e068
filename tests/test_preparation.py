"""A run is prepared once: nothing is resolved, read, hashed or built twice in one process."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from entry_scripts import Script
from image_files import GREY, encoded
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from runs import TINY, trained

from inkdrop.checkpoints import files, find_checkpoint, read_checkpoint
from inkdrop.data import DataModule
from inkdrop.tasks import Task


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing is done that takes time, by its name; reading and hashing also by the file."""
    counts: Counter[str] = Counter()

    def count(place: Any, name: str, key: Callable[..., str]) -> None:
        before = getattr(place, name)

        @functools.wraps(before)
        def counted(*arguments: Any, **options: Any) -> Any:
            counts[key(*arguments)] += 1
            return before(*arguments, **options)

        monkeypatch.setattr(place, name, counted)

    count(files, "load_torch", lambda stream: f"read {os.fstat(stream.fileno()).st_ino}")
    count(hashlib, "file_digest", lambda stream, kind: f"hash {os.fstat(stream.fileno()).st_ino}")
    count(Task, "__init__", lambda self, *_: "task")
    count(DataModule, "__init__", lambda self, *_: "data")
    count(Trainer, "__init__", lambda self, *_: "trainer")
    resolving = OmegaConf.to_container

    def to_container(config: Any, *, resolve: bool = False, throw_on_missing: bool = False, **options: Any) -> Any:
        if resolve and "network" in config:  # the whole of it
            counts["resolve"] += 1
        return resolving(config, resolve=resolve, throw_on_missing=throw_on_missing, **options)

    monkeypatch.setattr(OmegaConf, "to_container", to_container)
    return counts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoint is read."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    trained(folder)
    return folder


@pytest.mark.slow
def test_training_resolves_once_and_builds_each_part_once(calls: Counter[str], script: Script, tmp_path: Path) -> None:
    ended = script("train.py", *TINY, "logger=none", f"output_dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    assert {name: calls[name] for name in ("resolve", "task", "data", "trainer")} == dict.fromkeys(
        ("resolve", "task", "data", "trainer"), 1
    )


@pytest.mark.parametrize(
    "options",
    [[], *(pytest.param([each], marks=pytest.mark.slow) for each in ("data.shape=[1,8,8]", "data.num_classes=2"))],
)
def test_data_that_say_their_shape_or_classes_are_built_once(
    options: list[str], calls: Counter[str], script: Script, tmp_path: Path
) -> None:
    for number in range(24):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(GREY))
    few = ["trainer.max_steps=1", "callbacks.evaluate=null", "data.batch_size=4", "logger=none"]
    data = ["data=image_folder", f"data.path={tmp_path / 'images'}", *options]
    tiny = [each for each in TINY if not each.startswith(("evaluation", "metric", "data"))]
    ended = script("train.py", *tiny, *data, *few, f"output_dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    assert (calls["data"], calls["task"]) == (1, 1)
    shape = [1, 8, 8] if "data.shape=[1,8,8]" in options else [1, 32, 32]
    assert read_checkpoint(tmp_path / "run")["config"]["data"]["decoder"]["shape"] == shape


@pytest.mark.slow
def test_a_resumed_run_reads_its_checkpoint_once(calls: Counter[str], script: Script, tmp_path: Path) -> None:
    options = [
        *TINY,
        "logger=none",
        "callbacks.evaluate=null",
        "callbacks.pictures=null",
        f"output_dir={tmp_path / 'run'}",
    ]
    assert script("train.py", *options).code == 0
    file = find_checkpoint(tmp_path / "run")
    calls.clear()
    ended = script("train.py", *options, "trainer.max_steps=8", "resume_allow=[trainer,scheduler,task]")
    assert ended.code == 0, ended.err
    assert "resumed from step 6" in ended.out
    assert calls[f"read {file.stat().st_ino}"] == 1


@pytest.mark.parametrize(
    "options",
    [[], ["evaluate=true", "extractor=digits"], pytest.param(["guidance=classifier_free"], marks=pytest.mark.slow)],
)
def test_sampling_reads_and_hashes_its_checkpoint_once(
    options: list[str], run: Path, calls: Counter[str], script: Script
) -> None:
    ended = script("sample.py", f"checkpoint={run}", "num_samples=20", *options)
    assert ended.code == 0, ended.err
    file = find_checkpoint(run).stat().st_ino
    assert (calls[f"read {file}"], calls[f"hash {file}"]) == (1, 2)  # one of them to find it just now
    assert calls["data"] <= 1


def test_a_calibration_reads_and_hashes_its_checkpoint_once(run: Path, calls: Counter[str], script: Script) -> None:
    small = ["num_trajectories=4", "refinement=2", "num_rounds=1", "time_grid.num_steps=2"]
    ended = script("src/inkdrop/__main__.py", "calibrate", f"checkpoint={run}", *small)
    assert ended.code in (0, 2), ended.err  # the fit of a network of no training may come no nearer
    file = find_checkpoint(run).stat().st_ino
    assert (calls[f"read {file}"], calls[f"hash {file}"]) == (1, 2)  # one of them to find it just now
