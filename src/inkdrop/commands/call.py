"""Commands called from Python."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from inkdrop.commands.command import Asked, Command, for_the_user, session
from inkdrop.commands.terminal import quiet_within
from inkdrop.configuration.compose import raw
from inkdrop.configuration.seed import draw_seed
from inkdrop.configuration.suggestions import options as written
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless
from inkdrop.runs.folder_names import apart

# torch's generators and Hydra's state belong to the process; a callback within a call may call in turn.
_CALLING = threading.RLock()


def call(command: Command[Any], options: Sequence[str]) -> dict[str, Any]:
    """Runs a command with these options and returns the content of `result.json`; calls from threads take turns.

    Raises `InkdropError` for an error that the user can fix.
    """
    with _CALLING, session(command) as now, quiet_within(), _process_kept():
        with for_the_user():
            _refuse_command_line_syntax(command.name, options)
            options = command.spelled(options)
            config = raw(command.name, options)
            unresolved: Any = OmegaConf.to_container(config, resolve=False)
            folder = Path(config.output_dir)
            if "${now:" in str(unresolved["output_dir"]):  # another run may have started in the same second
                folder = apart(folder)
            draw_seed(config, folder, shown=True)
        prepared = now.prepare(Asked(config, folder, command.name, list(options)))
        if prepared.world_size > 1:
            prepared.open.close()
            devices = written({"trainer.devices": prepared.plain["trainer"]["devices"]})
            raise ConfigurationError(
                f"{devices} needs several processes, but a call from Python runs in one: run `inkdrop {command.name}` "
                "with the same options"
            )
        if prepared.only_checked:
            prepared.open.close()
            return {}
        result: dict[str, Any] = command.run(prepared)
        return result


def _refuse_command_line_syntax(verb: str, options: Sequence[object]) -> None:
    """Raises `ConfigurationError` for what only a command line supports: flags, sweeps and Hydra's own settings."""
    for each in options:
        if not isinstance(each, str):
            raise ConfigurationError(f"{harmless(repr(each))} is not an option: give strings such as 'seed=1'")
        if each.startswith("-"):
            raise ConfigurationError(
                f"{harmless(each)} works only on a command line, `inkdrop {verb} {harmless(each)}`: give "
                f"inkdrop.{verb} options such as 'seed=1'"
            )
        if each.lstrip("+~").startswith("hydra") and not each.startswith("hydra.searchpath="):
            raise ConfigurationError(
                f"{harmless(each)} works only on a command line: inkdrop.{verb} accepts only hydra.searchpath of "
                "Hydra's settings"
            )


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Restores the environment, the generators and the settings of torch after the block."""
    import torch

    from inkdrop.distributed.ranks import disband

    environment = dict(os.environ)  # Lightning stores addresses and ranks in it
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    deterministic, excepthook = torch.get_deterministic_debug_mode(), sys.excepthook
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            disband()
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark
            torch.set_deterministic_debug_mode(deterministic)
            sys.excepthook = excepthook  # torch replaces it for several processes
            for name in {*os.environ} - {*environment}:
                del os.environ[name]
            os.environ.update(environment)
