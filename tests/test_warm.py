"""Forked commands are what commands in processes of their own are."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm
from entry_scripts import begin, completed
from runs import POINTS, SHORT, arrays_of, differing, files, logged

from inkdrop.checkpoints import read_checkpoint

# The first argument is a file for what the program sees of itself.
PROBE = """
import json, logging, os, random, signal, sys, threading, warnings
import torch, lightning.pytorch, hydra, matplotlib.pyplot, scipy.stats, sklearn.datasets, wandb
import numpy as np
descriptors = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
handlers = {str(each): repr(signal.getsignal(each)).split(" at ")[0] for each in signal.valid_signals()}
seen = {
    "arguments": sys.argv,
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "modules": sys.path,
    "flags": str(sys.flags),
    "main": [__name__, __file__, sys.modules["__main__"].__dict__ is globals(), __spec__],
    "input": sys.stdin.read(),
    "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering, sys.stdout.encoding],
    "descriptors": sorted(descriptors),
    "handlers": handlers,
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "leader": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task")), torch.get_num_threads()],
    "filters": [str(each) for each in warnings.filters],
    "loggers": {name: str(logging.getLogger(name).handlers) for name in ("", "lightning.pytorch")},
    "inkdrop": any(name.startswith("inkdrop") for name in sys.modules),
}
drawn = [random.random(), np.random.random(), torch.rand(()).item()]
with open(sys.argv[1], "w") as file:
    json.dump([seen, drawn], file)
"""


@pytest.mark.slow
def test_a_program_sees_what_it_sees_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    found: list[dict[str, Any]] = []
    numbers: list[list[float]] = []
    for fresh in (False, False, True):
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {"NEW": "1", "PYTHONPATH": f"{tmp_path}/a:{tmp_path}/b", "HOME": None}
        command = ["probe.py", "seen.json", "--option"]
        process = begin(*command, fresh=fresh, cwd=tmp_path, environment=environment, start_new_session=True, **options)
        _, errors = process.communicate("some words", timeout=300)
        assert process.returncode == 0, errors
        seen, drawn = json.loads((tmp_path / "seen.json").read_text())
        found.append(seen)
        numbers.append(drawn)
    assert found[0] == found[2]
    assert found[0]["input"] == "some words"
    assert "NEW" in found[0]["environment"]
    assert not found[0]["inkdrop"]
    assert all(one != other for one, other in zip(*numbers[:2], strict=True))


@pytest.mark.slow
def test_a_run_and_its_samples_are_equal_to_the_bit(tmp_path: Path) -> None:
    pictures = ["callbacks.pictures.num_samples=4", "time_grid.num_steps=3"]
    options = [*(each for each in POINTS if each != "~callbacks.pictures"), *SHORT, *pictures, "run_id=same"]
    for name, fresh in (("warm", False), ("fresh", True)):
        folder = tmp_path / name / "run"
        done = completed("train.py", *options, f"output_dir={folder}", fresh=fresh)
        assert done.returncode == 0, done.stderr
        samples = ["num_samples=5", "time_grid.num_steps=3", f"output_dir={tmp_path / name / 'samples'}"]
        done = completed("sample.py", f"checkpoint={folder}", *samples, fresh=fresh)
        assert done.returncode == 0, done.stderr
    one, other = tmp_path / "warm", tmp_path / "fresh"
    assert differing(*(read_checkpoint(each / "run") for each in (one, other))) == []
    assert logged(one / "run") == logged(other / "run")
    assert files(one / "run" / "pictures") == files(other / "run" / "pictures") != {}
    first, second = (arrays_of(each / "samples") for each in (one, other))
    assert all((first[name] == second[name]).all() for name in first)


ENDS: dict[str, tuple[str, int]] = {
    "its end": ("print('out')", 0),
    "a code": ("import sys; sys.exit(3)", 3),
    "a sentence": ("import sys; sys.exit('a sentence')", 1),
    "an error": ("raise ValueError('a fault')", 1),
    "an interrupt": ("raise KeyboardInterrupt", -signal.SIGINT),
    "a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    "at once": ("import os; os._exit(7)", 7),
}


@pytest.mark.parametrize(("code", "expected"), ENDS.values(), ids=ENDS)
def test_it_is_told_how_a_program_ended(code: str, expected: int, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"import atexit\natexit.register(print, 'the end')\n{code}\n")
    done = completed(str(tmp_path / "program.py"))
    assert done.returncode == expected
    assert ("the end" in done.stdout) == (expected in (0, 1, 3, -signal.SIGINT))
    assert ("ValueError: a fault" in done.stderr) == ("fault" in code)
    assert ("a sentence" in done.stderr) == ("sentence" in code)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (subprocess.Popen.terminate, -signal.SIGTERM),
        (subprocess.Popen.kill, -signal.SIGKILL),
        (lambda process: process.send_signal(signal.SIGINT), -signal.SIGINT),
    ],
    ids=["terminate", "kill", "interrupt"],
)
def test_a_program_can_be_waited_for_and_ended(
    end: Callable[[subprocess.Popen[str]], None], expected: int, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(1000)\n")
    process = begin(str(tmp_path / "program.py"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    end(process)
    process.communicate(timeout=300)
    assert process.poll() == process.returncode == expected


def test_what_is_read_once_as_a_process_begins_cannot_be_changed() -> None:
    completed("-m", "this")  # the environment that libraries were imported in
    with pytest.raises(AssertionError, match=r"afresh: \['OMP_NUM_THREADS'\] are read once"):
        begin("-m", "this", environment={"OMP_NUM_THREADS": "2"})


def test_without_fork_a_process_begins_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "_AVAILABLE", False)
    with warm.process([sys.executable, "-c", "pass"], False) as process:
        assert type(process) is subprocess.Popen
