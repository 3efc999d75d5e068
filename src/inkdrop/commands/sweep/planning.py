"""From the command line of a sweep to its trials, and the check of all of them before the first one starts."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inkdrop.commands.sweep.starters import CALL, Job, Starter, run_all
from inkdrop.commands.sweep.trials import Trial, folder_of, keys_that_differ, name_of, split
from inkdrop.configuration.compose import (
    CONF,
    explained,
    overrides_of,
    primary_of,
    refuse_foreign_targets,
    refuse_unread,
)
from inkdrop.configuration.secrets import masked_text
from inkdrop.configuration.suggestions import written
from inkdrop.errors import ConfigurationError, InkdropError, listed
from inkdrop.files.showing import harmless_lines
from inkdrop.runs.identity import identity
from inkdrop.runs.sweep_of import Sweep

_NOT_OF_A_TRIAL = ("hydra.mode", "hydra.sweep.", "hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper")


@dataclass
class Plan:
    """The trials of a sweep.

    - `trials`: the trials without repetitions, in the order of the sweep.
    - `order`: identity of each combination of values, in the order of the sweep; None for one that Hydra refuses.
    - `trainers`: `trainer` options by identity.
    - `refused`: the combinations that Hydra cannot compose, by what is wrong with them.
    """

    trials: list[Trial]
    order: list[str | None]
    trainers: dict[str, Any]
    refused: dict[str, list[str]]


def plan(
    loader: Any,
    config: DictConfig,
    combinations: Sequence[Sequence[str]],
    known: Mapping[str, Trial],
    keys: Sequence[str] | None = None,
) -> Plan:
    """Composes each combination of values, and gives a folder to each trial that is not `known` by its identity.

    - `loader`: Hydra's loader.
    - `config`: configuration that the trials share.
    - `combinations`: options of each trial.
    - `known`: recorded trials by identity.
    - `keys`: options that folders are named by; by default those that the command line sweeps over.
    """
    made = Plan([], [], {}, {})
    values = [dict(map(split, each)) for each in combinations]
    if keys is None:
        keys = list(dict.fromkeys([*swept(config), *keys_that_differ(values)]))
    taken = {each.name for each in known.values()}
    for overrides, chosen in zip(combinations, values, strict=True):
        own = [each for each in overrides if split(each)[0] != "output_dir"]
        try:
            composed = loader.load_sweep_config(config, list(overrides))
            if not made.trainers:
                _refuse_at_once(composed)
            same = identity(composed)
            trainer: Any = OmegaConf.to_container(composed.trainer, resolve=True)
        except (HydraException, OmegaConfBaseException, AttributeError, TypeError, ValueError) as error:
            made.order.append(None)
            text = str(error) if isinstance(error, InkdropError) else explained(error, overrides)
            message = text.partition("\nConfig search path:")[0]
            made.refused.setdefault(message, []).append(name_of(chosen, keys, (), ""))
            continue
        made.order.append(same)
        if same in made.trainers:
            continue
        made.trainers[same] = trainer
        trial = known.get(same) or Trial(name_of(chosen, keys, taken, same), same, own)
        trial.overrides, trial.max_steps = own, trainer.get("max_steps") or 0
        taken.add(trial.name)
        made.trials.append(trial)
    return made


def _refuse_at_once(config: DictConfig) -> None:
    """Raises `ConfigurationError` for what can be said of all trials without torch, such as a mistyped option."""
    refuse_unread(config, "train", str(config.hydra.job.config_name).removesuffix(".yaml"))
    refuse_foreign_targets(config, overrides_of(config.hydra), primary_of(config.hydra))


def swept(config: DictConfig) -> list[str]:
    """Returns the options that a command line sweeps over."""
    typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    parsed = OverridesParser.create().parse_overrides([*(f"{key}={value}" for key, value in params.items()), *typed])
    return [each.get_key_element().lstrip("+~") for each in parsed if each.is_sweep_override()]


def combinations(arguments: Sequence[str], loader: Any) -> list[list[str]]:
    """Returns the options of each trial of a grid: every combination of the values in the arguments."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    overrides = OverridesParser.create(config_loader=loader).parse_overrides(list(arguments))
    (trials,) = BasicSweeper.split_arguments(overrides, None)
    return [list(each) for each in trials]


def command_of(verb: str) -> list[str]:
    """Returns what follows `python` for one run: the script that this program was started by, or the module."""
    script = Path(sys.argv[0])
    if script.name == f"{verb}.py" and script.is_file():
        return [str(script.absolute())]
    return ["-m", "inkdrop", verb]


def options_of(config: DictConfig) -> tuple[list[str], list[str]]:
    """Returns the flags before the options of a trial, and those of Hydra's settings after them."""
    hydra = config.hydra
    flags = []
    for source in hydra.runtime.config_sources:
        if source.provider == "main" and Path(source.path) != CONF:
            flags.append(f"--config-path={source.path}")
        if source.provider == "command-line":
            flags.append(f"--config-dir={source.path}")
    if (name := str(hydra.job.config_name)) != "train":
        flags.append(f"--config-name={name}")
    typed: Any = OmegaConf.to_container(hydra.overrides.hydra, resolve=False)
    settings = [each for each in typed if not each.lstrip("+~").startswith(_NOT_OF_A_TRIAL)]
    return flags, [*settings, "hydra.mode=RUN"]  # a configuration may make a sweep of each command


def check(
    starter: Starter, verb: str, sweep: Path, trials: Sequence[Trial], options: tuple[list[str], list[str]], jobs: int
) -> dict[str, list[Trial]]:
    """Checks trials as they would check themselves, and returns those that cannot work by what is wrong with them.

    - `starter`: what starts processes.
    - `verb`: name of the command.
    - `sweep`: folder of the sweep, which is not created.
    - `trials`: trials that are checked.
    - `options`: flags before and options after those of each trial.
    - `jobs`: number of checks at a time.
    """
    flags, hydra = options
    with tempfile.TemporaryDirectory(prefix="inkdrop-") as folder:
        checks = [
            Job(
                [
                    *(CALL, f"inkdrop.commands.{verb}:check", *flags, *each.overrides),
                    *(f"output_dir={written(str(folder_of(sweep, each)))}", *hydra),
                ],
                Path(folder) / str(number),
                Sweep(sweep.absolute(), each.name).variables,
            )
            for number, each in enumerate(trials)
        ]
        wrong: dict[str, list[Trial]] = {}
        codes = run_all(starter, checks, jobs)
        for trial, job, code in zip(trials, checks, codes, strict=True):
            if code:
                trial.exit_code, trial.message = code, said(job.log)
                shared = trial.message.replace(str(folder_of(sweep, trial)), str(sweep / "TRIAL"))
                wrong.setdefault(shared, []).append(trial)
    return wrong


def said(log: Path) -> str:
    """Returns the error in the output of a check, or all of it without one."""
    text = log.read_text(errors="replace").strip()
    start = text.rfind("error: ")
    return harmless_lines(masked_text(text[start + len("error: ") :] if start >= 0 else text))[:4000]


def refusal(wrong: Mapping[str, Sequence[str]], total: int) -> ConfigurationError:
    """Returns the error that lists by message the names of the trials that cannot work, of a number in total."""
    count = sum(map(len, wrong.values()))
    if count == total == 1 or (len(wrong) == 1 and count == total):
        return ConfigurationError(next(iter(wrong)))
    others = "" if count == total else " (hydra.launcher.invalid=skip runs the others)"
    lines = [f"{listed(names, 3)}: {message}" for message, names in wrong.items()]
    return ConfigurationError(
        "\n".join([f"{count} of {total} trials cannot work, and none was started{others}:", *lines])
    )
