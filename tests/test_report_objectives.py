"""The report on a search with several objectives: their Pareto front, as the search itself has it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import optuna
import pytest
from report import FLAGS, make_run

from inkdrop.commands.report.html import content
from inkdrop.commands.report.page import Report, report
from inkdrop.commands.report.statistics import nondominated
from inkdrop.files import read_json

METRIC = "fd_digits_350"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
# A learning rate, the value to be low and the value to be high; "lr=0.3" and "lr=0.4" are worse than others.
VALUES = [(0.1, 1.0, 1.0), (0.2, 2.0, 3.0), (0.3, 2.5, 2.5), (0.4, 2.0, 2.0), (0.5, 4.0, 4.0), (0.6, 9.0, float("nan"))]


def search(folder: Path, objectives: str) -> Report:
    for lr, low, high in VALUES:
        made = folder / f"lr={lr}"
        make_run(made, lr, "cosine", "v", 0, rows=5)
        result = read_json(made / "result.json")
        result["metrics"] |= {METRIC: low, "precision_350": high}
        result["protocol"]["metrics"]["precision_350"] = {"hash": "1", "better": "higher"}
        (made / "result.json").write_text(json.dumps(result))
        text = (made / "config.yaml").read_text()
        (made / "config.yaml").write_text(text.replace("objective: null", f"objective: {objectives}"))
    return report(folder)


@pytest.mark.parametrize("highest", [*itertools.product([False, True], repeat=3)])
def test_a_front_is_that_of_optuna(highest: tuple[bool, ...]) -> None:
    points = [[(7 * i) % 5, (3 * i * i) % 7, float(i % 4)] for i in range(30)]
    study = optuna.create_study(directions=["maximize" if each else "minimize" for each in highest])
    for point in points:
        study.add_trial(optuna.trial.create_trial(values=point))
    assert nondominated([*points, [0.0, float("nan"), 0.0]], highest) == [each.number for each in study.best_trials]


def test_several_objectives_end_with_their_front(tmp_path: Path) -> None:
    found = search(tmp_path, f"[{METRIC}, -precision_350]")
    assert found.objectives == [METRIC, "precision_350"]
    front = ["lr=0.1", "lr=0.2", "lr=0.5"]
    assert [row.label for row in found.best_in(found.objectives)] == front
    text = found.markdown()
    part = text[text.index("Pareto front of") :].split("\n\n")
    assert part[0] == "Pareto front of fd_digits_350 and precision_350, 3 of 6 settings:"
    assert [line.split(" | ")[0] for line in part[1].splitlines()[2:]] == [f"| lr={lr}" for lr in (0.1, 0.2, 0.5)]
    shown = content(found, {})
    assert [shown["rows"][place]["id"] for place in shown["best"]] == front
    assert [shown["rows"][place]["id"] for place in shown["fronts"][METRIC]["precision_350"]] == front


def test_one_objective_has_no_front_of_objectives(tmp_path: Path) -> None:
    found = search(tmp_path, METRIC)
    assert not re.search("Pareto front of .* and ", found.markdown())
    assert content(found, {})["objectives"] == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
def test_a_browser_shows_the_front(tmp_path: Path) -> None:
    search(tmp_path / "runs", f"[{METRIC}, -precision_350]").write(tmp_path / "runs")
    options = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    page = f"file://{tmp_path / 'runs' / 'report.html'}#cost=precision_350"
    text = subprocess.run([str(BROWSER), *options, page], capture_output=True, text=True, check=True).stdout
    table = text[text.index('<div id="front">') : text.index('id="curves"')]
    assert re.findall(r"lr=[\d.]+", table) == ["lr=0.1", "lr=0.2", "lr=0.5"]
    against = text[text.index("Quality against cost") :]
    assert '<option value="precision_350">' in against
    assert "good in both" in against
