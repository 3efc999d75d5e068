"""The facts of `python -m inkdrop describe -m`: trials of a sweep, what each costs, and how long all of them take."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import SearchPathException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.inkdrop_sweeps import SEARCH
from inkdrop.commands.command import Asked, for_the_user
from inkdrop.commands.describe import costs
from inkdrop.commands.describe.facts import averages, numbers, trainers_are_silent
from inkdrop.commands.describe.passes import training_pass
from inkdrop.commands.sweep.launching import is_done
from inkdrop.commands.sweep.objectives import objectives_of
from inkdrop.commands.sweep.places import devices_of, gpus, may_use_gpus, places
from inkdrop.commands.sweep.planning import Plan, combinations, refusal, swept
from inkdrop.commands.sweep.running import Sweep
from inkdrop.commands.sweep.searching import BEST, require_seed
from inkdrop.commands.sweep.space import Space, read
from inkdrop.commands.sweep.study import refuse_misfits
from inkdrop.commands.sweep.trials import FINISHED, PRUNED, Trial, folder_of, split
from inkdrop.commands.train.prepare import PreparedTraining, prepare
from inkdrop.configuration.compose import CONF, explained, primary_of, refuse_without_conf, searching
from inkdrop.configuration.moved import renamed_options
from inkdrop.errors import ConfigurationError, DataError, InkdropError

_SEARCH = "Optuna"
_OF_THE_OPTIMIZER = ("lr", "betas", "weight_decay", "eps")  # they change no cost
_OF_THE_DATA = ("seed", "augment")  # costs are measured on random data


@dataclass
class Setting:
    """Trials of equal cost.

    - `trials`: the trials.
    - `parameters`: number of trained weights.
    - `operations`: operations of a training step, or None if torch cannot count them.
    - `memory`: bytes on each device.
    - `steps`: number of steps of a trial.
    - `steps_per_second`: measured speed, or None.
    """

    trials: list[Trial]
    parameters: int
    operations: int | None
    memory: int
    steps: int
    steps_per_second: float | None = None


@dataclass
class Costs:
    """What a sweep is going to do, and what it costs.

    - `name`: name of the sweep.
    - `varies`: values by option.
    - `runs`: number of runs of the whole sweep, or None for a search without a number of trials.
    - `done`: names of the trials that are finished.
    - `settings`: the trials that are left, or examples from the space of a search, by cost.
    - `jobs`: number of trials at a time.
    - `threads`: threads of each of them, or None for torch's default.
    - `refused`: names of the trials that cannot work, by what is wrong with them.
    - `missing`: what is missing of the data.
    - `search`: options of the search, or None for a grid.
    """

    name: str
    varies: dict[str, list[str]]
    runs: int | None
    jobs: int
    threads: int | None
    done: list[str] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    missing: str = ""
    search: dict[str, Any] | None = None

    @property
    def seconds(self) -> float | None:
        """Time of all runs that are left, of which `jobs` run at a time; None if it is not known."""
        if self.runs is None or any(each.steps_per_second is None for each in self.settings):
            return None
        times = [
            max(0, each.steps - trial.steps) / (each.steps_per_second or 1)
            for each in self.settings
            for trial in each.trials
        ]
        if self.search is not None:  # the suggestions are not known: each takes as long as an example on average
            times = [sum(times) / max(1, len(times))] * (self.runs - len(self.done))
        return duration(times, self.jobs)


def duration(times: Sequence[float], jobs: int) -> float:
    """Returns when the last of these runs ends, if each starts as soon as one of the places is free."""
    free = [0.0] * jobs
    for each in times:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def describe_sweep(
    overrides: Sequence[str], seconds: float = 3.0, folder: str | None = None, name: str = "train"
) -> Costs:
    """Returns the trials of `train.py -m` with these options and their costs; missing data and weights are only noted.

    `seconds` is the duration of trial steps on noise for each distinct cost (0: none); `folder` has the user's own
    configurations, and `name` is the primary one. Raises `ConfigurationError` for trials that cannot work, as the sweep
    itself does.
    """
    with _sweep(overrides, folder, name) as (sweep, kind, sweeper):
        typed: Any = OmegaConf.to_container(sweep.config.hydra.overrides.task, resolve=False)
        arguments = [*(f"{key}={value}" for key, value in (sweeper.pop("params") or {}).items()), *typed]
        if sweeper.pop("_target_").endswith(f".{_SEARCH}"):
            made, found = _search(sweep, kind, {**SEARCH, **sweeper}, read(arguments, sweep.loader))
        else:
            made, found = _grid(sweep, kind, combinations(arguments, sweep.loader))
        found.refused |= made.refused
        trials = [each for each in made.trials if each.name not in found.done]
        threads = torch.get_num_threads()
        torch.set_num_threads(found.threads or threads)
        try:
            with trainers_are_silent():
                _measure(found, sweep, trials, seconds)
        finally:
            torch.set_num_threads(threads)
        if found.refused and sweep.chosen["invalid"] == "refuse":
            raise refusal(found.refused, len(made.trials) + made.order.count(None))
        return found


class _Kept:
    """A loader of Hydra that keeps the configurations of trials, because composing takes a while."""

    def __init__(self, loader: Any):
        self.loader = loader
        self.configs: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(self, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
        composed: DictConfig = self.loader.load_sweep_config(config, overrides)
        own = tuple(each for each in overrides if split(each)[0] != "output_dir")
        self.configs[own] = composed
        return composed

    def config_of(self, trial: Trial, folder: Path) -> DictConfig:
        """Returns the configuration of a trial in its own folder."""
        config = self.configs[tuple(trial.overrides)].copy()
        OmegaConf.set_readonly(config, False)
        config.output_dir = str(folder)
        return config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


@contextmanager
def _sweep(overrides: Sequence[str], folder: str | None, name: str) -> Iterator[tuple[Sweep, str, dict[str, Any]]]:
    """Yields a sweep, of which nothing is created, the kind of its launcher, and the options of its sweeper."""
    refuse_without_conf()
    before = GlobalHydra.instance().hydra
    try:
        GlobalHydra.instance().hydra = None
        with searching(CONF, folder):
            loader = GlobalHydra.instance().config_loader()
            try:
                config = loader.load_configuration(name, renamed_options(overrides), RunMode.MULTIRUN)
            except Exception as error:
                raise ConfigurationError(explained(error, overrides)) from None
            launcher, sweeper = (_options(config, name) for name in ("launcher", "sweeper"))
            package, _, kind = launcher.pop("_target_").rpartition(".")
            if package != "hydra_plugins.inkdrop_sweeps":
                raise ConfigurationError("describe -m needs a launcher of inkdrop, such as hydra/launcher=processes")
            with Sweep(config, _Kept(loader), {**launcher, "kind": kind.lower()}) as sweep:
                yield sweep, kind.lower(), sweeper
    except SearchPathException as error:
        raise ConfigurationError(str(error)) from None
    finally:
        GlobalHydra.instance().hydra = before


def _options(config: DictConfig, name: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config.hydra[name], resolve=True)
    return {str(key): value for key, value in plain.items()}


def _grid(sweep: Sweep, kind: str, trials: Sequence[Sequence[str]]) -> tuple[Plan, Costs]:
    """Returns the trials of all combinations, and what is known of them before anything is measured."""
    made = sweep.plan(trials)
    values = [dict(map(split, each)) for each in trials]
    varies = {key: list(dict.fromkeys(each[key] for each in values if key in each)) for key in swept(sweep.config)}
    done = [each.name for each in made.trials if is_done(each, sweep.folder, sweep.chosen["rerun"])]
    jobs, threads = _at_a_time(sweep, kind, made)
    return made, Costs(str(sweep.config.name), varies, len(made.trials), jobs, threads, done)


def _search(sweep: Sweep, kind: str, chosen: dict[str, Any], space: Space) -> tuple[Plan, Costs]:
    """Returns examples from the space of a search, and what is known of it before anything is measured."""
    refuse_misfits(chosen, space, [each.name for each in objectives_of(sweep.config.get("objective"))])
    if chosen["replicates"] > 1 or chosen["confirm"]:
        require_seed(sweep.config, space)
    made = sweep.plan(space.samples(), space.names)
    varies = dict(space.choices)
    for name, (low, high, step, _) in space.ranges.items():
        scale = ", logarithmic" if name in space.log else "" if step is None else f" by {step:g}"
        varies[name] = [f"{low:g} to {high:g}{scale}"]
    done = [each.name for each in sweep.known.values() if each.state in (FINISHED, PRUNED)]
    jobs, threads = _at_a_time(sweep, kind, made)
    runs = None
    if (trials := chosen["trials"]) is not None:
        runs = trials * chosen["replicates"] + min(BEST, trials) * chosen["confirm"]
        runs = max(runs, len(done))
    return made, Costs(str(sweep.config.name), varies, runs, jobs, threads, done, search=chosen)


def _at_a_time(sweep: Sweep, kind: str, made: Plan) -> tuple[int, int | None]:
    """Returns the number of trials at a time, and of the threads of each of them; a scheduler decides by itself."""
    jobs = sweep.chosen["jobs"]
    if kind != "processes":
        return len(made.trials) if jobs == "auto" else jobs, None
    trainers = list(made.trainers.values())
    shares = places(jobs, trainers, gpus() if may_use_gpus(trainers) else [])
    single = max((devices_of(each, 1) for each in trainers), default=1) == 1
    return len(shares), shares[0].threads if single else None


def _measure(found: Costs, sweep: Sweep, trials: Sequence[Trial], seconds: float) -> None:
    """Checks trials as they would check themselves, and measures each distinct cost once."""
    by_options: dict[str, Setting] = {}
    by_cost: dict[str, Setting] = {}
    speeds: dict[str, float] = {}
    missing: list[DataError] = []
    name, primary = str(sweep.config.hydra.job.config_name).removesuffix(".yaml"), primary_of(sweep.config.hydra)
    for trial in trials:
        folder = folder_of(sweep.folder, trial)
        asked = Asked(sweep.loader.config_of(trial, folder), folder, name, trial.overrides, primary)
        try:
            with for_the_user():
                prepared = prepare(asked, missing.append)
        except InkdropError as error:
            message = str(error).replace(str(folder), str(folder.with_name("TRIAL")))
            found.refused.setdefault(message, []).append(trial.name)
            continue
        same = _what_costs(prepared.plain)
        if same in by_options:
            by_options[same].trials.append(trial)
            continue
        setting, key = _counted(trial, prepared)
        if key in by_cost:
            by_options[same] = by_cost[key]
            by_cost[key].trials.append(trial)
            continue
        by_options[same] = by_cost[key] = setting
        found.settings.append(setting)
        if seconds:
            alike = key.partition(" steps ")[0]
            if alike not in speeds:
                speeds[alike] = _speed(prepared, seconds)
            setting.steps_per_second = speeds[alike]
    found.missing = "; ".join(dict.fromkeys(map(str, missing)))


def _what_costs(plain: Mapping[str, Any]) -> str:
    """Returns the options on which the cost of a run can depend; others, such as the seed, cost nothing."""
    task = {key: value for key, value in plain["task"].items() if key != "scheduler"}
    task["optimizer"] = {key: value for key, value in task["optimizer"].items() if key not in _OF_THE_OPTIMIZER}
    data = {key: value for key, value in plain["data"].items() if key not in _OF_THE_DATA}
    further = {key: plain[key] for key in ("trainer", "compile", "checkpoint_activations", "channels_last")}
    ema = plain["callbacks"].get("ema", {})
    return json.dumps([task, data, further, ema.get("decays"), ema.get("lengths")], sort_keys=True, default=str)


def _counted(trial: Trial, prepared: PreparedTraining) -> tuple[Setting, str]:
    """Returns what a run costs without its time, and a text that is equal for runs of equal cost."""
    task, plain = prepared.task, prepared.plain
    training = numbers(plain, prepared.world_size)
    batch_size, precision = training["samples_per_device"], training["precision"]
    operations = training_pass(task).operations
    memory = costs.memory(task, averages(prepared), batch_size, precision)
    parameters = costs.parameters(task)["trained"]
    step = operations.get("training")
    per_step = None if step is None else step * training["samples_per_step"]
    trainer = {**plain["trainer"], "max_steps": None}
    further = [trainer, plain["network"], plain["compile"], plain["checkpoint_activations"], plain["channels_last"]]
    key = json.dumps([parameters, operations, memory, batch_size, further], sort_keys=True, default=str)
    setting = Setting([trial], parameters, per_step, sum(memory.values()), training["steps"])
    return setting, f"{key} steps {training['steps']}"


def _speed(prepared: PreparedTraining, seconds: float) -> float:
    """Measures the training steps per second of a run."""
    plain = prepared.plain
    batch_size = plain["data"]["batch_size"] // prepared.world_size
    return costs.speed(prepared.task, plain["trainer"], batch_size, seconds, plain["compile"])["steps_per_second"]
