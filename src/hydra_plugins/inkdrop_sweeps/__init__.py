"""The launcher and the sweeper of inkdrop, in the package that Hydra 1.3 searches for plugins.

Hydra imports this module at each start, `--help` included: it imports what it needs when a sweep starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Processes(Launcher):
    """Runs each trial of a sweep as a single run in its own process, some at a time.

    - `jobs`: number of trials at a time; `auto` divides the devices among them.
    - `start`: `fork` of a process that has imported the libraries, or `fresh`.
    - `retries`: further attempts after exit code 1 or 137.
    - `invalid`: what happens if trials cannot work: `refuse` the sweep, or `skip` them.
    - `rerun`: `changed` repeats trials that another version of the code has finished.
    """

    kind = "processes"

    def __init__(self, **options: Any) -> None:
        self.options = {**options, "kind": self.kind}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.loader = config, hydra_context.config_loader

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from inkdrop.commands.sweep.launching import launch

        return launch(self.config, self.loader, job_overrides, self.options)


class Slurm(Processes):
    """Runs each trial of a sweep as a job of SLURM, through submitit.

    The options are those of `Processes` and parameters of submitit's `AutoExecutor`; `jobs` is the largest number of
    jobs that wait or run at a time. The folder of the sweep must be visible on all machines.

    - `cluster`: null for SLURM, or `local`, which runs the jobs on this machine.
    - `timeout_min`: time limit in minutes, after which a run is queued again and resumes.
    - `gpus_per_node`, `tasks_per_node`: GPUs of a trial, both equal to `trainer.devices`.
    - `cpus_per_task`, `mem_gb`, `slurm_partition`: other resources; `+hydra.launcher.NAME=VALUE` adds a parameter.
    """

    kind = "slurm"


class Ray(Processes):
    """Runs each trial of a sweep as a task of Ray.

    The options are those of `Processes`. The folder of the sweep must be visible on all machines.

    - `address`: address of a cluster, such as `auto`; null starts Ray on this machine.
    - `num_cpus`, `num_gpus`: resources of a trial.
    """

    kind = "ray"


class Grid(Sweeper):
    """Runs each combination of the values of a sweep, as Hydra's basic sweeper does, and writes no files.

    - `params`: sweeps in a YAML file, such as `{seed: "0,1,2"}`, before those of the command line.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.loader = hydra_context.config_loader
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from inkdrop.commands.sweep.planning import combinations

        trials = combinations([*(f"{key}={value}" for key, value in self.params.items()), *arguments], self.loader)
        results = self.launcher.launch(trials, initial_job_idx=0)
        for each in results:
            if each.status == JobStatus.FAILED:
                raise each._return_value
        return [results]


class Optuna(Sweeper):
    """Searches for the values that are best for `objective`, by Optuna; `-NAME` is the highest value of a metric.

    The space is in Hydra's grammar: `optimizer.lr=tag(log,interval(1e-4,1e-1)) network.width=choice(16,32,64)`.

    - `sampler`: tpe, gp, cmaes, qmc, random or grid.
    - `pruner`: null, or what ends hopeless trials: median, halving, hyperband; wilcoxon compares seeds.
    - `trials`: number of trials, or null.
    - `hours`: time after which no further trial starts, or null.
    - `replicates`: number of seeds of each trial, whose mean is the objective.
    - `confirm`: number of fresh seeds with which the best three settings run again.
    - `seed`: seed of the suggestions.
    - `params`: parts of the space in a YAML file, before those of the command line.
    """

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.shared, self.loader = config, hydra_context.config_loader

    def sweep(self, arguments: list[str]) -> Any:
        from inkdrop.commands.sweep.searching import search

        return search(self.shared, self.loader, arguments, self.options)


# Here and not in conf/, because a config.yaml of a run starts alone.
SHARED: dict[str, Any] = {"jobs": "auto", "retries": 1, "invalid": "refuse", "rerun": None}
SEARCH: dict[str, Any] = {
    "sampler": "tpe",
    "pruner": None,
    "trials": 20,
    "hours": None,
    "replicates": 1,
    "confirm": 0,
    "seed": 0,
    "params": None,
}
_RESOURCES = ("tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "slurm_partition")
_JOB = {"timeout_min": 60, **dict.fromkeys(_RESOURCES)}
_OPTIONS = {
    ("hydra/launcher", "processes"): {"_target_": f"{__name__}.Processes", "start": "fork", **SHARED},
    ("hydra/launcher", "slurm"): {"_target_": f"{__name__}.Slurm", "cluster": None, **_JOB, **SHARED},
    ("hydra/launcher", "ray"): {
        "_target_": f"{__name__}.Ray",
        "address": None,
        "num_cpus": 1,
        "num_gpus": None,
        **SHARED,
    },
    ("hydra/sweeper", "grid"): {"_target_": f"{__name__}.Grid", "params": None},
    ("hydra/sweeper", "optuna"): {"_target_": f"{__name__}.Optuna", **SEARCH},
}
for (_group, _name), _node in _OPTIONS.items():
    ConfigStore.instance().store(group=_group, name=_name, node=_node, provider="inkdrop")
