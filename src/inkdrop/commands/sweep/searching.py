"""A search: trials are suggested when a place is free, pruned by what their runs record, and told to the study."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.inkdrop_sweeps import SEARCH
from inkdrop.commands.sweep.objectives import Objective, objectives_of
from inkdrop.commands.sweep.outcome import best_of, page
from inkdrop.commands.sweep.pool import Pool
from inkdrop.commands.sweep.progress import say
from inkdrop.commands.sweep.recorded import Rows
from inkdrop.commands.sweep.running import Sweep
from inkdrop.commands.sweep.space import Space, read
from inkdrop.commands.sweep.study import IS_REPEAT, opened, quiet, refuse_misfits, require_optuna, state, trials_of
from inkdrop.commands.sweep.trials import FINISHED, INTERRUPTED, PRUNED, REFUSED, Trial, folder_of
from inkdrop.errors import ConfigurationError
from inkdrop.files import read_json
from inkdrop.files.writing import write_text

_MOST_REPEATS = 50  # suggestions in a row that were tried before, after which a space counts as exhausted
BEST = 3  # number of settings that are confirmed
_FRESH = 1000  # from the seed of the search to the first fresh one


@dataclass
class Candidate:
    """A suggestion and its runs, one for each seed.

    - `trial`: Optuna's trial.
    - `runs`: the runs.
    - `rows`: what the first of them records.
    - `is_pruned`: whether it was ended because it was hopeless.
    """

    trial: Any
    runs: list[Trial]
    rows: Rows
    is_pruned: bool = False
    ended: list[Trial] = field(default_factory=list)


def search(config: DictConfig, loader: Any, arguments: Sequence[str], options: Mapping[str, Any]) -> list[JobReturn]:
    """Searches the space that the arguments describe.

    - `config`: configuration that the trials share.
    - `loader`: Hydra's loader.
    - `arguments`: options of the command line.
    - `options`: options of the sweeper.

    Raises `ConfigurationError` for what cannot work, before anything is created.
    """
    chosen = {**SEARCH, **options}
    launcher: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    package, _, name = str(launcher.pop("_target_")).rpartition(".")
    if package != "hydra_plugins.inkdrop_sweeps":
        raise ConfigurationError("hydra/sweeper=optuna needs hydra/launcher=processes: trials end one by one")
    launcher["kind"] = name.lower()
    require_optuna()
    params = chosen.pop("params") or {}
    space = read([*(f"{key}={value}" for key, value in params.items()), *arguments], loader)
    objectives = objectives_of(config.get("objective"))
    refuse_misfits(chosen, space, [each.name for each in objectives])
    if chosen["replicates"] > 1 or chosen["confirm"]:
        require_seed(config, space)
    with Sweep(config, loader, launcher) as sweep:
        samples = sweep.plan(space.samples(), space.names)
        sweep.prepare(samples, samples.trials)
        sweep.create()
        Search(sweep, space, objectives, chosen).run()
    return []


def require_seed(config: DictConfig, space: Space) -> None:
    """Raises `ConfigurationError` unless the search may choose the seeds of its trials."""
    if "seed" in space.names or not isinstance(config.get("seed"), int):
        raise ConfigurationError("hydra.sweeper.replicates and confirm choose the seeds: set seed to one number")


class Search:
    """A search in the folder of a sweep.

    - `sweep`: the sweep.
    - `space`: what varies.
    - `objectives`: what is optimized.
    - `chosen`: options of the sweeper.
    """

    def __init__(self, sweep: Sweep, space: Space, objectives: Sequence[Objective], chosen: Mapping[str, Any]):
        self.sweep, self.space, self.objectives, self.chosen = sweep, space, objectives, chosen
        self.study = opened(sweep.folder, chosen, space, [each.direction for each in objectives])
        self.candidates: list[Candidate] = []
        self.shown = [*sweep.known.values()]  # the table
        self._end = math.inf if chosen["hours"] is None else time.monotonic() + 3600 * chosen["hours"]
        self._repeats = 0
        if chosen["sampler"] == "grid":
            self._enqueue_grid()

    def run(self) -> None:
        """Runs trials until the search ends, confirms the best ones, and shows the result."""
        with self.sweep.pool(self.shown) as pool:
            self._adopt(pool)
            while True:
                while pool.free and self._may_ask(pool):
                    self._ask(pool)
                if not pool.is_busy:
                    break
                for trial in pool.step():
                    self._take(trial, pool)
                self._prune(pool)
            confirmed = {}
            if self.chosen["confirm"] and not pool.stopping:
                confirmed = self._confirm(pool)
        text = page(self.study, self.space, self.objectives, self.chosen["sampler"], confirmed)
        say(f"\n{text}".rstrip("\n"))
        write_text(self.sweep.folder / "search.md", text)

    def _confirm(self, pool: Pool) -> dict[int, list[Trial]]:
        """Runs the best settings again with fresh seeds, and returns these runs by the number of the trial.

        The least of many noisy values is too good; the mean over fresh seeds is not.
        """
        offsets = [_FRESH + each for each in range(self.chosen["confirm"])]
        runs: dict[int, list[Trial]] = {}
        for each in best_of(self.study, self.objectives)[:BEST]:
            runs[each.number] = self._runs(each.params, offsets) or []
            self.shown += [run for run in runs[each.number] if run not in self.shown]
            pool.add(*runs[each.number])
        while pool.is_busy:
            pool.step()
        return runs

    @property
    def _prunes_steps(self) -> bool:
        """Whether trials are compared by what they record at the same steps."""
        return self.chosen["pruner"] not in (None, "wilcoxon")

    def _may_ask(self, pool: Pool) -> bool:
        if pool.stopping or time.monotonic() > self._end or self._repeats >= _MOST_REPEATS:
            return False
        asked = [each for each in trials_of(self.study) if each.state.name != "WAITING"]
        limit = self.chosen["trials"]
        if self.chosen["sampler"] == "grid":
            return len(asked) < self._points  # each combination, however many they are
        return limit is None or len(asked) < limit

    def _ask(self, pool: Pool) -> None:
        """Takes one suggestion, and adds its runs, unless it repeats another one."""
        with quiet():
            trial = self.study.ask(self.space.distributions())
        if any(each.params == trial.params and each.number != trial.number for each in trials_of(self.study)):
            trial.set_user_attr(IS_REPEAT, True)
            self.study.tell(trial, state=state("FAIL"))
            self._repeats += 1
            return
        self._repeats = 0
        self._add(trial, pool)

    def _add(self, trial: Any, pool: Pool) -> None:
        runs = self._runs(trial.params, range(self.chosen["replicates"]))
        if runs is None:  # Hydra cannot compose it
            self.study.tell(trial, state=state("FAIL"))
            return
        trial.set_user_attr("runs", [each.name for each in runs])
        name = self.objectives[0].name
        candidate = Candidate(trial, runs, Rows(folder_of(self.sweep.folder, runs[0]) / "metrics.jsonl", name))
        self.candidates.append(candidate)
        self.shown += [each for each in runs if each not in self.shown]
        pool.add(*runs)
        for each in runs:
            if each.state == FINISHED:  # by an earlier sweep in this folder
                self._take(each, pool)

    def _runs(self, values: Mapping[str, Any], offsets: Sequence[int]) -> list[Trial] | None:
        """Returns a run of these values for each offset from the seed, or None if Hydra cannot compose them."""
        overrides, names = self.space.overrides(values), self.space.names
        if len(offsets) > 1 or offsets[0] > 0:
            seed = int(self.sweep.config.seed)
            rest = [each for each in overrides if not each.startswith("seed=")]
            combinations, names = [[*rest, f"seed={seed + each}"] for each in offsets], [*names, "seed"]
        else:
            combinations = [overrides]
        made = self.sweep.plan(combinations, names)
        if made.refused:
            return None
        for each in made.trials:
            self.sweep.known[each.identity] = each
        return made.trials

    def _take(self, trial: Trial, pool: Pool) -> None:
        """Tells the study how a suggestion ended, if this was its last run."""
        candidate = next((each for each in self.candidates if trial in each.runs), None)
        if candidate is None or trial in candidate.ended:
            return
        candidate.ended.append(trial)
        if candidate.is_pruned and trial.state == INTERRUPTED:
            trial.state, trial.message = PRUNED, "hopeless after the steps that it had"
            self.sweep.record.update(trial)
        if trial.state == REFUSED and trial.message.startswith("error: objective="):
            pool.stop(15)
            raise ConfigurationError(trial.message.removeprefix("error: "))
        if trial.state == FINISHED:
            for each in self.objectives:
                each.require_direction(read_json(folder_of(self.sweep.folder, trial) / "result.json"))
        finished = [each for each in candidate.runs if each.state == FINISHED]
        if self.chosen["pruner"] == "wilcoxon" and trial.state == FINISHED and not candidate.is_pruned:
            self._report(candidate, trial.objective[0], candidate.runs.index(trial))
            if len(finished) < len(candidate.runs) and candidate.trial.should_prune():
                self._end_candidate(candidate, pool)
        if len(candidate.ended) == len(candidate.runs):
            self._tell(candidate, finished)

    def _tell(self, candidate: Candidate, finished: Sequence[Trial]) -> None:
        if any(each.state == INTERRUPTED for each in candidate.runs):
            return  # it continues when the command is repeated
        if self._prunes_steps:  # what was recorded since the last look is what later trials are compared with
            for step, value in candidate.rows.new():
                self._report(candidate, value, step)
        if candidate.is_pruned and len(finished) < len(candidate.runs):
            self.study.tell(candidate.trial, state=state("PRUNED"), skip_if_finished=True)
        elif len(finished) == len(candidate.runs):
            columns = zip(*(each.objective for each in finished), strict=True)
            means = [sum(column) / len(finished) for column in columns]
            self.study.tell(candidate.trial, means, skip_if_finished=True)  # another process may have adopted it
        else:
            self.study.tell(candidate.trial, state=state("FAIL"), skip_if_finished=True)

    @staticmethod
    def _report(candidate: Candidate, value: float, step: int) -> bool:
        """Reports a value to the study; returns False if another process has reported the end of the trial."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            candidate.trial.report(value, step)
        except UpdateFinishedTrialError:
            return False
        return True

    def _prune(self, pool: Pool) -> None:
        """Reports what running trials have recorded, and ends those that the pruner calls hopeless."""
        if not self._prunes_steps:
            return
        for candidate in self.candidates:
            if len(candidate.ended) == len(candidate.runs) or candidate.is_pruned:
                continue
            for step, value in candidate.rows.new():
                with quiet():
                    if self._report(candidate, value, step) and candidate.trial.should_prune():
                        self._end_candidate(candidate, pool)
                        break

    def _end_candidate(self, candidate: Candidate, pool: Pool) -> None:
        candidate.is_pruned = True
        for each in candidate.runs:
            if each not in candidate.ended and not pool.end_trial(each):
                each.state, each.message = PRUNED, "not started: its other seeds are clearly worse"
                self.sweep.record.update(each)
                candidate.ended.append(each)

    def _adopt(self, pool: Pool) -> None:
        """Continues the suggestions of a process that has ended; those of one that runs are waited for."""
        from optuna.trial import Trial as Asked

        for each in trials_of(self.study):
            if each.state.name == "RUNNING":
                self._add(Asked(self.study, each._trial_id), pool)

    def _enqueue_grid(self) -> None:
        grid = self.space.grid()
        for values in itertools.product(*grid.values()):
            self.study.enqueue_trial(dict(zip(grid, values, strict=True)), skip_if_exists=True)
        self._points = math.prod(map(len, grid.values()))
