"""A search: its space, what does not fit each other, and what is suggested, pruned, repeated and confirmed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from entry_scripts import Script
from runs import POINTS
from scripted import Scripted

from hydra_plugins.inkdrop_sweeps import SEARCH
from inkdrop.commands.sweep.objectives import Objective, objectives_of
from inkdrop.commands.sweep.outcome import best_of
from inkdrop.commands.sweep.planning import Plan
from inkdrop.commands.sweep.pool import Place, Pool
from inkdrop.commands.sweep.promoting import promote
from inkdrop.commands.sweep.record import Record, read_objectives, read_trials
from inkdrop.commands.sweep.recorded import Rows
from inkdrop.commands.sweep.searching import Search
from inkdrop.commands.sweep.space import read
from inkdrop.commands.sweep.starters import Job
from inkdrop.commands.sweep.study import refuse_misfits, trials_of
from inkdrop.commands.sweep.trials import FINISHED, PRUNED, Trial, name_of, split
from inkdrop.errors import ConfigurationError

LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def test_the_space_is_in_the_grammar_of_hydra() -> None:
    space = read(["experiment=moons", LR, "network.width=16,32", "a.b=range(1,9,2)", "c=int(interval(1,4))", "seed=3"])
    assert space.fixed == ["experiment=moons", "seed=3"]
    assert space.choices == {"network.width": ["16", "32"]}
    assert space.ranges == {
        "optimizer.lr": (1e-4, 1e-1, None, False),
        "a.b": (1.0, 7.0, 2, True),
        "c": (1.0, 4.0, 1, True),
    }
    assert space.log == {"optimizer.lr"}
    assert space.overrides({"network.width": "32", "optimizer.lr": 0.01, "a.b": 3, "c": 2}) == [
        *("experiment=moons", "seed=3", "network.width=32", "optimizer.lr=0.01", "a.b=3", "c=2"),
    ]
    assert not space.is_finite
    assert read(["a=range(0,1,0.25)", "b=x,y"]).grid() == {"b": ["x", "y"], "a": [0, 0.25, 0.5, 0.75]}
    assert read(["a=1,2", "a=5", "b=1,2"]).names == ["b"]  # the last one counts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["seed=1"], "a search needs options that vary"),
        (["a=tag(sqrt,interval(0,1))"], "unknown tag sqrt: available: log, int"),
        (["a=tag(log,interval(0,1))"], r"tag\(log,...\) needs an interval above 0"),
        (["a=tag(log,choice(1,2))"], r"tag\(log,...\) needs an interval above 0"),
        (["a=interval(2,1)"], "the end of an interval must not be below its start"),
        (["a=glob(*)"], "a search varies choice, range and interval"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(options: list[str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read(options, loader=SimpleNamespace(get_group_options=lambda *_, **__: ["x"]))


@pytest.mark.parametrize(
    ("options", "chosen", "objectives", "said"),
    [
        ([LR], {"sampler": "tpo"}, ["fd"], "hydra.sweeper.sampler=tpo: available: tpe, gp"),
        ([LR], {"pruner": "mean"}, ["fd"], "hydra.sweeper.pruner=mean: available: null, median"),
        ([LR], {"trials": 0}, ["fd"], "hydra.sweeper.trials=0 must be a number of at least 1"),
        ([LR], {"trials": None}, ["fd"], "a search needs an end"),
        ([LR], {}, [], "a search needs a metric: set objective=NAME"),
        ([LR], {"pruner": "median"}, ["fd", "seconds"], "pruner works for one objective"),
        ([LR], {"sampler": "grid"}, ["fd"], "an interval has no finite grid"),
        ([LR, "a=1,2"], {"sampler": "cmaes"}, ["fd"], "cmaes searches intervals and ranges"),
        ([LR], {"sampler": "cmaes"}, ["fd", "seconds"], "for one objective"),
        ([LR, "a=1,2"], {"sampler": "qmc"}, ["fd"], "qmc searches intervals and ranges"),
        ([LR], {"pruner": "wilcoxon"}, ["fd"], "wilcoxon compares seeds: set hydra.sweeper.replicates=3"),
        ([LR], {"pruner": "median", "replicates": 2}, ["fd"], "compares steps of one run"),
        ([LR], {"hours": 0}, ["fd"], "hydra.sweeper.hours=0 must be a number"),
    ],
)
def test_what_does_not_fit_each_other_is_refused(
    options: list[str], chosen: dict[str, Any], objectives: list[str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        refuse_misfits({**SEARCH, **chosen}, read(options), objectives)


def test_objectives_are_sought_in_their_direction() -> None:
    one, two = objectives_of(["fd", "-precision"])
    assert (one.direction, two.direction, two.name) == ("minimize", "maximize", "precision")
    result = {"protocol": {"metrics": {"precision": {"better": "higher"}}}}
    two.require_direction(result)
    with pytest.raises(ConfigurationError, match="write objective=-precision_5k@raw"):
        Objective("precision_5k@raw").require_direction(
            {"protocol": {"metrics": {"precision_5k": {"better": "higher"}}}}
        )
    with pytest.raises(ConfigurationError, match="objective=precision would search for the lowest value"):
        Objective("precision").require_direction(result)


class Toy:
    """A sweep whose runs are functions of their options: what `Search` needs of a `Sweep`."""

    def __init__(self, folder: Path, run: Callable[[Job, dict[str, float]], int], places: int = 1):
        self.folder, self.places = folder, places
        self.record, self.known = Record(folder, ["fd"]), {}
        self.known = self.record.trials()
        self.config = SimpleNamespace(seed=0)
        self.starter = Scripted([])
        self.values: list[dict[str, float]] = []

        def does(job: Job) -> None:
            chosen = dict(map(split, job.command[1:]))
            chosen = {key: float(value) for key, value in chosen.items() if key in ("x", "y", "seed")}
            self.values.append(chosen)
            self.starter.codes.append(run(job, chosen))

        self.starter.does = does

    def plan(self, combinations: Sequence[Sequence[str]], keys: Sequence[str]) -> Plan:
        trials = []
        for each in combinations:
            same = " ".join(sorted(each))
            taken = {known.name for known in self.known.values()}
            trials.append(
                self.known.get(same) or Trial(name_of(dict(map(split, each)), keys, taken, same), same, [*each])
            )
            self.known[same] = trials[-1]
        return Plan(trials, [each.identity for each in trials], {}, {})

    @contextmanager
    def pool(self, trials: list[Trial]) -> Iterator[Pool]:
        yield Pool(self.record, ["train.py"], [], self.starter, [Place()] * self.places)


def finish(job: Job, value: float) -> int:
    (job.log.parent / "result.json").write_text(json.dumps({"metrics": {"fd": value}, "steps": 4}))
    return 0


def parabola(job: Job, values: dict[str, float]) -> int:
    return finish(job, (values["x"] - 0.3) ** 2 + 0.01 * values.get("seed", 0))


def searched(
    folder: Path, options: Sequence[str] = ("x=interval(0.0,1.0)",), toy: Toy | None = None, **chosen: Any
) -> Search:
    toy = toy or Toy(folder, parabola)
    search = Search(toy, read(options), [Objective("fd")], {**SEARCH, "trials": 8, **chosen})  # type: ignore[arg-type]
    search.run()
    return search


def states(search: Search) -> list[str]:
    return [each.state.name for each in trials_of(search.study)]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "random"])
def test_a_search_finds_the_least_value(sampler: str, tmp_path: Path) -> None:
    search = searched(tmp_path, sampler=sampler, trials=12)
    assert states(search) == ["COMPLETE"] * 12
    best = best_of(search.study, search.objectives)[0]
    assert abs(best.params["x"] - 0.3) < 0.2
    assert best.values[0] == pytest.approx((best.params["x"] - 0.3) ** 2)
    assert f"| {best.number} | {best.params['x']:.4g} |" in (tmp_path / "search.md").read_text()
    assert len({each.params["x"] for each in trials_of(search.study)}) == 12


def test_the_same_seed_suggests_the_same(tmp_path: Path) -> None:
    values = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        (tmp_path / name).mkdir()
        values.append([each.params["x"] for each in trials_of(searched(tmp_path / name, seed=seed, trials=3).study)])
    assert values[0] == values[1] != values[2]


def test_a_search_that_is_repeated_only_adds_what_is_missing(tmp_path: Path) -> None:
    first = [each.params for each in trials_of(searched(tmp_path, trials=4).study)]
    again = Toy(tmp_path, parabola)
    assert len(trials_of(searched(tmp_path, toy=again, trials=4).study)) == 4
    assert again.values == []
    more = searched(tmp_path, toy=Toy(tmp_path, parabola), trials=9)
    assert len({each.params["x"] for each in trials_of(more.study)}) == 9
    assert [each.params for each in trials_of(more.study)][:4] == first


def test_a_killed_search_goes_on_with_the_trials_that_ran(tmp_path: Path) -> None:
    def killed(job: Job, values: dict[str, float]) -> int:
        if len(toy.values) == 3:
            raise KeyboardInterrupt
        return parabola(job, values)

    toy = Toy(tmp_path, killed)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, toy=toy, trials=5)
    left = toy.values[-1]["x"]
    again = Toy(tmp_path, parabola)
    search = searched(tmp_path, toy=again, trials=5)
    assert states(search) == ["COMPLETE"] * 5
    assert again.values[0]["x"] == left
    assert len({each.params["x"] for each in trials_of(search.study)}) == 5


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    """The second one starts while a trial of the first one runs, and none is run twice."""
    started: list[Search] = []

    def run(job: Job, values: dict[str, float]) -> int:
        if not started:
            started.append(searched(tmp_path, toy=second, trials=3))
        return parabola(job, values)

    def other(job: Job, values: dict[str, float]) -> int:
        return parabola(job, values)

    second = Toy(tmp_path, other)
    first = Toy(tmp_path, run)
    # The trial of the first process is claimed, so the second one waits for it: it must not wait for ever here.
    second_pool = second.pool

    @contextmanager
    def without_waiting(trials: list[Trial]) -> Iterator[Pool]:
        with second_pool(trials) as pool:
            pool.add = lambda *some: Pool.add(pool, *(each for each in some if not (tmp_path / each.name).exists()))  # type: ignore[method-assign]
            yield pool

    second.pool = without_waiting  # type: ignore[method-assign]
    search = searched(tmp_path, toy=first, trials=6)
    values = [each["x"] for each in [*first.values, *second.values]]
    assert len(set(values)) == len(values)
    assert len({each.params["x"] for each in trials_of(search.study)}) == len(trials_of(search.study)) == 6


def test_a_grid_is_run_once_each(tmp_path: Path) -> None:
    toy = Toy(tmp_path, parabola)
    search = searched(tmp_path, ["x=0.1,0.3,0.5", "y=range(0,2)"], toy=toy, sampler="grid", trials=4)
    assert sorted((each["x"], each["y"]) for each in toy.values) == [(x, y) for x in (0.1, 0.3, 0.5) for y in (0, 1)]
    assert states(search) == ["COMPLETE"] * 6


def test_a_small_space_ends_the_search(tmp_path: Path) -> None:
    toy = Toy(tmp_path, parabola)
    search = searched(tmp_path, ["x=0.1,0.3"], toy=toy, sampler="random", trials=20)
    assert sorted(each["x"] for each in toy.values) == [0.1, 0.3]
    assert states(search) == ["COMPLETE"] * 2


def test_a_failed_trial_is_told_and_stops_nothing(tmp_path: Path) -> None:
    toy = Toy(tmp_path, lambda job, values: parabola(job, values) if values["x"] < 0.5 else 5)
    search = searched(tmp_path, toy=toy, sampler="random", trials=10)
    assert set(states(search)) == {"COMPLETE", "FAIL"}
    assert len(states(search)) == 10


def test_replicates_are_seeds_whose_mean_counts(tmp_path: Path) -> None:
    toy = Toy(tmp_path, parabola, places=2)
    search = searched(tmp_path, toy=toy, trials=2, replicates=3, confirm=2)
    first = trials_of(search.study)[0]
    assert first.values[0] == pytest.approx((first.params["x"] - 0.3) ** 2 + 0.01)
    seeds = [each["seed"] for each in toy.values]
    assert sorted(seeds) == [0, 0, 1, 1, 2, 2, 1000, 1000, 1001, 1001]
    best = best_of(search.study, search.objectives)[0]
    fresh = (best.params["x"] - 0.3) ** 2 + 10.005
    assert f"| {best.values[0]:.5g} | {fresh:.5g} ± " in (tmp_path / "search.md").read_text()


def test_seeds_are_left_out_where_the_rest_is_clear(tmp_path: Path) -> None:
    """Wilcoxon's test ends a trial that is worse for seed after seed."""
    toy = Toy(tmp_path, lambda job, values: finish(job, (0.0 if len(toy.values) <= 10 else 5.0) + 0.1 * values["seed"]))
    search = searched(tmp_path, toy=toy, trials=2, replicates=10, pruner="wilcoxon")
    assert states(search) == ["COMPLETE", "PRUNED"]
    assert 10 < len(toy.values) < 20


def test_a_hopeless_trial_is_pruned_by_what_it_records(tmp_path: Path) -> None:
    """Its run is asked to end, writes a checkpoint as after any SIGTERM, and counts as pruned."""

    def run(job: Job, values: dict[str, float]) -> int:
        value = float(len(toy.values))
        rows = [{"step": step, "fd": value - 0.1 * step} for step in (1, 2, 3)]
        (job.log.parent / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if len(toy.values) < 7:
            return finish(job, value)
        running.append(job)
        return 143

    running: list[Job] = []
    toy = Toy(tmp_path, run)
    plain, waited = toy.starter.ended, [0]

    def ended(timeout: float) -> list[tuple[int, int]]:
        if running and not toy.starter.signals and waited[0] < 5:
            waited[0] += 1
            return []
        return plain(timeout)

    toy.starter.ended = ended  # type: ignore[method-assign]
    search = searched(tmp_path, toy=toy, trials=7, pruner="median")
    assert states(search) == [*["COMPLETE"] * 6, "PRUNED"]
    assert toy.starter.signals == [(7, 15)]
    assert [each.state for each in read_trials(tmp_path)] == [*[FINISHED] * 6, PRUNED]


def test_rows_are_read_once_and_complete(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    rows = Rows(file, "fd")
    assert list(rows.new()) == []
    file.write_text('{"step": 1, "fd": 3}\n{"step": 2}\n{"step": 3, "fd"')
    assert list(rows.new()) == [(1, 3.0)]
    with file.open("a") as stream:
        stream.write(": 2.5}\nnoise\n")
    assert list(rows.new()) == [(3, 2.5)]
    file.write_text('{"step": 1, "fd": 3}\n{"step": 3, "fd": 2.5}\n{"step": 4, "fd": 2}\n')
    assert list(rows.new()) == [(4, 2.0)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["objective=fd_raw_2k", "seed=0"], "a search needs options that vary"),
        ([LR], "a search needs a metric"),
        ([LR, "objective=fd", "hydra/launcher=basic"], "needs hydra/launcher=processes"),
        ([LR, "objective=fd", "hydra.sweeper.replicates=2", "seed=null"], "choose the seeds: set seed to one number"),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_anything_is_created(
    options: list[str], said: str, script: Script
) -> None:
    ended = script("train.py", "-m", *POINTS, "hydra/sweeper=optuna", *options, "output_dir=sweep")
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_search_from_the_command_line(script: Script) -> None:
    few = ["trainer.max_steps=3", "scheduler.num_steps=3", "hydra.sweeper.trials=3", "objective=train/loss"]
    options = ["-m", *POINTS, *few, "hydra/sweeper=optuna", LR, "network.width=8,16", "output_dir=sweep"]
    ended = script("train.py", *options)
    assert ended.code == 0, ended.err
    assert "search     tpe, 3 trials: 3 complete, 0 pruned, 0 fail, 0 running" in ended.out
    metrics = [json.loads(file.read_text())["metrics"] for file in Path("sweep").glob("*/result.json")]
    assert f"{min(each['train/loss'] for each in metrics):.5g}" in Path("sweep/search.md").read_text()


def test_a_pruned_trial_can_finish_after_all(tmp_path: Path) -> None:
    search = searched(tmp_path, toy=Toy(tmp_path, lambda job, values: parabola(job, values)), trials=2)
    first, second = told_runs(search)
    pruned = read_trials(tmp_path)[1]
    pruned.state = PRUNED
    Record(tmp_path).update(pruned)
    (tmp_path / second / "result.json").unlink()
    starter = Scripted([0], lambda job: finish(job, 0.125) and None)
    trial = promote(tmp_path, second, starter)
    (job,) = starter.jobs
    assert job.command[0] == "train.py"
    assert job.command[-1] == f"output_dir='{tmp_path}/{second}'"
    assert (trial.state, trial.objective) == (FINISHED, [0.125])
    assert [each.state for each in read_trials(tmp_path)] == [FINISHED, FINISHED]
    assert read_objectives(tmp_path) == ["fd"]
    with pytest.raises(ConfigurationError, match="has finished: choose a trial"):
        promote(tmp_path, first, starter)
    with pytest.raises(ConfigurationError, match=r"unknown trial x=.*: did you mean x="):
        promote(tmp_path, first + "0", starter)


def told_runs(search: Search) -> list[str]:
    return [each.user_attrs["runs"][0] for each in trials_of(search.study)]


def test_the_study_hears_of_a_promoted_trial(tmp_path: Path) -> None:
    search = searched(tmp_path, toy=Toy(tmp_path, lambda job, values: 5), trials=1)
    assert states(search) == ["FAIL"]
    (run,) = told_runs(search)
    trial = promote(tmp_path, run, Scripted([0], lambda job: finish(job, 0.125) and None))
    assert trial.objective == [0.125]
    last = trials_of(search.study)[-1]
    assert (states(search), last.values) == (["FAIL", "COMPLETE"], [0.125])
    assert last.params == trials_of(search.study)[0].params


def test_a_command_with_a_secret_is_not_repeated(tmp_path: Path) -> None:
    searched(tmp_path, toy=Toy(tmp_path, lambda job, values: 5), trials=1)
    (trial,) = read_trials(tmp_path)
    file = tmp_path / trial.name / "command.txt"
    file.write_text(file.read_text().replace("x=", "+logger.mine.token='***' x="))
    with pytest.raises(ConfigurationError, match="has a masked secret"):
        promote(tmp_path, trial.name, Scripted([]))


def test_several_objectives_end_with_their_front(tmp_path: Path) -> None:
    def run(job: Job, values: dict[str, float]) -> int:
        metrics = {"fd": values["x"], "seconds": 1 - values["x"] if values["x"] != 0.5 else 2.0}
        (job.log.parent / "result.json").write_text(json.dumps({"metrics": metrics, "steps": 4}))
        return 0

    toy = Toy(tmp_path, run)
    toy.record.objectives = ["fd", "seconds"]
    space, chosen = read(["x=0.1,0.5,0.9"]), {**SEARCH, "sampler": "grid", "trials": None, "hours": 1}
    search = Search(toy, space, [Objective("fd"), Objective("seconds")], chosen)  # type: ignore[arg-type]
    search.run()
    front = best_of(search.study, search.objectives)
    assert sorted(each.values[0] for each in front) == [0.1, 0.9]  # 0.5 is worse than 0.1 in both
    page = (tmp_path / "search.md").read_text()
    assert "| trial | x | fd | seconds |" in page
    assert "| 0.5 |" not in page


@pytest.mark.parametrize("pruner", [None, "median"])
def test_a_trial_that_two_processes_wait_for_is_told_once(pruner: str | None, tmp_path: Path) -> None:
    """The second one adopts what the first one runs, and hears of its end when the first one has told it."""
    late: list[Search] = []

    def run(job: Job, values: dict[str, float]) -> int:
        if not late:
            chosen = {**SEARCH, "trials": 1, "pruner": pruner}
            other = Search(Toy(tmp_path, parabola), read(["x=interval(0.0,1.0)"]), [Objective("fd")], chosen)  # type: ignore[arg-type]
            with other.sweep.pool(other.shown) as pool:
                other._adopt(pool)
            late.append(other)
        (job.log.parent / "metrics.jsonl").write_text('{"step": 1, "fd": 3.0}\n')
        return parabola(job, values)

    first = searched(tmp_path, toy=Toy(tmp_path, run), trials=1, pruner=pruner)
    (other,) = late
    (candidate,) = other.candidates
    (trial,) = read_trials(tmp_path)
    candidate.runs[0].state, candidate.runs[0].objective = trial.state, trial.objective
    other._take(candidate.runs[0], None)  # type: ignore[arg-type]
    assert states(first) == states(other) == ["COMPLETE"]
    assert trials_of(first.study)[0].values == trial.objective


def test_a_metric_that_is_not_measured_ends_the_search(tmp_path: Path) -> None:
    def run(job: Job, values: dict[str, float]) -> int:
        job.log.write_text("error: objective=fd is not measured; available: train/loss\n")
        return 2

    toy = Toy(tmp_path, run)
    with pytest.raises(ConfigurationError, match=r"^objective=fd is not measured; available: train/loss$"):
        searched(tmp_path, toy=toy)
    assert len(toy.values) == 1
