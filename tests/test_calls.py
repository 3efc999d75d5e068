"""`inkdrop.train` and `inkdrop.sample`: what they return and raise, and that they leave the process as it was."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from runs import POINTS, arrays_of, differing

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.commands.train import Train
from inkdrop.errors import CheckpointError, ConfigurationError, DataError

SHORT = [*POINTS, "trainer.max_steps=3", "scheduler.num_steps=3"]


def written(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.slow
def test_calls_return_what_the_files_of_the_run_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = inkdrop.train(*SHORT, "name=short", "seed=1")
    (folder,) = (tmp_path / "runs" / "short").iterdir()
    assert result == written(folder)
    assert (result["steps"], result["seed"]) == (3, 1)
    samples = inkdrop.sample(f"checkpoint={folder}", "num_samples=8", "output_dir=drawn")
    assert samples == written(tmp_path / "drawn")
    assert samples["num_samples"] == len(arrays_of(tmp_path / "drawn")["x"]) == 8


@pytest.mark.slow
def test_two_calls_in_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (inkdrop.train(*SHORT, "output_dir='same-${now:%Y}'", f"seed={seed}") for seed in (1, 2))
    assert (first["seed"], second["seed"]) == (1, 2)
    assert len(list(tmp_path.glob("same-*"))) == 2


def test_no_steps_are_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inkdrop.train(*SHORT, "trainer.max_steps=0", f"output_dir={tmp_path / 'run'}") == {}
    assert "trainer.max_steps=0: the configuration is checked, and nothing is trained" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--help"], "--help works only on a command line, `inkdrop train --help`"),
        (["-m", "seed=0,1"], "-m works only on a command line"),
        (["hydra.run.dir=elsewhere"], "accepts only hydra.searchpath"),
        ([{"seed": 1}], "is not an option: give strings such as 'seed=1'"),
        (["seeed=1"], "unknown option seeed: did you mean seed"),
        (["seed=0,1"], "Ambiguous value"),
        (["sampler=nope"], "sampler/nope"),
        (["network.width=-1"], "network.width=-1"),
        (
            ["trainer.accelerator=cpu", "trainer.devices=2"],
            "trainer.devices=2 needs several processes, but a call from Python",
        ),
    ],
)
def test_what_cannot_work_is_an_error_that_says_so(options: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        inkdrop.train(*SHORT, f"output_dir={tmp_path / 'run'}", *options)
    assert not (tmp_path / "run").exists()


def test_errors_have_the_class_of_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        inkdrop.sample(f"checkpoint={tmp_path}")
    with pytest.raises(DataError):
        inkdrop.train("experiment=photos", "logger=none", f"data.path={tmp_path}", f"output_dir={tmp_path / 'run'}")


def state() -> dict[str, Any]:
    """What a call must leave as it is."""
    names = ["", "matplotlib", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"]
    loggers = [logging.getLogger(name) for name in names]
    return {
        "arguments": list(sys.argv),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "handlers": [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)],
        "loggers": [(each.level, each.propagate, list(each.filters), list(each.handlers)) for each in loggers],
        "warnings": list(warnings.filters),
        "Hydra": GlobalHydra.instance().hydra,
        "threads": torch.get_num_threads(),
        "generator": torch.get_rng_state().tolist(),
        "settings": (torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode(), torch.is_grad_enabled()),
        "processes": torch.distributed.is_initialized(),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
    }


LEAVING = ["trainer.deterministic=true", "+trainer.benchmark=false", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


@pytest.mark.slow
def test_a_call_leaves_the_process_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lightning.pytorch  # noqa: F401  which sets up its logger

    for name in ("WORLD_SIZE", "CUBLAS_WORKSPACE_CONFIG", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").filters.clear()  # of other tests
    before = state()
    inkdrop.train(*SHORT, *LEAVING, f"output_dir={tmp_path / 'run'}")
    assert state() == before
    inkdrop.sample(f"checkpoint={tmp_path / 'run'}", "num_samples=2", f"output_dir={tmp_path / 'drawn'}")
    assert state() == before
    with pytest.raises(ConfigurationError):
        inkdrop.train(*SHORT, "network.width=-1")
    assert state() == before
    for text in ("`Trainer.fit` stopped", "weights_only"):  # what Lightning tells by itself
        assert text not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_calls_from_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results: dict[str, Any] = {}
    events: list[str] = []
    before = Train.prepare

    def prepare(self: Train, *arguments: Any) -> Any:
        events.append("begin")
        time.sleep(0.5)  # for the other to come between, if it could
        prepared = before(self, *arguments)
        events.append("end")
        return prepared

    monkeypatch.setattr(Train, "prepare", prepare)

    def train(name: str, seed: int) -> None:
        results[name] = inkdrop.train(*SHORT, f"seed={seed}", f"output_dir={tmp_path / name}")

    threads = [threading.Thread(target=train, args=(f"thread-{seed}", seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert events == ["begin", "end", "begin", "end"]
    for seed in (1, 2):
        train(f"alone-{seed}", seed)
        assert results[f"thread-{seed}"]["metrics"] == results[f"alone-{seed}"]["metrics"]
        alone, other = (read_checkpoint(tmp_path / f"{name}-{seed}") for name in ("alone", "thread"))
        assert differing(alone, other) == []


@pytest.mark.slow
def test_calls_work_within_a_running_loop_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> dict[str, Any]:
        inkdrop.train(*SHORT, f"output_dir={tmp_path / 'run'}")
        options = [f"checkpoint={tmp_path / 'run'}", "num_samples=2", f"output_dir={tmp_path / 'drawn'}"]
        return await asyncio.to_thread(inkdrop.sample, *options)

    assert asyncio.run(cell()) == written(tmp_path / "drawn")


@pytest.mark.slow
def test_a_callback_may_call_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkdrop.callbacks import StopOnSignal

    inkdrop.train(*SHORT, f"output_dir={tmp_path / 'first'}")
    drawn = []

    def on_train_start(self: StopOnSignal, trainer: Any, pl_module: Any) -> None:
        options = [f"checkpoint={tmp_path / 'first'}", "num_samples=2", f"output_dir={tmp_path / 'drawn'}"]
        drawn.append(inkdrop.sample(*options))

    monkeypatch.setattr(StopOnSignal, "on_train_start", on_train_start)
    inkdrop.train(*SHORT, f"output_dir={tmp_path / 'second'}")
    assert drawn[0]["num_samples"] == 2
    first, second = (read_checkpoint(tmp_path / name) for name in ("first", "second"))
    assert differing(first, second) == []


@pytest.mark.slow
def test_configurations_of_the_users_own_are_found_from_python(tmp_path: Path) -> None:
    (tmp_path / "own" / "network").mkdir(parents=True)
    (tmp_path / "own" / "network" / "mine.yaml").write_text("defaults:\n  - mlp\nnum_blocks: 2\n")
    options = [option for option in SHORT if not option.startswith("network.")]
    own = [f"hydra.searchpath=['file://{tmp_path / 'own'}']", "network=mine", "network.width=8"]
    inkdrop.train(*options, *own, f"output_dir={tmp_path / 'run'}")
    assert read_checkpoint(tmp_path / "run")["config"]["network"]["num_blocks"] == 2
