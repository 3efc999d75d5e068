"""The `config.yaml` of a run, from which another run can be started in its own folder."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration.compose import content_of
from inkdrop.configuration.secrets import Path, masked
from inkdrop.files import as_yaml

_HEAD = "# The run again, in a new folder: python train.py --config-dir RUN --config-name config [option=value]\n"
_NOW = "${now:"  # a name with it differs each time


def startable(config: DictConfig, output_dir: Any, secret: set[Path]) -> str:
    """Returns a configuration with its references as YAML from which train.py can start a new run in a new folder.

    `output_dir` is the unresolved option, and `secret` are the paths of values that are not written.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    base = content_of("train")
    named = {path for path in secret if "oc.env" in str(_at(plain, path))}  # a reference to one reveals nothing
    fresh = {
        "output_dir": output_dir if _NOW in str(output_dir) else base["output_dir"],
        **{name: base[name] for name in ("resume", "resume_allow", "run_id")},
    }
    defaults = ["_self_", *(each for each in base["defaults"] if any(str(key).startswith("override ") for key in each))]
    content = {"defaults": defaults, **masked(plain, named), **fresh, "hydra": base["hydra"]}
    return _HEAD + as_yaml(content)


def _at(plain: Any, path: Path) -> Any:
    """Returns the value at a path, or an empty string if a reference leads there."""
    for key in path:
        if isinstance(plain, str):
            return ""
        plain = plain[key]
    return plain
