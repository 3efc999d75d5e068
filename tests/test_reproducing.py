"""Recipes: the tests behind their verdicts, what a verdict says, what it refuses, and the command from end to end."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import ROOT, begin, completed
from generated import choices
from runs import configuration, run
from scipy import stats
from swept import waited_for

from inkdrop.commands.reproduce import main, seeds_of
from inkdrop.commands.reproduce.estimate import operations
from inkdrop.commands.reproduce.judging import FAILED, OPEN, PASSED, Judgement, judged
from inkdrop.commands.reproduce.page import page
from inkdrop.commands.reproduce.points import Points, plain, read_points, write_points
from inkdrop.commands.reproduce.recipe import Recipe, names, read_recipe
from inkdrop.commands.reproduce.recording import record
from inkdrop.commands.reproduce.runs import Runs, collected, pinned
from inkdrop.commands.reproduce.statistics import chance, smallest_change, student, welch
from inkdrop.commands.reproduce.verdicts import Target, against_ourselves, against_paper
from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.trials import FAILED as TRIAL_FAILED
from inkdrop.commands.sweep.trials import FINISHED, Trial
from inkdrop.configuration import build
from inkdrop.configuration.compose import resolved
from inkdrop.errors import ConfigurationError, UnreadableError

RNG = np.random.default_rng(0)
METRIC = "fd_raw_60"
TINY = f"""# @package _global_
# A recipe that trains in seconds.
defaults:
  - moons
name: tiny
data: {{num_points: 300, batch_size: 50}}
network: {{width: 8, num_blocks: 1}}
trainer: {{max_steps: 4, val_check_interval: 4, log_every_n_steps: 2}}
callbacks: {{pictures: null, loss_by_noise_level: null}}
evaluation: {{num_samples: 60}}
metric: {{frechet: {{min_samples: 2}}}}
baseline:
  source: {{paper: "arXiv 0000.00000", place: "table 1"}}
  targets:
    {METRIC}: {{value: 1.0, deviation: 0.1, runs: 10}}
  seeds: [0, 1, 2, 3, 4]
"""
VALUES = [0.9, 0.95, 1.0, 1.05, 1.1]


def test_the_tests_are_those_of_scipy() -> None:
    ours, stored = RNG.normal(1, 0.5, 5), RNG.normal(1.4, 0.4, 20)
    p, half = welch(ours, 1.4, 0.4, 20)
    theirs = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), 5, 1.4, 0.4, 20, equal_var=False)
    again = stats.ttest_ind_from_stats(ours.mean() - half, ours.std(ddof=1), 5, ours.mean(), 0.4, 20, equal_var=False)
    assert p == pytest.approx(theirs.pvalue)
    assert again.pvalue == pytest.approx(0.05)  # at the end of the interval
    assert student(ours, stored) == pytest.approx(stats.ttest_ind(ours, stored).pvalue)


def test_the_smallest_changes_are_those_that_the_pages_print() -> None:
    found = [smallest_change(*counts) for counts in ((3, 10), (5, 20), (1, 20))]
    assert [round(each, 1) for each in found] == [2.0, 1.5, 3.0]


@pytest.mark.parametrize(("count", "stored"), [(5, 20), (3, 10), (1, 20)])
def test_false_alarms_and_power_are_as_stated(count: int, stored: int) -> None:
    """10,000 simulations each; the standard error of a share is at most half a percentage point."""
    change, trials = smallest_change(count, stored), 10_000
    ours, theirs = RNG.normal(size=(trials, count)), RNG.normal(size=(trials, stored))

    def alarms(shift: float) -> float:
        freedom = count + stored - 2
        parts = [((each - each.mean(1, keepdims=True)) ** 2).sum(1) for each in (ours, theirs)]
        scale = np.sqrt(sum(parts) / freedom * (1 / count + 1 / stored))
        t = (ours.mean(1) + shift - theirs.mean(1)) / scale
        first = student(list(ours[0] + shift), list(theirs[0]))
        assert first == pytest.approx(2 * stats.t.sf(abs(t[0]), freedom))  # what is simulated is what decides
        return float(np.mean(2 * stats.t.sf(np.abs(t), freedom) < 0.05))

    assert 0.03 < alarms(0.0) < 0.07
    assert alarms(change) == pytest.approx(chance(change, count, stored), abs=0.03)
    assert chance(change, count, stored) == pytest.approx(0.8, abs=1e-3)


def test_false_alarms_among_the_stored_points_are_as_stated() -> None:
    """Points in the plane are no normal law: 10,000 draws of 5 values and of 10 from the stored ones of a recipe."""
    for name in ("moons", "ring", "checkerboard"):
        points = read_points(read_recipe(name))
        assert points is not None
        for metric in points.values:
            law = points.values_of(metric)
            deviation = float(np.std(law))
            ours, theirs = (
                RNG.choice(law, (10_000, count)) + RNG.normal(0, 0.1 * deviation, (10_000, count)) for count in (5, 10)
            )  # a draw may have one value alone, without a spread
            p = stats.ttest_ind(ours, theirs, axis=1).pvalue
            assert student(list(ours[0]), list(theirs[0])) == pytest.approx(p[0])
            assert 0.03 < np.mean(p < 0.05) < 0.07
            seen = stats.ttest_ind(ours + smallest_change(5, 10) * deviation, theirs, axis=1).pvalue < 0.05
            assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_the_cost_of_a_recipe_without_points_is_that_which_its_runs_would_record() -> None:
    recipe = read_recipe("moons")
    points = read_points(recipe)
    assert points is not None
    assert operations(recipe) == points.flops


WITH_TOLERANCE = Target(value=1.0, tolerance=0.2, reason="one run")


@pytest.mark.parametrize(
    ("values", "target", "higher", "word", "says"),
    [
        (VALUES, Target(value=1.0, deviation=0.1, runs=10), False, "reproduced", "p = 1"),
        (VALUES, Target(value=0.5, deviation=0.05, runs=10), False, "missed", ""),
        (VALUES, Target(value=0.5, deviation=0.05, runs=10), True, "better", ""),
        (VALUES, Target(value=2.0, deviation=0.1, runs=10), False, "better", ""),
        (VALUES[:2], Target(value=1.0, deviation=0.1, runs=10), False, "undecided", "3 seeds would decide"),
        (VALUES[:1], Target(value=1.0, deviation=0.1, runs=10), False, "undecided", "2 seeds or more"),
        ([*VALUES, math.nan], Target(value=1.0, deviation=0.1, runs=10), False, "undecided", "not finite"),
        ([], Target(value=1.0, deviation=0.1, runs=10), False, "undecided", "no value"),
        (VALUES, WITH_TOLERANCE, False, "reproduced", "0.9018 to 1.098"),
        ([each + 1 for each in VALUES], WITH_TOLERANCE, False, "missed", ""),
        ([each + 1 for each in VALUES], WITH_TOLERANCE, True, "better", ""),
        ([each + 0.15 for each in VALUES], WITH_TOLERANCE, False, "undecided", "13 seeds would decide"),
    ],
)
def test_what_is_said_of_a_published_figure(
    values: list[float], target: Target, higher: bool, word: str, says: str
) -> None:
    verdict = against_paper(values, target, higher)
    assert verdict is not None
    assert verdict.word == word
    assert says in verdict.text


@pytest.mark.slow
def test_a_wide_spread_is_not_taken_for_agreement() -> None:
    """Five values that scatter ten times as much as the published ones differ from nothing."""
    wide = [1 + 10 * (each - 1) for each in VALUES]
    verdict = against_paper(wide, Target(value=1.0, deviation=0.1, runs=10), False)
    assert verdict is not None
    assert verdict.word == "undecided"
    assert "would decide" in verdict.text


def test_what_is_said_of_our_points() -> None:
    stored = list(np.linspace(0.8, 1.2, 20))
    words = [against_ourselves([each + shift for each in VALUES], stored, False) for shift in (0.0, 0.5, -0.5)]
    assert [each.word for each in words if each is not None] == ["same", "worse", "better"]
    assert words[0] is not None
    assert "a change of 1.5 deviations would be seen" in words[0].text
    assert against_ourselves(VALUES, [], False) is None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration folder with a recipe, and a sweep of five seeds, of which one was trained and measured."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "tiny.yaml").write_text(TINY)
    first = folder / "runs" / "tiny" / "seed=0"
    run(folder / "first", *SMALL, model=["experiment=moons", "logger=none"])
    shutil.copytree(folder / "first", first)
    result = json.loads((first / "result.json").read_text())
    config = (first / "config.yaml").read_text()
    trials = []
    for seed, value in enumerate(VALUES):
        other = first.with_name(f"seed={seed}")
        if seed:
            shutil.copytree(first, other)
        result["metrics"][METRIC] = value
        (other / "result.json").write_text(json.dumps({**result, "seed": seed}))
        (other / "config.yaml").write_text(config.replace("\nseed: 0", f"\nseed: {seed}"))
        trials.append(Trial(f"seed={seed}", str(seed), [f"seed={seed}"], state=FINISHED))
    Record(first.parent).update(*trials)
    return folder


# The options of TINY for a run within this process.
SMALL = [
    *(
        "name=tiny",
        "data.num_points=300",
        "data.batch_size=50",
        "network.width=8",
        "network.num_blocks=1",
        "trainer.max_steps=4",
    ),
    *("trainer.val_check_interval=4", "trainer.log_every_n_steps=2", "callbacks.pictures=null"),
    *("callbacks.loss_by_noise_level=null", "evaluation.num_samples=60", "metric.frechet.min_samples=2"),
]


@pytest.fixture
def place(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "own"))


def pinned_recipe(place: Path, *options: str, text: str = TINY) -> Recipe:
    """The recipe with what the runs have pinned in it."""
    (place / "experiment" / "tiny.yaml").write_text(text)
    runs = collected(read_recipe("tiny", str(place)), [0], place / "runs" / "tiny")
    (protocol,), (data,) = runs.protocols(), runs.fingerprints()
    facts = {"protocol": protocol, "data": data, "weights": runs.weights()}
    pins = "".join(f"  {name}: {value!r}\n" for name, value in facts.items())
    (place / "experiment" / "tiny.yaml").write_text(text + pins)
    return read_recipe("tiny", str(place), options)


def stored(recipe: Recipe, values: list[float]) -> Points:
    facts: dict[str, Any] = {"protocol": recipe.protocol, "data": recipe.data, "weights": recipe.weights}
    return Points(
        "tiny", "2026-12-01", None, {}, "2 CPU cores", 1, plain(recipe.options), **facts, higher=[],
        values={METRIC: {str(seed): value for seed, value in enumerate(values)}},
        floors={METRIC: 0.1}, seconds=[60.0], samples=100,
    )  # fmt: skip


POINTS = [float(each) for each in np.linspace(0.8, 1.2, 20)]


def verdict(place: Path, *options: str, text: str = TINY, points: list[float] | None = POINTS) -> Judgement:
    recipe = pinned_recipe(place, text=text)
    given = read_recipe("tiny", str(place), options)
    own = None if points is None else stored(recipe, points)
    seeds = recipe.seeds
    return judged(recipe, given, collected(given, seeds, place / "runs" / "tiny"), own, seeds=seeds)


@pytest.mark.slow
def test_a_recipe_that_holds_passes(place: Path) -> None:
    found = verdict(place)
    assert (found.word, found.exit_code, found.reasons) == ("reproduced", PASSED, [])
    line = found.text().splitlines()[1]
    assert line.startswith(f"  {METRIC} = 1 ± 0.079 (5 seeds); floor ")
    assert "; paper 1 ± 0.1 (10 runs): reproduced (difference" in line
    assert "; ourselves: same (1 ± 0.12 (20 seeds), p = 1; a change of 1.5 deviations would be seen)" in line
    assert json.loads(json.dumps(found.record()))["targets"][METRIC]["values"]["4"] == 1.1


def set_metric(place: Path, seed: int, value: float | None, name: str = METRIC) -> None:
    file = place / "runs" / "tiny" / f"seed={seed}" / "result.json"
    result = json.loads(file.read_text())
    result["metrics"].pop(METRIC)
    if value is not None:
        result["metrics"][name] = value
    file.write_text(json.dumps(result))


def of_another_metric(place: Path) -> None:
    """The square root under the same name."""
    for seed in range(5):
        file = place / "runs" / "tiny" / f"seed={seed}" / "result.json"
        result = json.loads(file.read_text())
        result["protocol"]["metrics"][METRIC]["metric"] = "FrechetDistanceRoot"
        file.write_text(json.dumps(result))


def failed_seed(place: Path) -> None:
    trial = Trial("seed=3", "3", ["seed=3"], state=TRIAL_FAILED, exit_code=5)
    Record(place / "runs" / "tiny").update(trial)


def other_data(place: Path) -> None:
    file = place / "runs" / "tiny" / "seed=1" / "result.json"
    result = json.loads(file.read_text())
    result["protocol"]["measurement"]["fingerprint"] = "0" * 64
    file.write_text(json.dumps(result))


def nothing(place: Path) -> None:
    pass


@pytest.mark.many
@pytest.mark.parametrize(
    ("change", "options", "text", "points", "code", "says"),
    [
        (nothing, ["optimizer.lr=2e-3"], TINY, POINTS, OPEN, "optimizer.lr=0.002 instead of 0.004"),
        (nothing, ["callbacks.ema=null"], TINY, POINTS, OPEN, "callbacks.ema.decays=nothing instead of [0.997]"),
        (nothing, ["evaluation.num_samples=30"], TINY, POINTS, OPEN, "evaluation.num_samples=30 instead of 60"),
        (of_another_metric, [], TINY, POINTS, OPEN, "the hash of the measurement is "),
        (nothing, [], TINY.replace("value: 1.0", "value: 0.5"), POINTS, FAILED, "missed (difference +0.5"),
        (nothing, [], TINY.replace("value: 1.0", "value: 2.0"), POINTS, OPEN, "better (difference -1"),
        (nothing, [f"baseline.targets.{METRIC}.value=0.9"], TINY, POINTS, OPEN, "published figures were changed"),
        (nothing, [], TINY, None, OPEN, "there are no points of our own: `inkdrop reproduce tiny seeds=20 --record`"),
        (nothing, [], TINY, [each / 2 for each in POINTS], FAILED, "ourselves: worse"),
        (lambda place: set_metric(place, 2, math.nan), [], TINY, POINTS, OPEN, "of seed 2 is not finite"),
        (lambda place: set_metric(place, 2, None), [], TINY, POINTS, OPEN, f"{METRIC} was not measured"),
        (failed_seed, [], TINY, POINTS, OPEN, "seed 3 has no result: its run failed with code 5"),
        (other_data, [], TINY, POINTS, OPEN, f"the fingerprint of the data is {'0' * 64}"),
        (nothing, [], TINY + "  differs: [\"another optimizer\"]\n", POINTS, OPEN, "near (difference"),
    ],
)  # fmt: skip
def test_what_does_not_pass_says_why(
    place: Path,
    change: Callable[[Path], None],
    options: list[str],
    text: str,
    points: list[float] | None,
    code: int,
    says: str,
) -> None:
    pinned_recipe(place)
    change(place)
    if change in (of_another_metric, other_data):  # what is pinned is that of the untouched runs
        recipe = read_recipe("tiny", str(place))
        runs = collected(recipe, recipe.seeds, place / "runs" / "tiny")
        found = judged(recipe, recipe, runs, stored(recipe, points or []), seeds=recipe.seeds)
    else:
        found = verdict(place, *options, text=text, points=points)
    assert found.exit_code == code
    assert says in found.text()


@pytest.mark.slow
def test_points_of_another_configuration_count_for_nothing(place: Path) -> None:
    recipe = pinned_recipe(place)
    other = replace(stored(recipe, POINTS), options={**recipe.options, "optimizer.lr": 1.0})
    found = judged(recipe, recipe, collected(recipe, recipe.seeds, place / "runs" / "tiny"), other)
    assert found.exit_code == OPEN
    assert "our own points are of another configuration" in found.text()


@pytest.mark.slow
def test_only_runs_that_comply_are_recorded_and_a_record_is_read_again(place: Path) -> None:
    recipe = pinned_recipe(place)
    runs = collected(recipe, recipe.seeds, place / "runs" / "tiny")
    file = record(recipe, judged(recipe, recipe, runs, None, seeds=recipe.seeds), runs)
    assert file == place / "baselines" / "tiny.json"
    points = read_points(recipe)
    assert points is not None
    assert points.values_of(METRIC) == VALUES
    assert points.fits(recipe)
    found = judged(recipe, recipe, runs, points, seeds=recipe.seeds)
    assert found.exit_code == OPEN
    assert found.reasons == ["our own points are of 5 seeds: 10 or more are needed, so record them with seeds=20"]
    given = read_recipe("tiny", str(place), ["optimizer.lr=1"])
    with pytest.raises(ConfigurationError, match=r"nothing is recorded: optimizer\.lr=1 instead of 0\.004"):
        record(recipe, judged(recipe, given, runs, None), runs)
    with pytest.raises(ConfigurationError, match="nothing is recorded: seed 5 has no result"):
        record(recipe, judged(recipe, recipe, Runs(failed={5: "it has not run"}), None, seeds=[5]), runs)
    file.write_text("{}")
    with pytest.raises(UnreadableError, match=r"tiny\.json has no points of a recipe: it lacks"):
        read_points(recipe)


def test_a_protocol_is_the_same_for_any_number_of_calls_and_not_for_another_sampler() -> None:
    def one(calls: int, sampler: str, samples: int = 10) -> str:
        sampling = {"sampler": sampler, "network_calls": calls}
        measured = {"fd": {"hash": str(calls), "metric": "F"}}
        record = {"measurement": {"num_samples": samples, "fingerprint": str(calls)}, "metrics": measured}
        return pinned({**record, "sampling": sampling, "variants": {"a": {"sampling": sampling}}})

    assert one(3, "ddim") == one(4, "ddim")
    assert len({one(3, "ddim"), one(3, "heun"), one(3, "ddim", 20)}) == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  targets: {}", "targets: dictionary should have at least 1 item"),
        (f"  targets: {{{METRIC}: {{value: 1.0}}}}", "needs deviation and runs, or tolerance and its reason"),
        (f"  targets: {{{METRIC}: {{value: 1.0, deviation: 0.1}}}}", "the number of runs of the deviation, is missing"),
        (f"  targets: {{{METRIC}: {{valeu: 1.0}}}}", "valeu is unknown: fields are value, deviation"),
        (f"  targets: {{{METRIC}: null}}\n  sources: x", "sources is unknown"),
        (f"  targets: {{{METRIC}: null}}\n  source: {{papre: x}}", "source.papre is unknown"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "experiment").mkdir()
    head = TINY.partition("  source:")[0]
    (tmp_path / "experiment" / "tiny.yaml").write_text(f"{head}{line}\n  seeds: [0]\n")
    with pytest.raises(ConfigurationError, match=r"the baseline of experiment=tiny is not valid: ") as error:
        read_recipe("tiny", str(tmp_path))
    assert says in str(error.value)


def test_an_experiment_without_baseline_is_no_recipe(place: Path) -> None:
    for name in ("moons_flwo", "mnist_small"):
        with pytest.raises(ConfigurationError):
            read_recipe(name)
    (place / "experiment" / "child.yaml").write_text("# @package _global_\n# x\ndefaults:\n  - tiny\nname: child\n")
    with pytest.raises(ConfigurationError, match="experiment=child has no baseline to be compared with"):
        read_recipe("child", str(place))
    assert names(str(place))[-1] == "tiny"
    found = read_recipe("tiny", options=[f"hydra.searchpath=[file://{place}]"])
    assert (found.folder, found.targets) == (place, read_recipe("tiny", str(place)).targets)


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_of(None, [7, 3]) == [7, 3]
    assert seeds_of("1", [7, 3]) == [7]
    assert seeds_of("4", [7, 3]) == [7, 3, 8, 9]
    assert seeds_of("[5,6,5]", [0]) == [5, 6]
    for text in ("0", "x", "[1,-2]", "-1"):
        with pytest.raises(ConfigurationError, match="must be a number such as 5"):
            seeds_of(text, [0])


@pytest.mark.slow
def test_the_page_is_what_recipes_and_points_say(place: Path) -> None:
    recipe = pinned_recipe(place)
    (place / "experiment" / "huge.yaml").write_text(f'{TINY}  needs: ["8 GPUs"]\n  weights: 1000\n')
    (place / "experiment" / "bare.yaml").write_text(TINY)
    write_points(recipe, stored(recipe, POINTS))
    rows = {line.split("|")[1].strip(" `"): line for line in page(str(place)).splitlines() if line.startswith("| `")}
    assert f"| `bare` | `{METRIC}` | 1 ± 0.1 (10 runs), arXiv 0000.00000 | not recorded |" in rows["bare"]
    assert rows["bare"].endswith(" operations (estimate) |")
    assert "| 1 ± 0.12 (20 seeds) | 0.1 | reproduced: difference" in rows["tiny"]
    assert "| 2026-12-01, 2 CPU cores | 1.0 min |" in rows["tiny"]
    assert rows["huge"].endswith("| arXiv 0000.00000, table 1 | 1,000 | not run: needs 8 GPUs |")


@pytest.mark.slow
def test_the_page_in_the_documentation_is_the_one_that_is_printed() -> None:
    assert (ROOT / "docs" / "baselines.md").read_text() == page()
    assert "## baselines" not in choices()


# In millions, as the papers or their code state them; what is not stated is compared with nothing.
PUBLISHED = {
    "adm_imagenet64": 296,
    "ddim": 35.7,
    "ddpm": 35.7,
    "dit_xl_2": 674,  # without the fixed positions and the table of labels, 1.4 million
    "edm2_l": 777.5,
    "edm2_m": 497.8,
    "edm2_s": 280.2,
    "edm2_xl": 1119.3,
    "edm2_xs": 124.7,
    "edm2_xxl": 1523.2,
    "edm_cifar10": 55.7,
    "score_sde_ve": 62.8,
    "score_sde_vp": 61.8,
}


@pytest.mark.parametrize("name", [each for each in names() if read_recipe(each).needs])
def test_recipes_that_are_not_run_have_the_published_number_of_weights(name: str) -> None:
    recipe = read_recipe(name)
    plain = resolved(configuration("train", f"experiment={name}", "output_dir=nowhere"))
    with torch.device("meta"):
        weights = sum(each.numel() for each in build(plain["network"]).parameters())
    assert recipe.weights in (None, weights)
    millions = PUBLISHED.get(name)
    assert millions is None or weights / 1e6 == pytest.approx(millions, abs=0.5 if isinstance(millions, int) else 0.05)
    assert read_points(recipe) is None
    assert recipe.source["paper"].startswith("arXiv ") if "paper" in recipe.source else recipe.source["code"]


@pytest.mark.slow
def test_recipes_that_are_run_are_pinned() -> None:
    run = [recipe for recipe in map(read_recipe, names()) if not recipe.needs]
    assert {"moons_flow", "moons_ot", "moons", "ring", "checkerboard", "digits"} <= {each.name for each in run}
    for recipe in run:
        assert recipe.protocol is not None
        assert recipe.data is not None
        assert recipe.weights is not None


@pytest.mark.slow
def test_the_command_finishes_what_was_killed_and_judges(place: Path) -> None:
    longer = TINY.replace("max_steps: 4", "max_steps: 120").replace(
        "pictures: null,", "checkpoint: {every: {steps: 10}},"
    )
    (place / "experiment" / "tiny.yaml").write_text(longer)
    folder = place / "runs" / "killed" / "tiny"
    words = [
        "-m",
        "inkdrop",
        "reproduce",
        "tiny",
        f"--config-dir={place}",
        "logger=none",
        f"output_dir={folder.parent}",
    ]
    with begin(*words, "seeds=2", cwd=place, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        waited_for(lambda: list(folder.glob("*/checkpoints/*.ckpt")))
        os.killpg(process.pid, signal.SIGKILL)
    assert len(list(folder.glob("*/result.json"))) < 2
    done = completed(*words, "seeds=3", cwd=place)
    assert done.returncode == OPEN, done.stderr
    assert "tiny: undecided" in done.stdout
    assert "baseline.protocol is not pinned: the runs have " in done.stdout
    assert "resumed from step" in "".join(file.read_text() for file in folder.glob("*/console.log"))
    written = json.loads((folder / "reproduction.json").read_text())
    assert sorted(written["targets"][METRIC]["values"]) == ["0", "1", "2"]
    asked = completed(*words, f"checkpoint={folder / 'seed=0'}", cwd=place)
    assert "(1 seed)" in asked.stdout
    assert "one seed has no spread" in asked.stdout


@pytest.mark.slow
def test_a_new_seed_of_points_in_the_plane_is_like_our_own_points(tmp_path: Path) -> None:
    """False alarms have a chance of 1%."""
    words = ["-m", "inkdrop", "reproduce", "moons", "seeds=[100]", "--level", "0.01", "logger=none"]
    done = completed(*words, f"output_dir={tmp_path}")
    assert done.returncode == PASSED, done.stdout
    assert "moons: same\n" in done.stdout


def test_a_recipe_that_needs_something_is_not_run(place: Path) -> None:
    (place / "experiment" / "tiny.yaml").write_text(TINY + "  needs: [weights, 8 GPUs]\n")
    done = completed("-m", "inkdrop", "reproduce", "tiny", f"--config-dir={place}", cwd=place)
    assert (done.returncode, done.stdout) == (OPEN, "tiny: not run: needs weights; 8 GPUs\n")
    assert not (place / "runs" / "reproduce").exists()


def test_what_a_recipe_needs_may_be_said_to_be_here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(recipe: Recipe, *arguments: Any) -> None:
        raise SystemExit(99)

    monkeypatch.setattr("inkdrop.commands.reproduce.runs.train", train)
    (place / "experiment" / "tiny.yaml").write_text(TINY + "  needs: [8 GPUs]\n")
    for options, code in (([], OPEN), (["baseline.needs=[]"], 99)):
        with pytest.raises(SystemExit) as error:
            main(["tiny", f"--config-dir={place}", *options])
        assert error.value.code == code
