"""Sweeps in processes: small ones, with a run that takes its time, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entry_scripts import ROOT
from runs import POINTS, recorded

OPTIONS = [*POINTS, "trainer.max_steps=40", "scheduler.num_steps=40", "callbacks.checkpoint.every.steps=10"]
SLOW = """
import time
from lightning.pytorch import Callback
class Slow(Callback):
    def on_train_batch_end(self, *_): time.sleep(0.1)
"""


class Sweep:
    """One sweep and its folder."""

    def __init__(self, home: Path):
        self.home, self.folder = home, home / "sweep"
        (home / "slow.py").write_text(SLOW)
        self.environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{home}"}

    def start(self, *options: str) -> subprocess.Popen[str]:
        slow = ["allow_targets=[slow.]", "+callbacks.slow._target_=slow.Slow"]
        command = [sys.executable, str(ROOT / "train.py"), "-m", *OPTIONS, *slow, *options, f"output_dir={self.folder}"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            command, cwd=self.home, env=self.environment, text=True, start_new_session=True, **streams
        )

    def run(self, *options: str) -> tuple[int, str]:
        with self.start(*options) as process:
            out, _ = process.communicate()
        return process.returncode, out

    def processes(self) -> list[int]:
        """All processes of the sweep: those that name its folder or have its variables."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if state != "Z" and str(self.home).encode() in text:
                    found.append(int(entry.name))
        return found

    def results(self) -> dict[str, bytes]:
        return {file.parent.name: file.read_bytes() for file in self.folder.glob("*/result.json")}

    def steps(self) -> dict[str, list[int]]:
        rows = {file.parent.name: recorded(file.parent) for file in self.folder.glob("*/metrics.jsonl")}
        return {name: [row["step"] for row in own if "train/loss" in row] for name, own in rows.items()}


def waited_for(condition: Callable[[], Any]) -> Any:
    """The value of a condition when it holds; the time limit of the test is the only one."""
    while not (value := condition()):
        time.sleep(0.05)
    return value
