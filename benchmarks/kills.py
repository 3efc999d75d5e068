"""Kills a run at many instants from its start to its end; the same command has to finish it, bit-identical.

    python benchmarks/kills.py FOLDER                  100 random instants
    python benchmarks/kills.py FOLDER --processes      each in a process of its own, imports included
    python benchmarks/kills.py FOLDER --writes 7       before each seventh thing that is done to the disk

The run trains points of the plane for 20 steps, with validation, evaluation, pictures, snapshots, table, checkpoints.
What is compared is all that it leaves but for times: tensors, records, pictures, results and configuration.
"""

from __future__ import annotations

import argparse
import collections
import csv
import datetime
import hashlib
import json
import os
import platform
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
STEPS = 20
OPTIONS = [
    "experiment=moons",
    "run_id=killed",
    "logger=csv",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=4",
    "trainer.enable_progress_bar=false",
    "trainer.accelerator=cpu",
    "data.num_points=400",
    "data.batch_size=16",
    "network.width=16",
    "network.num_blocks=1",
    "network.dropout=0.1",
    "time_grid.num_steps=3",
    "evaluation.num_samples=16",
    "metric.frechet.min_samples=2",
    "callbacks.checkpoint.every.steps=3",
    "callbacks.ema.lengths=[0.1]",
    "callbacks.ema.snapshots={_target_:inkdrop.callbacks.Every,steps:6}",
    "callbacks.loss_by_noise_level.every.steps=5",
    "callbacks.evaluate.every.steps=7",
    "callbacks.pictures.every.steps=8",
    "callbacks.pictures.num_samples=4",
]
TIMES = ("time", "train/samples_per_second", "seconds", "share_of_time")
DONE_TO_A_DISK = {"open", "mkdir", "write", "flush", "fsync", "replace", "rename", "ftruncate", "unlink"}


def main() -> None:
    """Kills, begins again, compares, and prints how many of the runs were equal by the time of the kill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--instants", type=int, default=100, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", action="store_true", help="each run in a process of its own, imports included")
    parser.add_argument("--writes", type=int, metavar="N", help="kill before each N-th thing that is done to the disk")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores", flush=True)
    start = time.monotonic()
    begin = _in_process if arguments.processes else _forked()
    whole = arguments.folder / "whole"
    seconds, counted = _undisturbed(whole, begin, bool(arguments.writes))
    expected = left(whole)
    if arguments.writes:
        moments = [float(number) for number in range(1, counted, arguments.writes)]
    else:
        chance = random.Random(arguments.seed)
        moments = sorted(chance.uniform(0, seconds) for _ in range(arguments.instants))
    table: dict[str, list[bool]] = collections.defaultdict(list)
    for number, moment in enumerate(moments):
        run = arguments.folder / f"{number:03d}"
        if arguments.writes:
            _wait(begin(run, int(moment)))
        else:
            child = begin(run, 0)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            _wait(child)
        reached = stage(run)
        code = _wait(begin(run, 0))
        found = left(run) if code == 0 else {}
        wrong = [name for name in expected if found.get(name) != expected[name]] + [*(found.keys() - expected.keys())]
        table[reached].append(not wrong)
        if wrong:
            print(f"{run}, killed at {moment:.3f} ({reached}): code {code}, differs in {wrong[:5]}", flush=True)
        else:
            shutil.rmtree(run)
        if number % 10 == 9:
            equal = sum(sum(each) for each in table.values())
            print(f"{number + 1} of {len(moments)} killed, {equal} finished bit-identical", flush=True)
    print("\n| killed | runs | finished by the same command, bit-identical |\n|---|---|---|")
    for reached in STAGES:
        if reached in table:
            print(f"| {reached} | {len(table[reached])} | {sum(table[reached])} |")
    results = [each for equal in table.values() for each in equal]
    print(f"| all | {len(results)} | {sum(results)} |")
    print(f"\n{time.monotonic() - start:.0f} s, of which one undisturbed run takes {seconds:.1f}")
    sys.exit(0 if all(results) else 1)


def _undisturbed(run: Path, begin: Callable[[Path, int], int], counts: bool) -> tuple[float, int]:
    """A whole run: its seconds, and on wish how many things it did to the disk."""
    if not counts:
        _wait(begin(run.with_name("warm"), 0))  # what is compiled and cached, for the seconds
    start = time.monotonic()
    if (code := _wait(begin(run, sys.maxsize if counts else 0))) != 0:
        sys.exit(f"the run itself ends with code {code}: {run.with_suffix('.txt').read_text()}")
    seconds = time.monotonic() - start
    return seconds, int(run.with_suffix(".count").read_text()) if counts else 0


def _wait(child: int) -> int:
    """The exit code of a child; negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _in_process(run: Path, last: int) -> int:
    command = [sys.executable, str(ROOT / "train.py"), *OPTIONS, f"output_dir={run}"]
    with run.with_suffix(".txt").open("ab") as said:
        return subprocess.Popen(command, stdout=said, stderr=said).pid


def _forked() -> Callable[[Path, int], int]:
    """Begins runs as children of this process, which has imported everything and computed nothing."""
    for name in ("commands.train.run", "commands.entry", "pictures", "loggers.csv", "data", "metrics", "networks"):
        __import__(f"inkdrop.{name}")

    def begin(run: Path, last: int) -> int:
        """`last` is the number of the thing done to the disk before which the run is killed; 0 is none."""
        run.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            said = os.open(run.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            code: Any = 1
            try:
                sys.argv = [str(ROOT / "train.py"), *OPTIONS, f"output_dir={run}"]
                if last:
                    sys.setprofile(_killed_at(last, run.with_suffix(".count")))
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code or 0
            finally:
                sys.setprofile(None)
                sys.stdout.flush()
                os._exit(code if isinstance(code, int) else 1)
        return child

    return begin


def _killed_at(last: int, counted: Path) -> Callable[[Any, str, Any], None]:
    count = 0

    def look(frame: Any, event: str, what: Any) -> None:
        nonlocal count
        if event == "c_call" and what.__name__ in DONE_TO_A_DISK and "inkdrop" in frame.f_code.co_filename:
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            if last == sys.maxsize:
                counted.write_text(str(count))

    return look


STAGES = [
    "before there was a folder",
    "before it was the run's",
    "before config.yaml",
    "before the first checkpoint",
    "between the checkpoints",
    "between the last checkpoint and the end",
    "after the end",
]


def stage(run: Path) -> str:
    """How far a run has come, by what it left."""
    names = [file.name for file in run.glob("checkpoints/step-*.ckpt")]
    there = [
        run.exists(),
        (run / "run.json").exists(),
        (run / "config.yaml").exists(),
        bool(names),
        f"step-{STEPS:08d}.ckpt" in names,
        (run / "result.json").exists(),
    ]
    return STAGES[max((number for number, each in enumerate(there, 1) if each), default=0)]


def left(run: Path) -> dict[str, Any]:
    """All that a run leaves but for times, by name, in a form that can be compared."""
    from inkdrop.checkpoints import read_checkpoint

    found: dict[str, Any] = {}
    for file in sorted(run.rglob("*")):
        name = str(file.relative_to(run))
        if file.suffix == ".ckpt":
            content = read_checkpoint(file)
            found |= {f"{name}: {key}": _plain(content[key], run) for key in content if key not in ("loops", "logged")}
        elif name == "metrics.jsonl":
            found[name] = [_timeless(json.loads(line)) for line in file.read_text().splitlines()]
        elif file.suffix == ".csv":
            found[name] = [_timeless(row) for row in csv.DictReader(file.read_text().splitlines())]
        elif file.name == "index.json":
            entries = json.loads(file.read_text())["files"]
            found[name] = [{key: entry[key] for key in ("name", "step", "metrics")} for entry in entries]
        elif file.suffix == ".json":
            found[name] = _plain(_timeless(json.loads(file.read_text())), run)
        elif file.is_file():
            found[name] = file.read_bytes().replace(str(run).encode(), b"RUN")
    return found


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith(TIMES)}


def _plain(node: Any, run: Path) -> Any:
    """Data with tensors as digests, and without the name of the run folder."""
    import torch

    if isinstance(node, torch.Tensor):
        return str(node.dtype), tuple(node.shape), hashlib.sha256(node.contiguous().numpy().tobytes()).hexdigest()
    if isinstance(node, dict):
        return {str(key): _plain(value, run) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value, run) for value in node]
    return repr(node).replace(str(run), "RUN")


if __name__ == "__main__":
    main()
