"""What all tests share."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: sums are equal to the bit on equal numbers of threads
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}  # no network, and no tracking account

import pytest
import torch
from entry_scripts import ROOT, Ended, Script


@pytest.fixture(autouse=True)
def _isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No caches of the user, and a fixed global seed."""
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    torch.manual_seed(0)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Script:
    """train.py or sample.py in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # the script sets it; here it goes away again
    monkeypatch.setenv("INKDROP_DRAWN_SEED", "0")

    def run(name: str, *overrides: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(ROOT / name), *overrides])
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        return Ended(code, *capfd.readouterr())

    return run
