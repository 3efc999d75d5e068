"""The study of a search: Optuna's, kept in the folder of the sweep, where several processes may share it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.sweep.space import Space, seeded
from inkdrop.errors import ConfigurationError

JOURNAL, NAME = "study.journal", "sweep"
SAMPLERS = ("tpe", "gp", "cmaes", "qmc", "random", "grid")
PRUNERS = (None, "median", "halving", "hyperband", "wilcoxon")
IS_REPEAT = "repeats"  # attribute of a suggestion that was tried before
_PROCESSES = "processes"  # attribute of the study: how many processes have opened it


def require_optuna() -> Any:
    """Returns Optuna; raises `ConfigurationError` without it."""
    try:
        import optuna
    except ImportError:
        raise ConfigurationError(
            "hydra/sweeper=optuna needs Optuna: install it by `pip install 'inkdrop[search]'`"
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def refuse_misfits(chosen: Mapping[str, Any], space: Space, objectives: Sequence[str]) -> None:
    """Raises `ConfigurationError` if space, objectives, sampler and pruner of a search do not fit each other."""
    sampler, pruner = chosen["sampler"], chosen["pruner"]
    for name, value, known in (("sampler", sampler, SAMPLERS), ("pruner", pruner, PRUNERS)):
        if value not in known:
            listed = ", ".join("null" if each is None else each for each in known)
            raise ConfigurationError(f"hydra.sweeper.{name}={value}: available: {listed}")
    for name, least in (("trials", 1), ("replicates", 1), ("confirm", 0), ("hours", 0)):
        value = chosen[name]
        whole = isinstance(value, int) or (name == "hours" and isinstance(value, float))
        if value is None and name in ("hours", "trials"):
            continue
        if not whole or isinstance(value, bool) or value < least or (name == "hours" and value == 0):
            raise ConfigurationError(f"hydra.sweeper.{name}={value} must be a number of at least {least}")
    if chosen["trials"] is None and chosen["hours"] is None:
        raise ConfigurationError("a search needs an end: set hydra.sweeper.trials or hydra.sweeper.hours")
    if not objectives:
        raise ConfigurationError("a search needs a metric: set objective=NAME, or objective=-NAME if higher is better")
    if len(objectives) > 1 and pruner is not None:
        raise ConfigurationError("hydra.sweeper.pruner works for one objective: set hydra.sweeper.pruner=null")
    if sampler == "grid" and not space.is_finite:
        raise ConfigurationError("hydra.sweeper.sampler=grid needs choices and ranges: an interval has no finite grid")
    if sampler == "cmaes" and (space.choices or len(objectives) > 1):
        raise ConfigurationError(
            "hydra.sweeper.sampler=cmaes searches intervals and ranges, for one objective: choose tpe"
        )
    if sampler == "qmc" and space.choices:
        raise ConfigurationError("hydra.sweeper.sampler=qmc searches intervals and ranges: choose tpe or random")
    if pruner == "wilcoxon" and chosen["replicates"] < 2:
        raise ConfigurationError("hydra.sweeper.pruner=wilcoxon compares seeds: set hydra.sweeper.replicates=3 or more")
    if chosen["replicates"] > 1 and pruner not in (None, "wilcoxon"):
        raise ConfigurationError(
            f"hydra.sweeper.pruner={pruner} compares steps of one run: with replicates choose wilcoxon or null"
        )


def opened(folder: Path, chosen: Mapping[str, Any], space: Space, directions: Sequence[str]) -> Any:
    """Returns the study in the folder of a sweep, which is created if it is missing.

    - `folder`: folder of the sweep.
    - `chosen`: options of the sweeper.
    - `space`: what varies.
    - `directions`: `minimize` or `maximize` for each objective.
    """
    optuna = require_optuna()
    with quiet():
        study = optuna.create_study(
            storage=_storage(folder),
            study_name=NAME,
            directions=list(directions),
            load_if_exists=True,
            pruner=_pruner(chosen),
        )
        if [each.name.lower() for each in study.directions] != list(directions):
            raise ConfigurationError(f"{folder} has a search for other objectives: choose another output_dir")
        count = study.user_attrs.get(_PROCESSES, 0)  # a sampler with the same seed would repeat its suggestions
        study.set_user_attr(_PROCESSES, count + 1)
        study.set_user_attr("optuna", optuna.__version__)
        seed = seeded(int(chosen["seed"]), 1000 * count + len(study.get_trials(deepcopy=False)))
        study.sampler = _sampler(chosen["sampler"], space, seed)
    return study


def add_promoted(folder: Path, run: str, values: Sequence[float]) -> None:
    """Tells the study in the folder of a sweep the values of a pruned trial that has finished after all.

    A trial of Optuna that has ended cannot change, so that the study gets another one with the same values of options.
    """
    optuna = require_optuna()
    with quiet():
        study = optuna.load_study(study_name=NAME, storage=_storage(folder))
        pruned = [each for each in study.get_trials() if run in each.user_attrs.get("runs", ()) and not each.values]
        for each in pruned[:1]:
            told = {"params": each.params, "distributions": each.distributions, "values": list(values)}
            study.add_trial(optuna.create_trial(**told, user_attrs={"runs": [run], "promoted": each.number}))


def _storage(folder: Path) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def _sampler(name: str, space: Space, seed: int) -> Any:
    from optuna import samplers

    if name == "grid":
        return samplers.GridSampler(space.grid(), seed=seed)
    if name == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    kinds = {"gp": "GPSampler", "cmaes": "CmaEsSampler", "qmc": "QMCSampler", "random": "RandomSampler"}
    try:
        return getattr(samplers, kinds[name])(seed=seed)
    except ImportError as error:
        raise ConfigurationError(f"hydra.sweeper.sampler={name} needs a package that is missing: {error}") from None


def _pruner(chosen: Mapping[str, Any]) -> Any:
    from optuna import pruners

    return {
        None: pruners.NopPruner,
        "median": lambda: pruners.MedianPruner(n_startup_trials=4),
        "halving": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
        "wilcoxon": lambda: pruners.WilcoxonPruner(p_threshold=0.1),
    }[chosen["pruner"]]()


def trials_of(study: Any) -> list[Any]:
    """Returns the trials of a study, without suggestions that were tried before."""
    return [each for each in study.get_trials(deepcopy=False) if IS_REPEAT not in each.user_attrs]


def state(name: str) -> Any:
    """Returns a state of Optuna's trials by its name."""
    from optuna.trial import TrialState

    return TrialState[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings of Optuna about parts that it calls experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
