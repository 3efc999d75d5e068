"""What train.py and sample.py share: checking a configuration before anything exists, and the record of a run."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from inkdrop import __version__

EXIT_CONFIGURATION, EXIT_DATA = 2, 3
CONF = Path(__file__).resolve().parents[2] / "conf"


class CheckConfiguration(Callback):
    """Hydra calls this before it makes the run folder: a wrong configuration ends with code 2 and leaves nothing."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._check(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if all(key.startswith("hydra.") for key in OmegaConf.missing_keys(config)):  # else the sweep itself gives it
            self._check(config)

    def _check(self, config: DictConfig) -> None:
        from inkdrop.configuration import USER_TARGETS, build, check, check_settings
        from inkdrop.pipeline import find_checkpoint

        quiet()
        try:
            _refuse_new_options(config.hydra.overrides.task)
            plain = resolved(config)
            allowed = (*USER_TARGETS, *plain.get("allow_targets", []))
            check_settings(plain)
            check(plain, allowed)
            _check_new(Path(plain["output_dir"]))
            task = build(plain.get("task"), allowed)  # parts that do not fit each other say so here
            if task is not None:
                task.pipeline.sampler.time_grid(task.pipeline.denoiser.schedule)
                for likelihood in build(plain["likelihood"], allowed).values():
                    likelihood.check(task.pipeline)
            if "data" in plain:
                build(plain["data"], allowed).verify()
            if "checkpoint" in plain:
                find_checkpoint(plain["checkpoint"])
            if plain.get("init_from") and not Path(plain["init_from"]).exists():
                raise ValueError(f"init_from={plain['init_from']} does not exist")
        except (ValueError, OmegaConfBaseException) as error:
            stop(error)


def _refuse_new_options(overrides: Iterable[str]) -> None:
    """`ValueError` for `+key=value` at the top of a configuration, where nothing would read it."""
    for override in overrides:
        key = override.partition("=")[0]
        if key.startswith("+") and not any(mark in key for mark in "./@") and not (CONF / key.lstrip("+")).is_dir():
            raise ValueError(f"{key.lstrip('+')} is no option: --help lists them")


def _check_new(output: Path) -> None:
    """`ValueError` if a run lies in this folder already; ranks after the first find what the first one made."""
    if os.environ.get("LOCAL_RANK", "0") == "0" and any((output / f).exists() for f in ("config.yaml", "result.json")):
        raise ValueError(f"output_dir={output} holds another run: choose a new folder")


def composed(name: str, overrides: list[str]) -> DictConfig:
    """A configuration of `conf/` under overrides; `ValueError` for what Hydra refuses."""
    _refuse_new_options(overrides)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, overrides)
    except HydraException as error:
        raise ValueError(str(error)) from None


def stop(error: Exception) -> NoReturn:
    """Ends with the error's message alone and exit code 3 for data, else 2: the user's mistake needs no traceback.

    In a sweep the error is raised instead, so that Hydra goes on with the other runs.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise error
    print(f"error: {error}", file=sys.stderr)
    from inkdrop.data import DataError

    sys.exit(EXIT_DATA if isinstance(error, DataError) else EXIT_CONFIGURATION)


def resolved(config: DictConfig, output_dir: str | None = None) -> dict[str, Any]:
    """The configuration as plain data with every reference followed, without Hydra's own part.

    Where `data.num_classes` is null it is found in the data, as other parts refer to it.
    `output_dir` is the folder that Hydra made; a name with the time in it would be another one in every process.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    if output_dir is not None:
        config.output_dir = output_dir
    if isinstance(data := config.get("data"), DictConfig) and data.get("num_classes", 0) is None:
        data.num_classes = _find_num_classes(data, config.get("allow_targets") or [])
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return plain


def _find_num_classes(data: DictConfig, allow_targets: Iterable[str]) -> int:
    """The number of classes that the data themselves show; other parts of the configuration refer to it."""
    from inkdrop.configuration import USER_TARGETS, build, check

    allowed = (*USER_TARGETS, *allow_targets)
    node = OmegaConf.to_container(data, resolve=True, throw_on_missing=True)
    check(node, allowed, "data")
    return build(node, allowed).num_classes


_CHATTER = ("litlogger", "litmodels", "LOCAL_RANK", "GPU available", "TPU available", "HPU available", "`weights_only`")


def quiet() -> None:
    """Silences what libraries tell every time and nobody can act on."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(text in record.getMessage() for text in _CHATTER))
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).propagate = False  # Lightning prints by itself; Hydra's handler would repeat it
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated.*")  # Lightning 2.6 on torch 2.15


def facts() -> dict[str, Any]:
    """Versions of what a result depends on, and the git commit of the code, or null outside a repository."""
    packages = ("torch", "lightning", "hydra-core", "torchmetrics", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "versions": {"inkdrop": __version__, "python": platform.python_version(), **versions},
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes a record, readable, in one go."""
    path.write_text(json.dumps(content, indent=2) + "\n")
