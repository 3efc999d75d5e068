"""What all tests share."""

from __future__ import annotations

import gc
import itertools
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: sums are equal to the bit on equal numbers of threads
os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # else each process compiles everything again
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}  # no network, and no tracking account

import pytest
import torch
from composing import compose_faster
from entry_scripts import ROOT, Ended, Script
from shares import processes
from warm import process, start_early

sys.dont_write_bytecode = False
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells let jobs in the background ignore

compose_faster()

pytest_plugins = ["forked"]


def pytest_collection(session: pytest.Session) -> None:
    """The program that forks for commands imports the libraries while the tests are collected; all share it."""
    if processes(session.config) > 1 and not session.config.option.collectonly:
        start_early()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test of many cases that together take long, `make quick` runs one in eight."""
    counts: dict[str, Iterator[int]] = {}
    for item in items:
        if item.get_closest_marker("many"):
            function = item.nodeid.split("[")[0]
            if next(counts.setdefault(function, itertools.count())) % 8:
                item.add_marker("slow")


def pytest_collection_finish() -> None:
    """What has been imported is there to stay, and is looked through no more for what can be collected.

    The rest is looked through more rarely than usual, which takes 6 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders for caches, made when something is kept there."""
    return map(tmp_path_factory.mktemp("caches").joinpath, map(str, itertools.count()))


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(_caches: Iterator[Path]) -> None:
    """For what several tests use together, which is made before the cache of the first of them."""
    os.environ["INKDROP_CACHE_DIR"] = str(next(_caches))


@pytest.fixture(autouse=True)
def _isolated(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No caches of the user, and a fixed global seed."""
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(next(_caches)))
    torch.default_generator.manual_seed(0)  # as torch.manual_seed, which notes the stack for each device there may be


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Script:
    """train.py or sample.py in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    warm = SimpleNamespace(Popen=partial(process, fresh=False), DEVNULL=subprocess.DEVNULL)
    monkeypatch.setattr("inkdrop.commands.sweep.starters.subprocess", warm)  # for the program that forks for trials

    def run(name: str, *overrides: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(ROOT / name), *overrides])
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *capfd.readouterr())

    return run
