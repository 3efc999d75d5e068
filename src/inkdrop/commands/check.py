"""Checking a configuration before anything exists."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from inkdrop.commands.terminal import quiet, stop
from inkdrop.configuration.compose import (
    CONF,
    overrides_of,
    place_guidance,
    primary_of,
    refuse_foreign_targets,
    refuse_unread,
    resolved,
)
from inkdrop.configuration.secrets import hiding, masked_sweep, refuse_masked
from inkdrop.configuration.seed import draw_seed
from inkdrop.files.showing import harmless, warn
from inkdrop.files.writing import make_folder, write_text
from inkdrop.runs.folder_names import apart, by_time

if TYPE_CHECKING:
    from torch import Tensor

    from inkdrop.data import DataModule

_SWEEP = "multirun.yaml"


class CheckConfiguration(Callback):
    """Hydra calls this before it makes the run folder: a wrong configuration ends with code 2 and leaves nothing."""

    sweep: ClassVar[Path | None] = None  # folder of the sweep that this process is at
    clear: ClassVar[str | None] = None  # its `multirun.yaml` without secrets, if it has some
    failed: ClassVar[list[Path]] = []  # of its trials, in which results of an earlier sweep may lie

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _stopping():
            draw_seed(config, told=True)  # in Hydra's own configuration, from which the run gets it
            base = by_time(config, "hydra.run.dir")
            if base is not None:
                config.output_dir = str(apart(base))
        self.check(config, config.hydra)
        if only_checked(config):
            sys.exit()
        if base is not None:
            config.output_dir = str(apart(base, made=True))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from inkdrop.runs.resumption import check_sweep_folder

        with _stopping():
            base = by_time(config, "hydra.sweep.dir")
            folder = Path(config.hydra.sweep.dir) if base is None else apart(base)
            _remove_own_link(folder)
            check_sweep_folder(folder, config)
            complete = _complete(config)
        if complete:  # else the sweep itself gives what is missing
            self.check(config, config.hydra)
        if base is not None and (folder := apart(base, made=True)) != base:
            OmegaConf.set_readonly(config, False)
            OmegaConf.set_readonly(config.hydra, False)
            config.output_dir = str(folder)
            config.hydra.overrides.task.append(f'output_dir="{folder}"')  # of which the trials are composed
        CheckConfiguration.sweep, CheckConfiguration.failed = folder, []
        with _stopping():
            _keep_clear(config, folder)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._write_sweep()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self._write_sweep()
        self.show_results()

    @classmethod
    def _write_sweep(cls) -> None:
        """Writes what Hydra was kept from, where it wrote `multirun.yaml` to nowhere."""
        if cls.sweep is not None and cls.clear is not None:
            write_text(cls.sweep / _SWEEP, cls.clear)
            cls.clear = None

    @classmethod
    def show_results(cls) -> None:
        """Shows the results of a sweep side by side, where there are any that may be."""
        from inkdrop.commands.report import report

        if cls.sweep is None:  # a configuration of the user's own without this callback
            return
        try:
            found = report(cls.sweep, without=cls.failed)
            print("\n" + found.markdown())
            print(*map(harmless, found.write(cls.sweep)), sep="\n", flush=True)
            for told in found.unreadable:
                warn(told)
        except (OSError, ValueError) as error:
            warn(f"no table of this sweep: {error}")

    def check(self, config: DictConfig, hydra: Any) -> None:
        """Ends with code 2 or 3 if the configuration cannot work; a part that fails in another way ends with code 1."""
        with _stopping():
            try:
                self._check(config, hydra)
            except OmegaConfBaseException:  # of the file, not of its parts
                raise
            except ValueError as error:
                raise self._with_all(error, config, hydra) from None

    def _with_all(self, error: ValueError, config: DictConfig, hydra: Any) -> ValueError:
        """The error, with all else that does not fit where it is train.yaml whose parts do not."""
        from inkdrop.commands.train.misfits import told

        if hydra.job.config_name != "train" or hydra.mode == RunMode.MULTIRUN:
            return error
        try:
            plain = resolved(config)
        except (ValueError, OmegaConfBaseException):
            return error
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # of what is only tried
            warnings.simplefilter("ignore")
            return told(error, plain, overrides_of(hydra), str(CONF), lambda each: self._check(each, each.hydra))

    def _check(self, config: DictConfig, hydra: Any) -> None:
        from inkdrop.checkpoints import find_checkpoint
        from inkdrop.commands.sample.options import check_sampling, check_seeds, completed, data_of
        from inkdrop.configuration import USER_TARGETS, build, check, check_settings
        from inkdrop.networks.diffusers_format import is_diffusers_folder
        from inkdrop.runs.machine import check_devices
        from inkdrop.runs.ownership import refuse_shared
        from inkdrop.runs.resumption import check_folder

        quiet()
        refuse_unread(config, hydra.job.config_name)
        refuse_foreign_targets(config, overrides_of(hydra), primary_of(hydra))
        trial = hydra.mode == RunMode.MULTIRUN and not OmegaConf.is_missing(hydra.job, "num")
        plain = resolved(config, hydra.runtime.output_dir if trial else None, data_of(config))
        with hiding(config):
            check_settings(plain)
        if "checkpoint" in plain:
            check_seeds(plain)
            plain = completed(plain)
        allowed = (*USER_TARGETS, *plain["allow_targets"])
        with hiding(config):
            check(plain, allowed)
        refuse_masked(plain)
        folder = plain["output_dir"] if hydra.mode == RunMode.MULTIRUN else hydra.run.dir
        check_folder(Path(folder), config, plain)
        world_size = check_devices(plain["trainer"])
        if hydra.mode == RunMode.MULTIRUN:
            if world_size > 1 and "BasicLauncher" in hydra.launcher._target_:
                raise ValueError(
                    f"trainer.devices={plain['trainer'].get('devices')} in a sweep within one process, whose other "
                    "processes would each run the whole sweep: start the trials one by one, or each in its own process"
                )
            if not trial:  # whether parts fit each other, each trial says
                refuse_shared(config)
                return
        task = build(plain.get("task"), allowed)  # parts that do not fit each other say so here
        if task is not None:
            _check_training(task.pipeline, plain, allowed, world_size)
            task.foresee(plain["trainer"]["max_steps"])
        if "checkpoint" in plain:
            check_sampling(plain, allowed)
            build(plain["guidance"], allowed)
        item = self.check_data(build(plain["data"], allowed)) if "data" in plain else None
        if task is not None and item is not None:
            task.pipeline.codec.check(item)
        if plain.get("init_from") and not is_diffusers_folder(Path(plain["init_from"])):
            find_checkpoint(plain["init_from"], "init_from")
        for callback in build(list(plain.get("callbacks", {}).values()), allowed):
            getattr(callback, "verify", lambda: None)()
            if item is not None and (evaluation := getattr(callback, "evaluation", None)) is not None:
                evaluation.check_item(item)

    def check_data(self, data: DataModule) -> Tensor | None:
        """Raw data (1, *) like these; `ValueError` for data that are absent or of another shape."""
        data.verify()
        return data.example()


def only_checked(config: DictConfig) -> bool:
    """Whether a configuration asks for no training; says so."""
    if config.get("trainer") is None or config.trainer.get("max_steps") != 0:
        return False
    warn(
        "trainer.max_steps=0: the configuration was checked and nothing is trained; the data were not read, which "
        "`python -m inkdrop check-data` with the same options does"
    )
    return True


def _keep_clear(config: DictConfig, folder: Path) -> None:
    """Lets Hydra, which writes down all overrides of a sweep, do so in no file where secrets are among them."""
    clear = OmegaConf.to_yaml(OmegaConf.create(masked_sweep(config)))
    if clear != OmegaConf.to_yaml(config):
        make_folder(folder)
        (folder / _SWEEP).unlink(missing_ok=True)
        (folder / _SWEEP).symlink_to(os.devnull)
        CheckConfiguration.clear = clear


def _remove_own_link(folder: Path) -> None:
    """Removes what `_keep_clear` leaves of a sweep that is killed while it begins."""
    link = folder / _SWEEP
    if link.is_symlink() and os.readlink(link) == os.devnull:
        link.unlink()


def _check_training(pipeline: Any, plain: dict[str, Any], allowed: tuple[str, ...], world_size: int) -> None:
    from inkdrop.configuration import build
    from inkdrop.networks.recomputing import recompute_activations
    from inkdrop.runs.machine import check_batch_size

    check_batch_size(plain["data"].get("batch_size", world_size), world_size)
    pipeline.check()
    if plain["checkpoint_activations"]:
        recompute_activations(pipeline.network)  # says so where there are no blocks
    for likelihood in build(plain["likelihood"], allowed).values():
        likelihood.check(pipeline)
    if plain["optimizer"]["lr"] == 0:
        print("warning: optimizer.lr=0: the weights stay as they are", file=sys.stderr)


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
    except (ValueError, OmegaConfBaseException) as error:
        stop(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
