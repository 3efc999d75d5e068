"""What commands state to trackers: what a run is called, its options, and how it ended."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from inkdrop.callbacks import Interrupted
from inkdrop.commands.command import Asked
from inkdrop.commands.terminal import exit_code
from inkdrop.configuration.once import overrides_once
from inkdrop.configuration.secrets import masked_text
from inkdrop.errors import NonFiniteError, UnreadableError
from inkdrop.files import read_yaml
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import metric_of
from inkdrop.loggers.about import About, Outcome
from inkdrop.metrics.protocol import hash_of
from inkdrop.runs.free import FREE, within
from inkdrop.runs.sweep_of import Sweep, sweep_of

_UNNAMED = (*FREE, "experiment", "name", "init_from", "allow_targets", "hydra")
_LONGEST = 80  # of a name


def introduce(
    loggers: Iterable[Any], asked: Asked, name: str, options: Mapping[str, Any], job_type: str, **about: Any
) -> None:
    """States to loggers what a run is called, and its options.

    - `loggers`: the loggers of the run, of which trackers have `begin_run`.
    - `asked`: the request.
    - `name`: the option of this name.
    - `options`: the options and facts of the run, each once.
    - `job_type`: name of the command.
    - `about`: further fields of `About`.
    """
    for logger in loggers:
        if hasattr(logger, "begin_run"):
            logger.begin_run(About(job_type=job_type, **names_of(asked, name), **about))
        logger.log_hyperparams({**options, "overrides": overrides_once(asked.overrides)})


def names_of(asked: Asked, name: str) -> dict[str, Any]:
    """Returns the name, the group and the tags of a run for trackers; `name` is the option of this name.

    A trial of a sweep is named by the options that differ between trials, and another run by those that were typed.
    """
    sweep = _sweep(asked)
    typed = any(each.lstrip("+").startswith("name=") for each in asked.overrides)
    return {
        "name": (sweep.trial if sweep else None) or (name if typed else label(asked.overrides) or name),
        "group": sweep.name if sweep else None,
        "tags": tuple(dict.fromkeys(filter(None, (_choice(asked, group) for group in ("experiment", "data"))))),
    }


def _sweep(asked: Asked) -> Sweep | None:
    """Returns the sweep of a trial, which runs in its own process or in that of the sweep."""
    if not asked.in_sweep:
        return sweep_of(asked.path)
    chosen = [each for each in asked.overrides if each.partition("=")[0] in _swept(asked.path.parent)]
    return Sweep(asked.path.parent, label(chosen))


def _swept(folder: Path) -> set[str]:
    """Returns the options that the trials of a sweep differ in, as its command line says."""
    with contextlib.suppress(UnreadableError, OSError, HydraException, KeyError, TypeError):
        typed = read_yaml(folder / "multirun.yaml")["hydra"]["overrides"]["task"]
        parsed = OverridesParser.create().parse_overrides(typed)
        return {str(each.input_line).partition("=")[0] for each in parsed if each.is_sweep_override()}
    return set()


def label(overrides: Iterable[str]) -> str:
    """Returns options in short, such as `lr=0.002,seed=1`: without paths, and those on which no result depends."""
    given: dict[str, str] = {}  # the last value counts
    for each in overrides_once(overrides):
        name, equals, value = each.lstrip("+").partition("=")
        if not within(name.lstrip("~"), _UNNAMED):
            given[name] = equals + value
    last = Counter(map(_last, given))
    short = (f"{_last(name) if last[_last(name)] == 1 else name}{value}" for name, value in given.items())
    text = harmless(",".join(short), 1000)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _last(name: str) -> str:
    """Returns the last part of the name of an option, with the sign of one that is removed."""
    return "~" * name.startswith("~") + name.lstrip("~").rpartition(".")[2]


def _choice(asked: Asked, group: str) -> str | None:
    """Returns the name of the file that was chosen in a group, as far as Hydra or the options say so."""
    hydra: Any = asked.config.get("hydra")
    if hydra is None and asked.in_sweep and HydraConfig.initialized():
        hydra = HydraConfig.get()
    if hydra is not None:
        return hydra.runtime.choices.get(group) or None
    typed = [each.partition("=")[2] for each in asked.overrides if each.lstrip("+").startswith(f"{group}=")]
    return typed[-1] if typed else None


@contextlib.contextmanager
def concluded(loggers: Iterable[Any], title: str, facts: Callable[[], dict[str, Any]]) -> Iterator[Outcome]:
    """States to trackers at the end of the block how the run has ended.

    - `loggers`: the loggers of the run, of which trackers have `end_run`.
    - `title`: its name in alerts.
    - `facts`: a function that returns what is known of a run that fails.
    """
    outcome = Outcome()
    try:
        yield outcome
    except BaseException as error:
        outcome.exit_code, outcome.result = _exit_code(error), facts()
        outcome.error = masked_text(str(error) or type(error).__name__) if outcome.exit_code else None
        if isinstance(error, Exception) and not isinstance(error, Interrupted):
            outcome.alert = f"{'not finite' if isinstance(error, NonFiniteError) else 'failed'}: {title}"
        raise
    finally:
        for logger in loggers:
            if hasattr(logger, "end_run"):
                logger.end_run(outcome)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return (exit_code(error) if isinstance(error, Exception) else None) or 1


def summarized(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of `result.json` for a tracker: with ratios to the floors and hashes, and without paths."""
    metrics, protocol = result.get("metrics") or {}, result.get("protocol") or {}
    measured = [name for name in metrics if name.partition("@")[0] == metric_of(name)]
    floors = {name: metrics.get(metric_of(name) + "_floor") for name in measured}
    hashes = {name: hash_of(name, protocol) for name in measured}
    summary = {
        **result,
        "ratios": {name: metrics[name] / floor for name, floor in floors.items() if floor},
        "protocol_hashes": {name: each for name, each in hashes.items() if each},
    }
    if result.get("checkpoint"):
        summary["checkpoint"] = Path(result["checkpoint"]).name
    return summary
