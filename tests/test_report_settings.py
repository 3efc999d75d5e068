"""Settings of a sweep: which options they are, what is said of their seeds, and what a sweep's record adds."""

from __future__ import annotations

import itertools
import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report import make_run, make_sweep
from scipy import stats

import inkdrop.__main__
from inkdrop.commands.report.curves import MAX_POINTS, over_seeds
from inkdrop.commands.report.leaderboard import short_names
from inkdrop.commands.report.page import report
from inkdrop.commands.report.statistics import front, importance, paired, summary, within_settings
from inkdrop.commands.sweep.trials import FINISHED, Trial
from inkdrop.files import read_json, read_yaml

METRIC = "fd_digits_350"
TRIAL = Trial("a", "1", ["x=1"], FINISHED, attempts=1).record()


def run(folder: Path, lr: float = 0.002, seed: int = 0, value: float | None = None, **config: Any) -> Path:
    """A run as the benchmark makes it, with another value of the metric, and other lines of `config.yaml`."""
    make_run(folder, lr, "cosine", "v", seed, rows=20)
    for old, new in config.items():
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(text.replace(old, new))
        assert text != (folder / "config.yaml").read_text()
    if value is not None:
        alter(folder, ("metrics", METRIC), value)
    return folder


def alter(folder: Path, path: tuple[str, ...], value: Any) -> None:
    content = read_json(folder / "result.json")
    node = content
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    (folder / "result.json").write_text(json.dumps(content))


def values(folder: Path, pattern: str) -> list[float]:
    return [read_json(file / "result.json")["metrics"][METRIC] for file in sorted(folder.glob(pattern))]


def test_a_setting_is_a_row_with_the_interval_over_its_seeds(tmp_path: Path) -> None:
    found = report(make_sweep(tmp_path, settings=4, seeds=3, rows=20))
    header, *rows = found.table()
    assert header[:6] == ["schedule", "prediction", "n", METRIC, f"{METRIC} / floor", "network calls"]
    assert sorted(row[2] for row in rows[:4]) == ["2", "3", "3", "3"]  # a trial has failed
    first = next(row for row in found.rows if row.label == "schedule=cosine, prediction=v")
    each = values(tmp_path, "*schedule=cosine,prediction=v,*")
    assert len(each) == 3
    low, high = stats.t.interval(0.95, 2, np.mean(each), stats.sem(each))
    assert first.summary(METRIC).mean == pytest.approx(np.mean(each))
    assert first.summary(METRIC).half == pytest.approx((high - low) / 2)
    assert first.ratio(METRIC) == pytest.approx(np.mean(each) / 1.25)
    assert ["cosine", "v", "3", f"{np.mean(each):.5g} ± {(high - low) / 2:.2g}"] in [row[:4] for row in rows]
    assert first.cost("samples per second") == pytest.approx(2500, rel=0.05)  # the median of its records


def test_a_value_that_is_copied_by_a_reference_is_no_setting_and_one_that_is_written_out_is(tmp_path: Path) -> None:
    for seed in (0, 1):
        run(tmp_path / "sweep" / str(seed), seed=seed)
    assert "data.seed" in {path for each in report(tmp_path).results for path in each.settings}
    assert [len(row.runs) for row in report(tmp_path).rows] == [2]
    assert report(tmp_path).settings.columns == {}
    for seed in (0, 1):
        shutil.rmtree(tmp_path / "sweep" / str(seed))
        run(tmp_path / "sweep" / str(seed), seed=seed, **{"'${seed}', num": f"{seed + 5}, num"})
    assert [len(row.runs) for row in report(tmp_path).rows] == [1, 1]
    assert report(tmp_path).settings.columns == {"data.seed": "seed"}


@pytest.mark.parametrize(
    ("old", "new", "is_setting"),
    [
        ("num_workers: 0", "num_workers: 7", False),
        ("name: digits", "name: mine", False),
        ("output_dir: runs", "output_dir: else", False),
        ("objective: null", "objective: validation/loss", False),
        ("devices: 1", "devices: 2", False),
        ("max_steps: 2000", "max_steps: 3000", True),
        ("AdamW", "SGD", True),
    ],
)
def test_options_that_change_no_result_are_no_setting(old: str, new: str, is_setting: bool, tmp_path: Path) -> None:
    run(tmp_path / "a", seed=1, **{"num_workers: 1": "num_workers: 0"})
    run(tmp_path / "b", seed=0, **{old: new})
    assert sorted(len(row.runs) for row in report(tmp_path).rows) == ([1, 1] if is_setting else [2])


def test_two_runs_of_one_configuration_count_once(tmp_path: Path) -> None:
    for seed, value in enumerate((1.0, 3.0)):
        run(tmp_path / f"a{seed}", seed=seed, value=value)
    shutil.copytree(tmp_path / "a1", tmp_path / "again")
    alter(tmp_path / "again", ("metrics", "other_350"), 7.0)
    alter(tmp_path / "again", ("protocol", "metrics", "other_350"), {"hash": "1"})
    found = report(tmp_path)
    (row,) = found.rows
    assert (row.summary(METRIC).n, row.summary(METRIC).mean) == (2, 2.0)
    assert row.summary("other_350").mean == 7.0  # a value that only the repetition has is not lost
    assert found.settings.repeats == [("again", "a1")]
    assert "again repeats a1 and is not counted." in found.markdown()


def test_differences_are_paired_over_equal_seeds(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    shared, own = chance.normal(0, 1, 6), chance.normal(0, 0.02, (3, 6))
    for number, (shift, row) in enumerate(zip((0.0, 0.1, 0.001), own, strict=True)):
        for seed in range(6):
            run(tmp_path / f"{number}-{seed}", 0.001 * (number + 1), seed, float(10 + shared[seed] + shift + row[seed]))
    found = report(tmp_path)
    best, named = found.best(METRIC), {row.label: each for row, each in found.differences(METRIC)}
    assert best.label == "lr=0.001"
    for label in ("lr=0.002", "lr=0.003"):
        (row,) = [each for each in found.rows if each.label == label]
        test = stats.ttest_rel([*row.by_seed(METRIC).values()], [*best.by_seed(METRIC).values()])
        low, high = test.confidence_interval()
        assert named[label].mean == pytest.approx((low + high) / 2)
        assert named[label].half == pytest.approx((high - low) / 2)
    lines = found.markdown().splitlines()
    assert next(line for line in lines if line.startswith("| lr=0.002 | 6 |")).endswith("| differs |")
    assert next(line for line in lines if line.startswith("| lr=0.003 | 6 |")).endswith("| cannot be told apart |")
    assert all(row.summary(METRIC).half > 0.2 for row in found.rows)  # by which no two would be told apart


def test_seeds_by_which_the_best_are_confirmed_have_their_own_column(tmp_path: Path) -> None:
    for number, value in enumerate((1.0, 2.0, 3.0)):
        for seed in (0, 1):
            run(tmp_path / f"{number}-{seed}", 0.1 * (number + 1), seed, value + seed)
    assert report(tmp_path).fresh == {}
    (tmp_path / "2-1" / "result.json").unlink()  # a seed that only one setting lacks is no fresh one
    assert report(tmp_path).fresh == {}
    for seed, value in ((1000, 5.0), (1001, 7.0)):
        run(tmp_path / f"0-{seed}", 0.1, seed, value)
    found = report(tmp_path)
    assert found.fresh == {"lr=0.1": summary([5.0, 7.0])}
    header, *rows = found.table()
    assert header[-1] == f"{METRIC} (fresh seeds)"
    assert {row[0]: row[-1] for row in rows} == {
        "0.1": "6 ± 13",
        "0.2": "",
        "0.30000000000000004": "",
        **dict.fromkeys(("floor", "baseline", "protocol"), ""),
    }
    assert {len(row) for row in rows} == {len(header)}


def test_seeds_that_differ_in_each_setting_are_not_fresh(tmp_path: Path) -> None:
    for number in range(4):
        run(tmp_path / str(number), 0.1 * (number + 1), seed=number)
    assert report(tmp_path).fresh == {}


def test_an_option_under_its_earlier_name_is_the_same_setting(tmp_path: Path) -> None:
    for seed, name in enumerate(("clip", "static_threshold")):
        guide = f"guidance: {{{name}: {{low: -1}}}}\nobjective: null"
        run(tmp_path / str(seed), seed=seed, **{"objective: null": guide})
    assert [len(row.runs) for row in report(tmp_path).rows] == [2]


def test_seeds_that_only_one_setting_has_are_not_compared() -> None:
    assert paired({0: 1.0, 1: 2.0, 5: 9.0}, {0: 2.0, 1: 3.0, 7: 0.0}) == summary([1.0, 1.0])
    assert paired({0: 1.0}, {1: 2.0}).n == 0
    assert summary([1e308, 1e308]).mean == math.inf
    assert summary([]).n == 0


def test_importance_is_the_share_of_the_variance() -> None:
    grid = [*itertools.product("abc", "xy", range(4))]
    options = {"first": [each[0] for each in grid], "second": [each[1] for each in grid]}
    alone = importance(options, [float("abc".index(first)) for first, _, _ in grid], higher=False)
    assert (alone[0].option, alone[0].best) == ("first", "a")
    assert {each.option: round(each.share or 0, 9) for each in alone} == {"first": 1.0, "second": 0.0}
    assert importance(options, [float("abc".index(each[0])) for each in grid], higher=True)[0].best == "c"
    both = importance(options, [2.0 * "xy".index(b) + 0.1 * "abc".index(a) for a, b, _ in grid], higher=False)
    assert [each.option for each in both] == ["second", "first"]
    assert sum(each.share or 0 for each in both) == pytest.approx(1, abs=0.1)
    diverged = [math.inf if a == "c" else float("abc".index(a)) for a, _, _ in grid]
    assert {each.option: round(each.share or 0, 9) for each in importance(options, diverged, False)}["first"] == 1.0


def test_an_option_of_many_values_is_not_important_by_their_number() -> None:
    chance = random.Random(0)
    shares = []
    for _ in range(40):
        levels = [str(chance.uniform(0, 1)) for _ in range(30)]
        (found,) = importance({"x": levels}, [chance.random() for _ in levels], higher=False)
        shares.append(found.share or 0)
    assert np.mean(shares) < 0.1
    levels = [str(i) for i in range(30)]
    (found,) = importance({"x": levels}, [float(each) for each in levels], higher=False)
    assert (found.share or 0) > 0.8
    assert found.best == "0 to 6"


def test_the_share_of_the_seeds_is_what_settings_do_not_explain() -> None:
    labels = [setting for setting in "abcd" for _ in range(5)]
    assert within_settings(labels, [float("abcd".index(each)) for each in labels]) == 0
    chance = random.Random(1)
    assert (within_settings(labels, [chance.random() for _ in labels]) or 0) > 0.6
    assert within_settings("abc", [1.0, 2.0, 3.0]) is None


@pytest.mark.parametrize("higher", [False, True])
def test_the_front_is_that_of_all_pairs(higher: bool) -> None:
    chance = random.Random(3)
    sign = -1 if higher else 1
    costs = [float(chance.randrange(20)) for _ in range(60)]
    points = [(cost, sign * (20 - cost + chance.randrange(6))) for cost in costs]
    points += [(math.nan, 0.0), (0.0, math.nan)]

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            a <= point[0] and sign * b <= sign * point[1] and (a, b) != point
            for a, b in points
            if math.isfinite(a) and math.isfinite(b)
        )

    best = {point for point in points if all(map(math.isfinite, point)) and not beaten(point)}
    assert {points[i] for i in front(points, higher)} == best
    assert len(best) > 2


def test_curves_are_mean_and_range_over_seeds_and_of_few_points() -> None:
    curve = over_seeds([{0: 1.0, 10: 2.0}, {0: 3.0, 10: 6.0, 20: 5.0}])
    assert curve is not None
    assert (curve.steps, curve.mean) == ([0, 10, 20], [2.0, 4.0, 5.0])
    assert (curve.low, curve.high) == ([1.0, 2.0, 5.0], [3.0, 6.0, 5.0])
    long = over_seeds([{step: float(step) for step in range(1, 10 * MAX_POINTS + 1)}])
    assert long is not None
    assert len(long.steps) == MAX_POINTS
    assert long.steps[-1] == 10 * MAX_POINTS
    assert np.allclose(np.array(long.steps) - long.mean, 4.5)  # the middle of ten steps
    assert over_seeds([]) is None


def test_a_sweep_names_failed_and_pruned_trials_with_the_reason(tmp_path: Path) -> None:
    make_sweep(tmp_path, settings=2, seeds=2, rows=20)
    content = read_json(tmp_path / "sweep.json")
    refused = {**TRIAL, "name": "lr=-1", "overrides": ["optimizer.lr=-1"], "state": "refused", "steps": 0}
    content["trials"].append({**refused, "exit_code": 2, "message": "first line\nerror: optimizer.lr=-1 is below 0"})
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    shown = report(tmp_path).markdown()
    failed = "lr=0.001,schedule=cosine,prediction=v,seed=1"
    assert f"| {failed} | failed | error: not finite: the loss of step 12; exit code 5; 12 steps |" in shown
    assert "| lr=0.1 | pruned | worse than the median; 400 steps |" in shown
    assert "| lr=-1 | refused | error: optimizer.lr=-1 is below 0; exit code 2 |" in shown
    make_run(tmp_path / failed, 0.001, "cosine", "v", 1, rows=20)  # what a failed trial has left is not compared
    assert report(tmp_path).markdown() == shown
    assert [len(row.runs) for row in report(tmp_path, without=[tmp_path / f"{failed[:-1]}0"]).rows] == [2]


def test_a_run_without_a_result_is_named(tmp_path: Path) -> None:
    run(tmp_path / "ended")
    (run(tmp_path / "killed", seed=1) / "result.json").unlink()
    assert "| killed | unfinished | it has no result.json |" in report(tmp_path).markdown()
    shutil.rmtree(tmp_path / "ended")
    with pytest.raises(ValueError, match="has no result yet; its trials:\n  killed: unfinished"):
        report(tmp_path)


def test_the_objective_ranks_and_higher_is_better_where_the_protocol_says_so(tmp_path: Path) -> None:
    for number, value in enumerate((1.0, 2.0)):
        made = run(tmp_path / str(number), 0.1 * (number + 1), value=value)
        alter(made, ("metrics", "precision_350"), value)
        alter(made, ("protocol", "metrics", "precision_350"), {"hash": "1", "better": "higher"})
        alter(made, ("metrics", "validation/loss"), 5 - value)
    assert [row.label for row in report(tmp_path).rows] == ["lr=0.1", "lr=0.2"]
    assert "validation/loss" not in report(tmp_path).metrics
    assert [row.label for row in report(tmp_path, by="precision_350").rows] == ["lr=0.2", "lr=0.1"]
    for file in tmp_path.glob("*/config.yaml"):
        file.write_text(file.read_text().replace("objective: null", "objective: validation/loss"))
    found = report(tmp_path)
    assert found.metrics[0] == "validation/loss"
    assert [row.label for row in found.rows] == ["lr=0.2", "lr=0.1"]
    for file in tmp_path.glob("*/config.yaml"):
        text = file.read_text().replace("objective: validation/loss", "objective: [-validation/loss, precision_350]")
        file.write_text(text)
    found = report(tmp_path)
    assert found.metrics == ["validation/loss", "precision_350", METRIC]
    assert [row.label for row in found.rows] == ["lr=0.1", "lr=0.2"]
    with pytest.raises(ValueError, match=f"--metric nonsense is not measured; available: {METRIC}, "):
        report(tmp_path, by="nonsense")


def test_several_folders_are_one_report_and_differing_code_is_named(tmp_path: Path) -> None:
    run(tmp_path / "a" / "1", 0.1)
    alter(run(tmp_path / "b" / "1", 0.2), ("git_commit",), "f" * 40)
    found = report([tmp_path / "a", tmp_path / "b"])
    assert sorted(each.name for each in found.results) == ["a/1", "b/1"]
    assert f"The results differ in git commit: 77ee2275e804401c66da484feae1610c3d00a07e (1), {'f' * 40} (1)" in (
        found.markdown()
    )
    assert [len(values) for values in found.facts.values()] == [1, 1, 2, 1]
    assert len(report([tmp_path, tmp_path / "b"]).results) == 2  # each folder is read once


def test_what_sweeps_do_not_vary_themselves_is_shown_where_it_distinguishes(tmp_path: Path) -> None:
    for name, size in (("small", 32), ("large", 64)):
        folder = make_sweep(tmp_path / name, settings=2, seeds=2, rows=20)
        for file in folder.glob("*/config.yaml"):
            file.write_text(file.read_text().replace("base_channels: 32", f"base_channels: {size}"))
    assert [*report(tmp_path / "small").settings.columns.values()] == ["prediction"]
    found = report(tmp_path)
    assert [*found.settings.columns.values()] == ["prediction", "base_channels"]
    assert sorted(len(row.runs) for row in found.rows) == [1, 1, 2, 2]


def test_names_of_options_are_as_short_as_they_differ() -> None:
    assert short_names(["optimizer.lr", "codec.lr", "seed", "lr.x"]) == {
        "optimizer.lr": "optimizer.lr",
        "codec.lr": "codec.lr",
        "seed": "seed",
        "lr.x": "x",
    }


BROKEN: dict[str, tuple[dict[str, Any] | str, str]] = {
    "text": ("{", "it is not JSON"),
    "later": ({"version": 2}, "a newer version of inkdrop wrote it"),
    "trials": ({"trials": {}}, "trials"),
    "trial": ({"trials": [3]}, "trials.0"),
    "elsewhere": ({"trials": [{**TRIAL, "name": "../a"}]}, "is not the name of a folder"),
    "state": ({"trials": [{**TRIAL, "state": "odd"}]}, "state"),
    "overrides": ({"trials": [{**TRIAL, "overrides": [1]}]}, "overrides.0"),
    "message": ({"trials": [{**TRIAL, "message": 1}]}, "message"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_malformed_record_of_a_sweep_is_named_and_hides_no_result(
    content: dict[str, Any] | str, message: str, tmp_path: Path
) -> None:
    run(tmp_path / "a")
    file = tmp_path / "sweep.json"
    whole: dict[str, Any] = {"version": 1, "command": "train", "objective": None, "trials": []}
    file.write_text(content if isinstance(content, str) else json.dumps({**whole, **content}))
    found = report(tmp_path)
    assert len(found.results) == 1
    (named,) = found.unreadable
    assert named.startswith(str(file))
    assert message in named


def test_names_of_trials_do_nothing_where_they_are_shown(tmp_path: Path) -> None:
    run(tmp_path / "a")
    names = ["\x1b[2J", "| x |", "<b>", "=1+1"]
    trials = [{**TRIAL, "name": name, "state": "pruned", "overrides": [f"{name}={name}"]} for name in names]
    content = {"version": 1, "command": "train", "objective": None, "trials": trials}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    found = report(tmp_path)
    assert [each.name for each in found.results] == ["a"]
    assert len(found.trials) == len(names)
    text = found.markdown()
    assert all(line.isprintable() for line in text.splitlines())
    assert r"| \| x \| | pruned |" in text
    assert r"| \<b\> |" in text


@pytest.mark.parametrize("content", ["{", "a: !!python/object/apply:os.system [x]", "- 1", "a: &a [*a]", "x" * 2**21])
def test_a_malformed_configuration_is_named_and_hides_no_result(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "good")
    (run(tmp_path / "bad", 0.3) / "config.yaml").write_text(content)
    monkeypatch.setattr(sys, "argv", ["inkdrop", "report", str(tmp_path), "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        inkdrop.__main__.main()
    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'bad' / 'config.yaml'} cannot be read: ")
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_reading_needs_no_torch(tmp_path: Path) -> None:
    import subprocess

    run(tmp_path / "a")
    code = "import sys; from inkdrop.commands.report import main; main([sys.argv[1]]); "
    code += "print(sorted({'torch', 'lightning', 'hydra', 'wandb'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert read_yaml(tmp_path / "a" / "config.yaml")["optimizer"]["lr"] == 0.002
