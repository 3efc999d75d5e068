"""A configuration of `conf/` under overrides, and as plain data with every reference followed."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from inkdrop.configuration.guides import guides
from inkdrop.configuration.secrets import masked_override
from inkdrop.configuration.seed import draw_seed
from inkdrop.configuration.suggestions import no_option
from inkdrop.errors import ConfigurationError
from inkdrop.files import read_yaml
from inkdrop.files.showing import harmless

_PACKAGE = Path(__file__).resolve().parents[1]
# It stands at the top of the repository, and within the package where that was installed from a wheel.
_PLACES = (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf")
CONF = next((each for each in _PLACES if (each / "train.yaml").is_file()), _PLACES[0])


def refuse_without_conf() -> None:
    """`ConfigurationError` if the files that every configuration is composed of did not come with inkdrop."""
    if not (CONF / "train.yaml").is_file():
        raise ConfigurationError(
            f"inkdrop has no conf/, the folder of its configurations: it is neither {_PLACES[0]} nor {_PLACES[1]}. "
            "Install inkdrop again, by `pip install --force-reinstall --no-deps` of its wheel or of a clone with conf/"
        )


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """A configuration of `conf/` under overrides; `ConfigurationError` for what Hydra or nothing reads."""
    config = raw(name, overrides)
    refuse_unread(config, name)
    refuse_foreign_targets(config, overrides, {})
    return config


def raw(name: str, overrides: Sequence[str]) -> DictConfig:
    """A configuration of `conf/` under overrides; `ConfigurationError` for what Hydra refuses."""
    refuse_without_conf()
    try:
        with _beside_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(name, list(overrides))
    except (HydraException, OSError, TypeError, ValueError) as error:  # of what is no name of a group
        raise ConfigurationError(explained(error, overrides)) from None
    return config


_COMPOSING = threading.RLock()  # Hydra has one state for all threads
# Groups that are empty where they are null.
GROUPS = ("callbacks", "guidance", "likelihood", "logger", "metric")


def explained(error: Exception, arguments: Sequence[str]) -> str:
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
        return str(error).expandtabs(2)
    told = " ".join(map(masked_override, arguments))
    return f"{error}, in {told}; --help lists the names of each group, none among them"


@contextmanager
def _beside_hydra() -> Iterator[None]:
    """Within the block a configuration can be composed, also within a program that Hydra has started."""
    with _COMPOSING:
        program = GlobalHydra.instance()
        started, program.hydra = program.hydra, None
        try:
            yield
        finally:
            program.hydra = started


def resolved(
    config: DictConfig,
    output_dir: str | None = None,
    data: dict[str, Any] | None = None,
    empty: Iterable[str] = GROUPS,
) -> dict[str, Any]:
    """The configuration, settled, as plain data with every reference followed."""
    plain: Any = OmegaConf.to_container(settled(config, output_dir, data, empty), resolve=True, throw_on_missing=True)
    return plain


def settled(
    config: DictConfig,
    output_dir: str | None = None,
    data: dict[str, Any] | None = None,
    empty: Iterable[str] = GROUPS,
) -> DictConfig:
    """The configuration with its references, without Hydra's own part, and with all that is found or drawn.

    Where `data.shape` or `data.num_classes` is null it is found in the data; a null seed is drawn, and a callback,
    guide, likelihood or logger that is null is left out.
    `output_dir` is the folder that Hydra made; a name with the time in it would be another one in every process.
    `data` are those of a checkpoint, to which options may refer. `empty` are the groups that null empties; where they
    are of a checkpoint, null stands for what it says.
    """
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    draw_seed(config, output_dir)
    place_guidance(config)
    _leave_out(config, empty)
    if data is not None:
        config.data = data
    if output_dir is not None:
        config.output_dir = output_dir
    if isinstance(own := config.get("data"), DictConfig):
        find_facts(own, config.get("allow_targets") or [])
    return config


def place_guidance(config: DictConfig) -> None:
    """Puts the short options of guidance where they belong."""
    if isinstance(config.get("guidance"), DictConfig):
        chosen: Any = OmegaConf.to_container(config.guidance, resolve=False)
        config.guidance = guides(chosen)


def _leave_out(config: DictConfig, empty: Iterable[str]) -> None:
    """Removes what null switches off, before anything refers to it."""
    if OmegaConf.select(config, "trainer.enable_progress_bar") is False and config.get("callbacks"):
        config.callbacks.progress = None  # Lightning refuses the one without the other
    for name in empty:
        if config.get(name) is None:
            config[name] = {}
    for name in GROUPS:
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


def refuse_unread(config: DictConfig, base: str, name: str | None = None) -> None:
    """`ConfigurationError` for an option at the top that no file of conf/ and no reference knows: nothing reads it.

    `base` is the primary configuration of the command, and `name` that of the user's own, which is built on it. Further
    down, the signatures say what is read. An option that `base` has must be there still.
    """
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{base}.yaml"), resolve=False)
    defaults = [str(key) for each in content.pop("defaults") if isinstance(each, dict) for key in each]
    groups = [key for key in defaults if key != "experiment" and not key.startswith("override ")]
    text = OmegaConf.to_yaml(config)
    for key in map(str, config):
        if key not in (*content, *groups, "hydra") and not re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text):
            raise ConfigurationError(no_option(key, [*content, *groups], "; --help explains them"))
    if missing := sorted(set(content) - {"hydra"} - set(config)):
        own = name not in (None, base)
        advice = f"`defaults: [{base}, _self_]` in {name} gives it" if own else f"~{missing[0]} takes it away"
        raise ConfigurationError(f"{missing[0]} is missing: {base}.yaml has it, {advice}")


def refuse_foreign_targets(config: DictConfig, overrides: Iterable[str], primary: Mapping[str, Any]) -> None:
    """`ConfigurationError` for targets that are allowed by a file which a configuration only includes.

    What may be executed is for the user to say: on the command line, or in the primary configuration itself.
    """
    named = config.get("allow_targets")
    allowed: Any = OmegaConf.to_container(named, resolve=False) if OmegaConf.is_list(named) else []
    given = any(each.lstrip("+").partition("=")[0] == "allow_targets" for each in overrides)
    if allowed and not given and allowed != primary.get("allow_targets"):
        raise ConfigurationError(
            f"allow_targets={harmless(allowed)} stands in a file that this configuration includes, and counts on the "
            "command line or in a primary configuration of your own alone: give it there, if you trust all of them"
        )


def overrides_of(hydra: Any) -> list[str]:
    """The options of the command line as they were typed: references in them are not followed."""
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return typed


def primary_of(hydra: Any) -> dict[str, Any]:
    """The primary configuration as its own file has it."""
    for source in hydra.runtime.config_sources:
        file = Path(source.path) / f"{str(hydra.job.config_name).removesuffix('.yaml')}.yaml"
        if source.schema == "file" and file.is_file():
            primary: dict[str, Any] = read_yaml(file)
            return primary
    return {}
