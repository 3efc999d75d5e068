"""Sweeps in processes: small ones, with a run that takes its time, and what they leave."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entry_scripts import ROOT, begin
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
        self.environment = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{home}"}

    def start(self, *options: str, fresh: bool = False) -> subprocess.Popen[str]:
        """A sweep whose program that forks has imported the libraries already, unless it is to start afresh."""
        slow = ["allow_targets=[slow.]", "+callbacks.slow._target_=slow.Slow"]
        command = [str(ROOT / "train.py"), "-m", *OPTIONS, *slow, *options, f"output_dir={self.folder}"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        return begin(*command, fresh=fresh, cwd=self.home, environment=self.environment, **streams)

    def run(self, *options: str, fresh: bool = False) -> tuple[int, str]:
        with self.start(*options, fresh=fresh) as process:
            out, _ = process.communicate()
        return process.returncode, out

    def processes(self) -> list[int]:
        """All processes of the sweep: those whose folder is that which it was started in."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    folder = (entry / "cwd").readlink()
                except OSError:
                    continue
                if state != "Z" and folder == self.home:
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
        time.sleep(0.2)
    return value
