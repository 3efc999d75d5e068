"""Ending by a signal, and what is wrong with the disk: a code and a sentence, never a traceback."""

from __future__ import annotations

import errno
import importlib
import inspect
import multiprocessing
import os
import pickle
import pkgutil
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import content
from entry_scripts import ROOT, begin
from lightning.pytorch import Callback
from moments import at_call, full, wait_until
from runs import POINTS, SHORT
from runs import run as trained
from small_tasks import fit, small_task

import inkdrop
from inkdrop.callbacks import Every, StopOnSignal
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.callbacks.interruption import Interrupted
from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
from inkdrop.data.loaders import ShuffledLoader
from inkdrop.distributed.signals import EXIT_CODES, SIGNALS, exit_on_signal, install_handler
from inkdrop.errors import WriteError
from inkdrop.files.writing import append_text, make_folder, replacing, write_text
from inkdrop.loggers.csv import CSV
from inkdrop.loggers.jsonl import JSONLines


def exceptions() -> list[type[Exception]]:
    """Every exception class that is defined in the package."""
    found: dict[type[Exception], None] = {}
    for module in pkgutil.walk_packages(inkdrop.__path__, "inkdrop."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.name:
                    found[value] = None
    return list(found)


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_an_exception_is_the_same_in_another_process(kind: type[Exception]) -> None:
    own = "__init__" in vars(kind)
    parameters = list(inspect.signature(kind).parameters.values()) if own else []
    values = {"int": 15, "str": "a sentence", "Path": Path("here")}
    arguments: Any = [values[str(each.annotation)] for each in parameters]
    if issubclass(kind, OSError):
        arguments = [errno.ENOSPC, "No space left on device", "here"]
    error = kind(*(arguments or ["a sentence"]))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert getattr(again, "exit_code", None) == getattr(error, "exit_code", None)


def test_all_kinds_of_exceptions_are_found() -> None:
    assert {"TrialError", "Interrupted", "CheckpointError", "NonFiniteError"} <= {
        kind.__name__ for kind in exceptions()
    }


class Signalled(Callback):
    """A signal comes when two steps are done."""

    def __init__(self, signum: int):
        self.signum = signum

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            signal.raise_signal(self.signum)


@pytest.fixture(autouse=True)
def _no_nohup() -> Iterator[None]:
    """What ignores SIGHUP would pass this on, as `nohup make test` does."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def given_back() -> Iterator[None]:
    before = {each: signal.getsignal(each) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda each: each.name)
@pytest.mark.usefixtures("given_back")
def test_each_signal_ends_with_a_checkpoint_and_its_code(
    signum: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdrop.callbacks.interruption.discard_output", lambda: None)  # of the terminal of the tests
    callbacks = [Signalled(signum), Checkpoint(Every(steps=100), str(tmp_path / "checkpoints")), StopOnSignal()]
    with pytest.raises(Interrupted) as stopped:
        fit(small_task(), 9, callbacks, tmp_path)
    assert stopped.value.exit_code == EXIT_CODES[signum] == 128 + (15 if signum == signal.SIGUSR1 else signum)
    assert read_checkpoint(tmp_path)["global_step"] == 2


@pytest.mark.usefixtures("given_back")
def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in install_handler(lambda *_: None)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_thread_trains(tmp_path: Path) -> None:
    before, errors = [signal.getsignal(each) for each in SIGNALS], []

    def train() -> None:
        try:
            fit(small_task(), 2, [StopOnSignal()], tmp_path)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert errors == []
    assert [signal.getsignal(each) for each in SIGNALS] == before


IMPORTING = {  # what a program is in the middle of, as C code or a library that catches everything
    "a loop": "while True: pass",
    "a library that catches all": "\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass",
}


@pytest.mark.parametrize("doing", IMPORTING.values(), ids=IMPORTING)
@pytest.mark.parametrize("signum", SIGNALS, ids=lambda each: each.name)
def test_a_signal_during_the_start_is_a_code_and_a_line(signum: signal.Signals, doing: str) -> None:
    reading, writing = os.pipe()
    child = os.fork() if threading.active_count() == 1 else pytest.skip("threads are about")
    if child == 0:
        os.dup2(writing, 2)
        with exit_on_signal():
            signal.setitimer(signal.ITIMER_REAL, 0)
            threading.Timer(0.05, os.kill, (os.getpid(), signum)).start()
            exec(f"import time\n{doing}")
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        assert said.read() == f"\nstopped by {signum.name}\n"
    assert os.waitstatus_to_exitcode(status) == EXIT_CODES[signum]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_leave_signals_to_their_parent(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal and SLURM send them to all processes of a job."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    loader = ShuffledLoader({"x": torch.arange(100.0)}, 4, seed=0, num_workers=1)
    try:
        batches = iter(loader)
        first = next(batches)
        (worker,) = loader._iterator._workers
        for signum in SIGNALS:
            subprocess.run(["kill", f"-{signum.value}", str(worker.pid)], check=True)  # one from the parent would count
        later = [next(batches) for _ in range(20)]
        assert worker.is_alive()
        assert len({tuple(batch["position"].tolist()) for batch in [first, *later]}) == 21
        worker.terminate()  # as the parent does with one that hangs
        worker.join(300)
        assert worker.exitcode == 0
    finally:
        loader._iterator._shutdown_workers()
        multiprocessing.set_start_method(before, force=True)


WRITES: dict[str, Callable[[Path], None]] = {
    "text": lambda path: write_text(path, "x"),
    "more text": lambda path: append_text(path, "x"),
    "folder": lambda path: make_folder(path / "inner"),
    "record": lambda path: JSONLines(path).log_metrics({"a": 1.0}, 0),
    "table": lambda path: CSV(str(path)).begin([]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_what_cannot_be_written_is_named(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=f"{tmp_path}/file/gone.* cannot be written: Not a directory") as told:
        write(tmp_path / "file" / "gone")
    assert told.value.exit_code == 4


def test_a_disk_that_fills_in_the_middle_is_named(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"x\.png cannot be written: No space left"), replacing(tmp_path / "x.png"):
        full()
    assert list(tmp_path.iterdir()) == []


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


# name: (what is called, how many times until the disk is full or the folder is gone)
DISASTERS: dict[str, tuple[str, str, int]] = {
    "record": ("inkdrop.loggers.jsonl", "append_text", 3),
    "picture": ("inkdrop.pictures.sheets", "replacing", 1),
    "table": ("inkdrop.loggers.csv", "append_text", 2),
    "result": ("inkdrop.runs.record", "write_text", 1),
    "configuration": ("inkdrop.commands.train.run", "write_text", 1),
    "owner": ("inkdrop.runs.ownership", "write_text", 1),
}
PICTURES = [*(each for each in POINTS if each not in ("~callbacks.pictures", "logger=none")), *SHORT, "logger=csv"]


@pytest.mark.many
@pytest.mark.parametrize(("module", "name", "number"), DISASTERS.values(), ids=DISASTERS)
def test_a_disk_that_is_full_ends_with_code_4(
    module: str,
    name: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Any,
) -> None:
    pictures = ["callbacks.pictures.num_samples=4", "time_grid.num_steps=2"]
    with monkeypatch.context() as patch:
        at_call(patch, importlib.import_module(module), name, number, full)
        ended = script("train.py", *PICTURES, *pictures, f"output_dir={tmp_path / 'run'}")
    assert ended.code == 4, ended.err
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.err
    if name == "append_text":
        ended = script("train.py", *PICTURES, *pictures, f"output_dir={tmp_path / 'run'}")
        assert ended.code == 0, ended.err


def test_a_folder_that_is_removed_ends_with_code_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        at_call(patch, CheckpointFolder, "_known", 3, lambda: remove(tmp_path / "run"))  # nothing is being written
        with pytest.raises(SystemExit) as stopped:
            trained(tmp_path / "run", *SHORT)
    assert stopped.value.code == 4
    assert "was removed during the run" in capsys.readouterr().err


def test_a_checkpoint_folder_that_is_removed_is_not_made_again(tmp_path: Path) -> None:
    store = CheckpointFolder(tmp_path / "checkpoints")
    store.save(content(), 1)
    store.wait()
    remove(tmp_path / "checkpoints")
    with pytest.raises(Exception, match="was removed during") as told:
        store.save(content(), 2)
    assert told.value.exit_code == 4  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_terminal_that_is_gone_leaves_a_checkpoint(tmp_path: Path) -> None:
    """As an ssh that is dropped: SIGHUP comes, and each further word would be an error."""
    options = ["trainer.max_steps=100000", "callbacks.checkpoint.every.steps=100000", f"output_dir={tmp_path / 'run'}"]
    program = tmp_path / "in_a_terminal.py"
    program.write_text(
        "import fcntl, runpy, sys, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "del sys.argv[0]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    terminal, its = pty.openpty()
    train = begin(str(program), str(ROOT / "train.py"), *POINTS, *options, stdin=its, stdout=its, stderr=its)
    os.close(its)

    def begun() -> bool:
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 10_000)
        return (tmp_path / "run" / "metrics.jsonl").exists()

    wait_until(begun)
    os.close(terminal)
    assert train.wait() == 129
    assert read_checkpoint(tmp_path / "run")["global_step"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["train.py"], ["sample.py", "checkpoint=x"], ["-m", "inkdrop", "describe"]])
def test_ctrl_c_during_the_start_of_a_command(verb: list[str], tmp_path: Path) -> None:
    program = [sys.executable, "-X", "importtime", *verb]  # says what it is importing
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [line for line, _ in zip(process.stderr, range(600), strict=False)]
        process.send_signal(signal.SIGINT)
        said += process.stderr
    assert process.returncode == 130
    assert said[-1] == "stopped by SIGINT\n"
    assert not [line for line in said if "Traceback" in line]
