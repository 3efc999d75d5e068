"""What Hydra calls before and between runs: a configuration is checked before anything exists, a sweep is summed up."""

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
    """Hydra calls this before it makes the run folder: a wrong configuration ends with its code and leaves nothing."""

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
            if now.prepared.only_checked:
                sys.exit()
            if base is not None:
                config.output_dir = str(apart(base, made=True))
                if Path(config.output_dir) != now.prepared.asked.folder:  # another process was faster
                    now.prepared.open.close()
                    now.prepared = now.prepare(asked_of(config, config.hydra, config.output_dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from inkdrop.runs.machine import world_size_of

        if (now := current()) is None:
            return
        with _stopping():
            base = by_time(config, "hydra.sweep.dir")
            folder = Path(config.hydra.sweep.dir) if base is None else apart(base)
            _remove_own_link(folder)
            now.command.check_sweep(folder, config)
            if _complete(config):  # else the sweep itself gives what is missing
                asked = asked_of(config, config.hydra, config.output_dir)
                with for_the_user():
                    trainer = now.command.check_trials(asked, now)
                    refuse_several(world_size_of(trainer), trainer, config.hydra)
        if base is not None and (folder := apart(base, made=True)) != base:
            OmegaConf.set_readonly(config, False)
            OmegaConf.set_readonly(config.hydra, False)
            config.output_dir = str(folder)
            config.hydra.overrides.task.append(f'output_dir="{folder}"')  # of which the trials are composed
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
    """Shows the results of a sweep side by side, where there are any that may be."""
    from inkdrop.commands.report.page import report

    if now.sweep is None:  # a configuration of the user's own without this callback
        return
    try:
        found = report(now.sweep, without=now.failed)
        print("\n" + found.markdown())
        print(*map(harmless, found.write(now.sweep)), sep="\n", flush=True)
        for text in found.unreadable:
            warn(text)
    except (OSError, ValueError) as error:
        warn(f"no table of this sweep: {error}")


def asked_of(config: DictConfig, hydra: Any, folder: str) -> Asked:
    """What Hydra was asked for: this configuration, for a run in this folder."""
    return Asked(
        config,
        Path(folder),
        hydra.job.config_name.removesuffix(".yaml"),
        overrides_of(hydra),
        primary_of(hydra),
        in_sweep=hydra.mode == RunMode.MULTIRUN,
    )


def refuse_several(world_size: int, trainer: Mapping[str, Any], hydra: Any) -> None:
    """`ConfigurationError` for trials of several processes in a sweep within one."""
    if hydra.mode == RunMode.MULTIRUN and world_size > 1 and "BasicLauncher" in hydra.launcher._target_:
        raise ConfigurationError(
            f"trainer.devices={trainer.get('devices')} in a sweep within one process, whose other processes "
            "would each run the whole sweep: start the trials one by one, or each in its own process"
        )


def _write_sweep(now: Session | None) -> None:
    """Writes what Hydra was kept from, where it wrote `multirun.yaml` to nowhere."""
    if now is not None and now.sweep is not None and now.clear is not None:
        write_text(now.sweep / _SWEEP, now.clear)
        now.clear = None


def _keep_clear(config: DictConfig, folder: Path, now: Session) -> None:
    """Lets Hydra, which writes down all overrides of a sweep, do so in no file where secrets are among them."""
    clear = OmegaConf.to_yaml(OmegaConf.create(masked_sweep(config)))
    if clear != OmegaConf.to_yaml(config):
        make_folder(folder)
        (folder / _SWEEP).unlink(missing_ok=True)
        (folder / _SWEEP).symlink_to(os.devnull)
        now.clear = clear


def _remove_own_link(folder: Path) -> None:
    """Removes what `_keep_clear` leaves of a sweep that is killed while it begins."""
    link = folder / _SWEEP
    if link.is_symlink() and os.readlink(link) == os.devnull:
        link.unlink()


def _complete(config: DictConfig) -> bool:
    """Whether nothing in a configuration, or that it refers to, is `???`."""
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("hydra")  # which hears of the trial later
    try:
        place_guidance(config)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError):
        return False
    except OmegaConfBaseException:  # something else is wrong, which the check tells
        pass
    return True


@contextmanager
def _stopping() -> Iterator[None]:
    """Ends the program for whatever goes wrong, where Hydra would only warn."""
    try:
        yield
    except (InkdropError, ValueError, OmegaConfBaseException) as error:
        stop(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
