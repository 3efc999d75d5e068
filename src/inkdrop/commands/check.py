"""The callback of Hydra that checks a configuration before any file exists and shows the results of a sweep."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from inkdrop.commands.command import Asked, Session, current, for_the_user
from inkdrop.commands.terminal import stop
from inkdrop.configuration.compose import overrides_of, place_guidance, primary_of
from inkdrop.configuration.secrets import masked_sweep
from inkdrop.configuration.seed import draw_seed
from inkdrop.errors import ConfigurationError, InkdropError
from inkdrop.files.showing import harmless, warn
from inkdrop.files.writing import make_folder, write_text
from inkdrop.runs.folder_names import apart, by_time

_SWEEP = "multirun.yaml"


class CheckConfiguration(Callback):
    """Checks a configuration before Hydra makes the run folder; a wrong one ends the program and leaves no files."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (now := current()) is None:
            return
        with _stopping():
            if (drawn := draw_seed(config, shown=True)) is not None:  # for the run and for its further processes
                now.added.append(f"seed={drawn}")
            base = by_time(config, "hydra.run.dir")
            if base is not None:
                config.output_dir = str(apart(base))
            now.prepared = now.prepare(asked_of(config, config.hydra, config.hydra.run.dir))
            if now.prepared.only_checked or now.only_check:
                sys.exit()
            if base is not None:
                config.output_dir = str(apart(base, made=True))
                if Path(config.output_dir) != now.prepared.asked.folder:  # another process was faster
                    now.prepared.open.close()
                    now.prepared = now.prepare(asked_of(config, config.hydra, config.output_dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (now := current()) is None or is_in_processes(config.hydra):
            return  # the launcher checks each trial
        from inkdrop.runs.machine import world_size_of

        with _stopping():
            base = by_time(config, "hydra.sweep.dir")
            folder = Path(config.hydra.sweep.dir) if base is None else apart(base)
            _remove_own_link(folder)
            now.command.check_sweep(folder, config)
            if _complete(config):  # else the sweep itself sets the missing values
                asked = asked_of(config, config.hydra, config.output_dir)
                with for_the_user():
                    trainer = now.command.check_trials(asked, now)
                    refuse_several(world_size_of(trainer), trainer, config.hydra)
        if base is not None and (folder := apart(base, made=True)) != base:
            OmegaConf.set_readonly(config, False)
            OmegaConf.set_readonly(config.hydra, False)
            config.output_dir = str(folder)
            config.hydra.overrides.task.append(f'output_dir="{folder}"')  # the trials are composed from it
        now.sweep, now.failed = folder, []
        with _stopping():
            _keep_clear(config, folder, now)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        _write_sweep(current())

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if (now := current()) is not None:
            _write_sweep(now)
            show_results(now)


def show_results(now: Session) -> None:
    """Shows the table of a sweep's results, if there are any that can be compared."""
    if now.sweep is None:  # the launcher shows them, or the user's own configuration has no such callback
        return
    from inkdrop.commands.report.page import report

    try:
        results = report(now.sweep, without=now.failed)
        print("\n" + results.markdown())
        print(*map(harmless, results.write(now.sweep)), sep="\n", flush=True)
        for text in results.unreadable:
            warn(text)
    except (OSError, ValueError) as error:
        warn(f"the table of this sweep is not available: {error}")


def asked_of(config: DictConfig, hydra: Any, folder: str) -> Asked:
    """Returns the request for a run with this configuration in this folder."""
    return Asked(
        config,
        Path(folder),
        hydra.job.config_name.removesuffix(".yaml"),
        overrides_of(hydra),
        primary_of(hydra),
        in_sweep=hydra.mode == RunMode.MULTIRUN,
    )


def is_in_processes(hydra: Any) -> bool:
    """Returns whether the launcher runs each trial of a sweep as a single run in its own process."""
    return str(hydra.launcher._target_).startswith("hydra_plugins.inkdrop_sweeps.")


def refuse_several(world_size: int, trainer: Mapping[str, Any], hydra: Any) -> None:
    """Raises `ConfigurationError` for trials of several processes in a sweep whose launcher runs no single runs."""
    if hydra.mode == RunMode.MULTIRUN and world_size > 1 and not is_in_processes(hydra):
        raise ConfigurationError(
            f"trainer.devices={trainer.get('devices')} does not work with this launcher, because each further process "
            "would run the whole sweep: choose hydra/launcher=processes, which runs each trial as a single run"
        )


def _write_sweep(now: Session | None) -> None:
    """Writes `multirun.yaml` without secrets, where `_keep_clear` made Hydra write it to /dev/null."""
    if now is not None and now.sweep is not None and now.clear is not None:
        write_text(now.sweep / _SWEEP, now.clear)
        now.clear = None


def _keep_clear(config: DictConfig, folder: Path, now: Session) -> None:
    """Redirects the file to which Hydra writes all overrides of a sweep to /dev/null if they contain secrets."""
    clear = OmegaConf.to_yaml(OmegaConf.create(masked_sweep(config)))
    if clear != OmegaConf.to_yaml(config):
        make_folder(folder)
        (folder / _SWEEP).unlink(missing_ok=True)
        (folder / _SWEEP).symlink_to(os.devnull)
        now.clear = clear


def _remove_own_link(folder: Path) -> None:
    """Removes the link of `_keep_clear` that remains after a sweep was killed while it started."""
    link = folder / _SWEEP
    if link.is_symlink() and os.readlink(link) == os.devnull:
        link.unlink()


def _complete(config: DictConfig) -> bool:
    """Returns whether no value of a configuration is `???`, directly or through a reference."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra")  # it receives the trial's values later
    try:
        place_guidance(config)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError):
        return False
    except OmegaConfBaseException:  # the check reports what else is wrong
        pass
    return True


@contextmanager
def _stopping() -> Iterator[None]:
    """Ends the program on any error, where Hydra would only warn."""
    try:
        yield
    except (InkdropError, ValueError, OmegaConfBaseException) as error:
        stop(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
