"""`config.yaml` of a run: the configuration of another run, which begins in a folder of its own."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration.compose import CONF
from inkdrop.configuration.secrets import Path, masked

_HEAD = "# The run again, in a new folder: python train.py --config-dir RUN --config-name config [option=value]\n"
_NOW = "${now:"  # in a name that is another one each time


def startable(config: DictConfig, output_dir: Any, secret: set[Path]) -> str:
    """A configuration with its references as YAML from which train.py starts, whatever folder the run itself had.

    `output_dir` is as it was asked for; `secret` are the paths of values that are not written down.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    base: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"), resolve=False)
    named = {path for path in secret if "oc.env" in str(_at(plain, path))}  # a reference to one tells nothing
    fresh = {
        "output_dir": output_dir if _NOW in str(output_dir) else base["output_dir"],
        **{name: base[name] for name in ("resume", "resume_allow", "run_id")},
    }
    defaults = ["_self_", *(each for each in base["defaults"] if any(str(key).startswith("override ") for key in each))]
    content = {"defaults": defaults, **masked(plain, named), **fresh, "hydra": base["hydra"]}
    return _HEAD + OmegaConf.to_yaml(OmegaConf.create(content))


def _at(plain: Any, path: Path) -> Any:
    """What lies at a path, or the reference that leads there."""
    for key in path:
        if isinstance(plain, str):
            return ""
        plain = plain[key]
    return plain
