"""What train.py and sample.py share: checking a configuration before anything exists, and the record of a run."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import os
import platform
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from inkdrop import __version__
from inkdrop.folder_names import apart, by_time
from inkdrop.guides import guides
from inkdrop.masking import hiding, masked_sweep, masked_text, refuse_masked
from inkdrop.reading import read_yaml
from inkdrop.seeds import draw_seed
from inkdrop.showing import harmless, harmless_lines, warn
from inkdrop.suggestions import no_option
from inkdrop.writing import DISK, WriteError, make_folder, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from inkdrop.data import DataModule

EXIT_CONFIGURATION = 2
_SWEEP = "multirun.yaml"
CONF = Path(__file__).resolve().parents[2] / "conf"


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
        from inkdrop.resumption import check_sweep_folder

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
        from inkdrop.report import report

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
        from inkdrop.misfits import told

        if hydra.job.config_name != "train" or hydra.mode == RunMode.MULTIRUN:
            return error
        try:
            plain = resolved(config)
        except (ValueError, OmegaConfBaseException):
            return error
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():  # of what is only tried
            warnings.simplefilter("ignore")
            return told(error, plain, _overrides(hydra), str(CONF), lambda each: self._check(each, each.hydra))

    def _check(self, config: DictConfig, hydra: Any) -> None:
        from inkdrop.checkpoints import find_checkpoint
        from inkdrop.configuration import USER_TARGETS, build, check, check_settings
        from inkdrop.machine import check_devices
        from inkdrop.networks.diffusers_format import is_diffusers_folder
        from inkdrop.ownership import refuse_shared
        from inkdrop.resumption import check_folder
        from inkdrop.sampling_options import check_sampling, check_seeds, completed

        quiet()
        _refuse_unread(config, hydra.job.config_name)
        _refuse_foreign_targets(config, _overrides(hydra), _primary(hydra))
        trial = hydra.mode == RunMode.MULTIRUN and not OmegaConf.is_missing(hydra.job, "num")
        plain = resolved(config, hydra.runtime.output_dir if trial else None)
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
    from inkdrop.machine import check_batch_size
    from inkdrop.networks.recomputing import recompute_activations

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
        _place_guidance(config)
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


def _refuse_unread(config: DictConfig, name: str) -> None:
    """`ValueError` for an option at the top that no file of conf/ and no reference knows: nothing would read it.

    The file is that of this name, or else the one that a user's own is built on, or has most in common with. Further
    down, the signatures say what is read. An option that the file has must be there still.
    """
    files = {file.stem: OmegaConf.load(file) for file in CONF.glob("*.yaml")}
    known: Any = {stem: OmegaConf.to_container(content, resolve=False) for stem, content in files.items()}
    own = name.removesuffix(".yaml") not in known
    base = max(known, key=lambda each: len(known[each].keys() & set(config))) if own else name.removesuffix(".yaml")
    content = known[base]
    defaults = [str(key) for each in content.pop("defaults") if isinstance(each, dict) for key in each]
    groups = [key for key in defaults if key != "experiment" and not key.startswith("override ")]
    text = OmegaConf.to_yaml(config)
    for key in map(str, config):
        if key not in (*content, *groups, "hydra") and not re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text):
            raise ValueError(no_option(key, [*content, *groups], "; --help explains them"))
    if missing := sorted(set(content) - {"hydra"} - set(config)):
        advice = f"`defaults: [{base}, _self_]` in {name} gives it" if own else f"~{missing[0]} takes it away"
        raise ValueError(f"{missing[0]} is missing: {base}.yaml has it, {advice}")


def _refuse_foreign_targets(config: DictConfig, overrides: Iterable[str], primary: Mapping[str, Any]) -> None:
    """`ValueError` for targets that are allowed by a file which a configuration only includes.

    What may be executed is for the user to say: on the command line, or in the primary configuration itself.
    """
    named = config.get("allow_targets")
    allowed: Any = OmegaConf.to_container(named, resolve=False) if OmegaConf.is_list(named) else []
    given = any(each.lstrip("+").partition("=")[0] == "allow_targets" for each in overrides)
    if allowed and not given and allowed != primary.get("allow_targets"):
        raise ValueError(
            f"allow_targets={harmless(allowed)} stands in a file that this configuration includes, and counts on the "
            "command line or in a primary configuration of your own alone: give it there, if you trust all of them"
        )


def _overrides(hydra: Any) -> list[str]:
    """The options of the command line as they were typed: references in them are not followed."""
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return typed


def _primary(hydra: Any) -> dict[str, Any]:
    """The primary configuration as its own file has it."""
    for source in hydra.runtime.config_sources:
        file = Path(source.path) / f"{str(hydra.job.config_name).removesuffix('.yaml')}.yaml"
        if source.schema == "file" and file.is_file():
            primary: dict[str, Any] = read_yaml(file)
            return primary
    return {}


def composed(name: str, overrides: list[str]) -> DictConfig:
    """A configuration of `conf/` under overrides; `ValueError` for what Hydra refuses."""
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(name, overrides)
    except (HydraException, OSError, TypeError, ValueError) as error:  # of what is no name of a group
        raise ValueError(str(error)) from None
    _refuse_unread(config, name)
    _refuse_foreign_targets(config, overrides, {})
    return config


def exit_code(error: Exception) -> int | None:
    """The code that an error ends the program with, its message alone; None for a fault, which needs a traceback."""
    on_disk = isinstance(error, OSError) and error.errno in DISK  # met by a library that writes
    code: int | None = getattr(error, "exit_code", WriteError.exit_code if on_disk else None)
    return code


def stop(error: Exception) -> NoReturn:
    """Ends with the error's message alone and its exit code, else 2: it needs no traceback."""
    print(harmless_lines(masked_text(f"error: {error}")), file=sys.stderr)
    sys.exit(exit_code(error) or EXIT_CONFIGURATION)


def resolved(config: DictConfig, output_dir: str | None = None) -> dict[str, Any]:
    """The configuration, settled, as plain data with every reference followed."""
    plain: Any = OmegaConf.to_container(settled(config, output_dir), resolve=True, throw_on_missing=True)
    return plain


def settled(config: DictConfig, output_dir: str | None = None) -> DictConfig:
    """The configuration with its references, without Hydra's own part, and with all that is found or drawn.

    Where `data.shape` or `data.num_classes` is null it is found in the data; a null seed is drawn, and a callback,
    guide, likelihood or logger that is null is left out.
    `output_dir` is the folder that Hydra made; a name with the time in it would be another one in every process.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    draw_seed(config, output_dir)
    _place_guidance(config)
    _leave_out(config)
    if config.get("checkpoint") and config.get("extractor") is not None:  # which may refer to the data
        from inkdrop.checkpoints import checked_data, read_checkpoint

        path, content = config.checkpoint, read_checkpoint(config.checkpoint)
        targets, folders = (config.get(name) or [] for name in ("allow_targets", "data_folders"))
        config.data = checked_data(path, content, targets, folders)
    if output_dir is not None:
        config.output_dir = output_dir
    if isinstance(data := config.get("data"), DictConfig):
        find_facts(data, config.get("allow_targets") or [])
    return config


def _place_guidance(config: DictConfig) -> None:
    """Puts the short options of guidance where they belong."""
    if isinstance(config.get("guidance"), DictConfig):
        chosen: Any = OmegaConf.to_container(config.guidance, resolve=False)
        config.guidance = guides(chosen)


def _leave_out(config: DictConfig) -> None:
    """Removes what null switches off, before anything refers to it; to sample.py a null group is that of the run."""
    if OmegaConf.select(config, "trainer.enable_progress_bar") is False and config.get("callbacks"):
        config.callbacks.progress = None  # Lightning refuses the one without the other
    for name in ("callbacks", "guidance", "likelihood", "logger", "metric"):
        if "task" in config and config.get(name) is None:
            config[name] = {}
        if name != "guidance" and isinstance(parts := config.get(name), DictConfig):
            for key in [key for key, part in parts.items() if part is None]:
                del parts[key]


def find_facts(data: DictConfig, allow_targets: Iterable[str]) -> None:
    """Puts shape and number of classes in the place of null, as the data themselves show them: others refer to them."""
    from inkdrop.configuration import USER_TARGETS, build, check

    if not (unknown := [name for name in ("shape", "num_classes") if data.get(name, 0) is None]):
        return
    allowed = (*USER_TARGETS, *allow_targets)
    node: Any = OmegaConf.to_container(data, resolve=True, throw_on_missing=True)
    if "shape" in unknown:  # parts of the data, such as a decoder, refer to it, and are not needed to see it
        node = {
            name: value for name, value in node.items() if not isinstance(value, Mapping) or "_target_" not in value
        }
    check(node, allowed, "data")
    found = build(node, allowed)
    for name in unknown:
        data[name] = getattr(found, name)


_CHATTER = ("litlogger", "litmodels", "LOCAL_RANK", "GPU available", "TPU available", "HPU available", "`weights_only`")


def quiet() -> None:
    """Silences what libraries tell every time and nobody can act on."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(text in record.getMessage() for text in _CHATTER))
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).propagate = False  # Lightning prints by itself; Hydra's handler would repeat it
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")  # a compiler's own question
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning 2.6 on torch 2.15


def facts() -> dict[str, Any]:
    """What a result depends on to the bit: versions, threads, and the git commit, or null outside a repository."""
    import torch  # takes seconds

    packages = ("torch", "lightning", "hydra-core", "torchmetrics", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "versions": {"inkdrop": __version__, "python": platform.python_version(), **versions},
        "threads": torch.get_num_threads(),
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes a record, readable, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
