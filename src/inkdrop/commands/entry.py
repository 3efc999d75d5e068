"""The entry points of train.py and sample.py: their help, and their exit after an error.

This module imports only Hydra and YAML, so that help and mistyped options are answered immediately.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from yaml import YAMLError

from inkdrop.commands.check import asked_of, refuse_several, show_results
from inkdrop.commands.command import Command, Prepared, Session, current, session
from inkdrop.commands.terminal import EXIT_CONFIGURATION, exit_code, quiet, show, stop
from inkdrop.configuration.compose import CONF, explained, refuse_without_conf
from inkdrop.configuration.help import show as show_help
from inkdrop.configuration.secrets import masked_text
from inkdrop.configuration.seed import draw_seed
from inkdrop.configuration.suggestions import command as typed_as
from inkdrop.configuration.suggestions import nearest
from inkdrop.distributed.signals import EXIT_CODES
from inkdrop.errors import ConfigurationError, InkdropError, NonFiniteError, TrialError
from inkdrop.files.showing import harmless, harmless_lines, pipe_may_close


def start(command: Command[Any], arguments: Sequence[str], only_check: bool = False) -> None:
    """Runs a command, or prints its help; a configuration that Hydra refuses ends it with exit code 2.

    With `only_check` it ends after the check of the configuration, and leaves no files.
    """
    quiet()  # before libraries are imported that print messages
    with session(command) as now, _read_by_hydra() as typed:
        now.only_check = only_check
        try:
            refuse_without_conf()
            if {"--help", "-h"} & set(arguments):
                with pipe_may_close():
                    show_help(CONF, command.name, command.description, with_absolute_path(command.spelled(arguments)))
                    print(command.help(arguments), end="", flush=True)
                return
            refuse_unknown_flags(command.name, arguments)
            now.added = command.options(arguments)
            sys.argv[1:] = [*with_absolute_path(command.spelled(arguments)), *now.added]  # Hydra reads them there

            @hydra.main(version_base="1.3", config_path=str(CONF), config_name=command.name)
            def main(config: DictConfig) -> Any:
                sys.argv[:] = [*typed, *now.added]  # Lightning starts further processes with them
                return run(command, config)

            main()
        except TrialError as error:  # Hydra raises it before it calls on_multirun_end
            show_results(now)
            print(f"error: {error}; other trials may have failed too, see above", file=sys.stderr)
            sys.exit(error.exit_code)
        except InkdropError as error:
            stop(error)
        except (HydraException, YAMLError, OSError, TypeError, ValueError) as error:  # those of a run end in `run`
            print(harmless_lines(masked_text(f"error: {explained(error, arguments)}")), file=sys.stderr)
            sys.exit(EXIT_CONFIGURATION)


@contextlib.contextmanager
def _read_by_hydra() -> Iterator[list[str]]:
    """Makes Hydra raise its errors within the block, and restores the process's arguments and variables after it."""
    typed, before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself, and ends with code 1
    try:
        yield typed
    finally:
        sys.argv[:] = typed
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def refuse_unknown_flags(verb: str, arguments: Sequence[str]) -> None:
    """Raises `ConfigurationError` for unknown arguments with dashes, for which Hydra would print its own usage."""
    parser = get_args_parser()
    parser.prog = typed_as(verb)
    _, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        known = [flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
        near = nearest(unknown[0].lstrip("-").partition("=")[0], known)
        advice = f"did you mean --{near}?" if near else "type options as in seed=1; see --help"
        raise ConfigurationError(f"unknown argument {harmless(unknown[0])}: {advice}")


def with_absolute_path(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with an absolute --config-path, which is relative to the working directory."""
    given = list(arguments)
    for place, each in enumerate(given):
        name, equals, value = each.partition("=")
        if name in ("--config-path", "-cp"):
            if equals:
                given[place] = f"{name}={Path(value).absolute()}"
            elif place + 1 < len(given):
                given[place + 1] = str(Path(given[place + 1]).absolute())
    return given


def run(command: Command[Any], config: DictConfig) -> Any:
    """Runs a command in the folder that Hydra made; a trial of a sweep fails without ending the sweep."""
    from inkdrop.distributed.ranks import disband

    hydra: Any = HydraConfig.get()
    now, sweep = current() or Session(command), hydra.mode == RunMode.MULTIRUN
    try:
        prepared, now.prepared = now.prepared or _prepared(now, config, hydra), None
        if prepared.only_checked:
            prepared.open.close()
            with contextlib.suppress(OSError):  # it may contain other files
                os.rmdir(prepared.asked.folder)
            return {}
        result = command.run(prepared)
        disband()
        return objective(prepared, result)
    except SystemExit as error:
        if not sweep or error.code in EXIT_CODES.values():  # a signal ends all trials
            raise
        code = error.code if isinstance(error.code, int) and error.code else 1
    except Exception as error:
        code = exit_code(error) or 1
        if code == 1:
            traceback.print_exc()
        else:
            show(error)
        if code in EXIT_CODES.values():
            sys.exit(code)
    if sweep:  # an exit here would skip the other trials
        now.failed.append(Path(hydra.runtime.output_dir))
        raise TrialError(str(hydra.job.num), code)
    sys.exit(code)


def _prepared(now: Session, config: DictConfig, hydra: Any) -> Prepared:
    """Prepares a trial of a sweep, or the run of the user's own configuration that extends none of inkdrop's."""
    folder = hydra.runtime.output_dir
    draw_seed(config, folder, shown=True)
    prepared = now.prepare(asked_of(config, hydra, folder))
    try:
        refuse_several(prepared.world_size, prepared.plain["trainer"], hydra)
    except ConfigurationError:
        prepared.open.close()
        raise
    return prepared


def objective(prepared: Prepared, result: dict[str, Any]) -> Any:
    """Returns what a sweeper reads of a trial: the metrics that `objective` names, one or a list, or else the result.

    Raises `ConfigurationError` if there is no metric of such a name, and `NonFiniteError` if one is not finite.
    """
    if not prepared.objective:
        return result
    metrics = result["metrics"]
    for name in prepared.objective:
        if name not in metrics:
            raise ConfigurationError(f"objective={name} is not measured; available: {', '.join(metrics)}")
        if not math.isfinite(metrics[name]):
            raise NonFiniteError(f"not finite: the objective {name}")
    values = [metrics[name] for name in prepared.objective]
    return values if len(values) > 1 else values[0]
