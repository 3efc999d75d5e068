"""The table of a sweep shows how long a trial has been running."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from inkdrop.commands.sweep import main
from inkdrop.commands.sweep.pool import COMMAND
from inkdrop.commands.sweep.progress import Display, seconds_of, table
from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.trials import FINISHED, RUNNING, WAITING, Trial


def made(folder: Path, name: str, state: str, seconds: float, ago: float | None) -> Trial:
    """A trial whose latest attempt began so many seconds ago."""
    trial = Trial(name, name, [], state, attempts=1, max_steps=4, seconds=seconds)
    if ago is not None:
        (folder / name).mkdir()
        (folder / name / COMMAND).write_text("python train.py\n")
        os.utime(folder / name / COMMAND, (time.time() - ago,) * 2)
    return trial


def shown(drawn: object) -> dict[str, str]:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(drawn)
    rows = [line for line in captured.get().splitlines() if line.startswith("│")]
    lines = [[cell.strip() for cell in line.strip()[1:-1].split("│")] for line in rows]
    return {line[0]: line[-1] for line in lines if len(line) > 3}


def test_a_running_trial_shows_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        made(tmp_path, "first", RUNNING, 0.0, 600.0),
        made(tmp_path, "again", RUNNING, 1200.0, 600.0),  # its second attempt
        made(tmp_path, "ahead", RUNNING, 7.0, -600.0),  # the clock of another machine is ahead
        made(tmp_path, "gone", RUNNING, 8.0, None),
        made(tmp_path, "finished", FINISHED, 61.0, 9000.0),
        made(tmp_path, "waiting", WAITING, 0.0, 9000.0),
    ]
    expected = {"first": "10 min", "again": "30 min", "ahead": "7 s", "gone": "8 s", "finished": "1 min", "waiting": ""}
    assert shown(table(tmp_path, trials, 99, "sweep")) == expected
    assert shown(Display(tmp_path, trials, [])._table()).items() <= expected.items()
    assert [each.seconds for each in trials] == [0.0, 1200.0, 7.0, 8.0, 61.0, 0.0]  # what the record adds to
    Record(tmp_path).update(*trials)
    main([str(tmp_path)])
    out = capsys.readouterr().out
    assert all(any(name in line and time in line for line in out.splitlines()) for name, time in expected.items())


def test_the_time_grows_while_a_trial_runs(tmp_path: Path) -> None:
    trial = made(tmp_path, "now", RUNNING, 5.0, 0.0)
    before = seconds_of(tmp_path, trial)
    time.sleep(0.05)
    assert 5.0 <= before < seconds_of(tmp_path, trial) < 15.0
