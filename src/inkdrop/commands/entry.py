"""What train.py and sample.py do alike: their help, and how they end when something is wrong.

Imports Hydra and YAML only, so that help and mistyped options are answered at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from inkdrop.commands.check import CheckConfiguration, only_checked
from inkdrop.commands.terminal import EXIT_CONFIGURATION, exit_code, quiet, stop
from inkdrop.configuration.compose import CONF
from inkdrop.configuration.help import show
from inkdrop.configuration.secrets import masked_override, masked_text
from inkdrop.configuration.seed import draw_seed
from inkdrop.configuration.suggestions import no_option
from inkdrop.distributed.signals import EXIT_CODES
from inkdrop.distributed.slurm import folder_option
from inkdrop.errors import InkdropError
from inkdrop.files.showing import harmless_lines


class TrialError(InkdropError):
    """A trial of a sweep failed; what was wrong has been printed."""

    def __init__(self, number: int, code: int):
        super().__init__(number, code)  # which it is made of again in another process
        self.number, self.exit_code = number, code  # type: ignore[misc]

    def __str__(self) -> str:
        return f"trial {self.number} failed with exit code {self.exit_code}"


def start(main: Callable[[], Any], name: str, description: str) -> None:
    """Runs an entry script, or prints its help; a configuration that Hydra refuses ends it with code 2."""
    quiet()  # before anything is imported that tells what it does
    arguments = sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its errors itself, and ends with code 1
    try:
        if {"--help", "-h"} & set(arguments):
            show(CONF, name, description, arguments)
        else:
            sys.argv += folder_option(arguments) if name == "train" else []
            main()
    except TrialError as error:  # which Hydra raises before it calls on_multirun_end
        CheckConfiguration.show_results()
        print(f"error: {error}; other trials may have failed too, see above", file=sys.stderr)
        sys.exit(error.exit_code)
    except (HydraException, YAMLError, OSError, TypeError, ValueError) as error:  # those of a run end in `run`
        print(harmless_lines(masked_text(f"error: {explained(error, arguments)}")), file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)


def run(action: Callable[[DictConfig, str], Any], config: DictConfig) -> Any:
    """What an entry script does, in the folder that Hydra made; a trial of a sweep fails without ending the sweep."""
    from inkdrop.distributed.ranks import disband

    hydra: Any = HydraConfig.get()
    sweep = hydra.mode == RunMode.MULTIRUN
    try:
        if sweep or not _checked(hydra):  # a single run is checked before it has a folder
            draw_seed(config, hydra.runtime.output_dir, told=True)
            CheckConfiguration().check(config, hydra)
            if only_checked(config):
                with contextlib.suppress(OSError):  # others may lie in it
                    os.rmdir(hydra.runtime.output_dir)
                return {}
        result = action(config, hydra.runtime.output_dir)
        disband()
        return _objective(config, result)
    except SystemExit as error:
        if not sweep or error.code in EXIT_CODES.values():  # a signal is meant for all trials
            raise
        code = error.code if isinstance(error.code, int) and error.code else 1
    except Exception as error:
        code = exit_code(error) or 1
        if code == 1:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
    if sweep:  # an exit here would leave the other trials out
        CheckConfiguration.failed.append(Path(hydra.runtime.output_dir))
        raise TrialError(hydra.job.num, code)
    sys.exit(code)


def _checked(hydra: Any) -> bool:
    """Whether the configuration says what checks it; one of the user's own that is built on none of ours does not."""
    return any("CheckConfiguration" in str(each.get("_target_")) for each in (hydra.callbacks or {}).values())


def _objective(config: DictConfig, metrics: dict[str, Any]) -> Any:
    """What a sweeper that searches is given of a trial: the metric that `objective` names, or else all of them.

    Ends with code 2 if there is none of this name, and with code 5 if it is not finite.
    """
    if (name := config.get("objective")) is None:
        return metrics
    from inkdrop.errors import NonFiniteError

    if name not in metrics:
        stop(ValueError(f"objective={name} was not measured: there are {', '.join(metrics)}"))
    if not math.isfinite(metrics[name]):
        stop(NonFiniteError(f"not finite: the objective {name}"))
    return metrics[name]


def explained(error: Exception, arguments: list[str]) -> str:
    """Hydra's message, with the name that was meant where an option does not exist."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        names: Any = cause.parent_node or ()
        advice = f"; +{cause.full_key}=... gives an argument that no YAML file names"
        return no_option(cause.full_key, map(str, names), advice)
    if isinstance(error, OverrideParseException):
        return f"{masked_override(str(error.override))}: {error}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{error}\n{cause}"
    if isinstance(error, HydraException | YAMLError):
        return str(error)
    told = " ".join(map(masked_override, arguments))
    return f"{error}, in {told}; --help lists the names of each group, none among them"
