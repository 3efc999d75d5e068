"""`benchmark` measures a run in a temporary folder, and takes its steps apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from runs import TINY

from inkdrop.commands.benchmark import PARTS, REST, Shares, benchmark, counted, main
from inkdrop.randomness import Generators
from inkdrop.tasks import Task


@pytest.mark.slow
def test_the_parts_of_a_step_are_all_of_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = Generators._fill, Task._log
    found = benchmark([*TINY[:4], "data.batch_size=16"], warm=2, timed=6)
    assert (Generators._fill, Task._log) == before
    assert list(tmp_path.iterdir()) == []
    assert sum(found["shares"].values()) == pytest.approx(1)
    expected = {"forward and loss", "backward", "update", "averages", "random draws", "logging", "data", REST}
    assert expected <= set(found["shares"]) <= {*PARTS.values(), REST}
    assert found["samples_per_second"] == pytest.approx(16 / found["step"])
    assert 0 < found["operations_per_second"] < found["matrix_rate"]
    assert 0 < found["bytes_per_second"] < found["copy_rate"]
    assert found["memory"] > 2**27


def test_a_part_is_counted_without_the_parts_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    shares = Shares()
    shares.begin()
    with shares.profile("[Strategy]X.training_step"), counted(shares):
        Generators.from_seeds([1, 2]).normal([3])
    with shares.profile("something new"):
        pass
    shares.end()
    assert shares.seconds == {"forward and loss": 2, "random draws": 1, REST: 4}


@pytest.mark.slow
def test_the_page_says_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    main([*TINY[:4], "data.batch_size=16", "--warm", "2", "--steps", "3"])
    page = capsys.readouterr().out
    assert page.startswith("# digits\n")
    assert f"torch {torch.__version__}" in page
    assert "| backward | " in page
    with pytest.raises(SystemExit):
        main(["--steps", "1"])
