"""Composes a configuration of `conf/` with overrides, and resolves all its references into plain data."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from inkdrop.configuration.completion import find_codec, find_encoded_shape, find_facts, find_fastest, plain_data
from inkdrop.configuration.guides import guides
from inkdrop.configuration.moved import renamed_options
from inkdrop.configuration.secrets import masked_override
from inkdrop.configuration.seed import draw_seed
from inkdrop.configuration.suggestions import nearest, quoted, unknown_option, words
from inkdrop.errors import ConfigurationError
from inkdrop.files import read_yaml
from inkdrop.files.showing import harmless

_PACKAGE = Path(__file__).resolve().parents[1]
# conf/ is at the top of the repository, or inside the package if that was installed from a wheel.
_PLACES = (_PACKAGE / "conf", _PACKAGE.parents[1] / "conf")
CONF = next((each for each in _PLACES if (each / "train.yaml").is_file()), _PLACES[0])


def refuse_without_conf() -> None:
    """Raises `ConfigurationError` if the folder with the YAML files of inkdrop is missing."""
    if not (CONF / "train.yaml").is_file():
        raise ConfigurationError(
            f"conf/, the folder of inkdrop's configurations, is missing: it is neither {_PLACES[0]} nor {_PLACES[1]}. "
            "Reinstall inkdrop by `pip install --force-reinstall --no-deps` from its wheel or from a clone with conf/"
        )


def composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration of `conf/` with overrides.

    Raises `ConfigurationError` for overrides that Hydra refuses, for options that nothing reads, and for targets that
    only an included file allows.
    """
    config = raw(name, overrides)
    refuse_unread(config, name)
    refuse_foreign_targets(config, overrides, {})
    return config


def raw(name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration of `conf/` with overrides; raises `ConfigurationError` for what Hydra refuses."""
    refuse_without_conf()
    try:
        with _beside_hydra(), initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(name, renamed_options(overrides))
    except (HydraException, OSError, TypeError, ValueError) as error:  # ValueError and TypeError: not a name of a group
        raise ConfigurationError(explained(error, overrides)) from None
    return config


def composed_in(folder: str | None, name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes a configuration of train.py as `--config-dir FOLDER --config-name NAME` does, with Hydra's own part.

    Raises `ConfigurationError` for what Hydra refuses.
    """
    refuse_without_conf()
    try:
        with _beside_hydra(), searching(CONF, folder):
            return compose(name, renamed_options(overrides), return_hydra_config=True)
    except (HydraException, OSError, TypeError, ValueError) as error:
        raise ConfigurationError(explained(error, overrides)) from None


@contextmanager
def searching(main: Path, folder: str | None) -> Iterator[None]:
    """Makes Hydra search the folder of the primary configuration and then that of --config-dir within the block."""
    if folder is not None and not Path(folder).is_dir():
        raise SearchPathException(f"--config-dir={harmless(folder)} is not a folder")
    with initialize_config_dir(str(main.resolve()), version_base="1.3"):
        if folder is not None:
            path = create_config_search_path(str(main.resolve()))
            path.prepend("command-line", f"file://{Path(folder).resolve()}", SearchPathQuery(provider="schema"))
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2("help", path)
        yield


_COMPOSING = threading.RLock()  # Hydra has one state for all threads
# Groups of differences from the other options, in the order in which they are laid over these.
GLOBAL = ("experiment", "budget", "debug")
# Options that configurations of earlier versions lack.
_LATER = ("adapter", "adapters", "base", "baseline")
# Null means an empty group here.
GROUPS = ("callbacks", "guidance", "likelihood", "logger", "metric")


def _deeper(key: str, node: Any) -> str:
    """Returns the place of an option that a part of this node has, such as time_grid.time_grid.num_steps, or ""."""
    path, _, name = key.rpartition(".")
    parts: Any = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else {}
    places = [part for part, each in parts.items() if isinstance(each, dict) and name in each] if path else []
    return f"; {path}.{places[0]}.{name} is one" if places else ""


def explained(error: Exception, arguments: Sequence[str]) -> str:
    """Returns Hydra's message, or for an unknown option one with the name that was probably meant."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        names: Any = cause.parent_node or ()
        if "." not in cause.full_key and (CONF / cause.full_key).is_dir():
            known = sorted(file.stem for file in (CONF / cause.full_key).glob("*.yaml"))
            return f"nothing is chosen for {cause.full_key}: add {cause.full_key}=NAME (available: {', '.join(known)})"
        advice = _deeper(cause.full_key, names) or f"; add an argument that no YAML file names by +{cause.full_key}=..."
        return unknown_option(cause.full_key, map(str, names), advice)
    if isinstance(error, OverrideParseException):
        return f"{masked_override(str(error.override))}: {error}{_quoting(str(error.override))}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{error}\n{cause}"
    if isinstance(error, MissingConfigException) and _replaces_conf(arguments):
        return (
            f"{error}\n--config-path replaces the folder conf/ of inkdrop: --config-dir adds a folder to it".expandtabs(
                2
            )
        )
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        near, (first, *others) = nearest(name, error.options), str(error).expandtabs(2).splitlines()
        guess = f": did you mean {group}={near}?" if near is not None else ""
        places = others[len(error.options) + 2 :] if near is None else ()
        return "\n".join([f"{first}{guess}", f"available: {', '.join(error.options)}", *places])
    if isinstance(error, HydraException | YAMLError):
        given = next((each for each in arguments if each.lstrip("+").startswith("condition.") and "," in each), "")
        return str(error).expandtabs(2) + (_quoting(given) if "sweep" in str(error).lower() else "")
    typed = " ".join(map(masked_override, arguments))
    return f"{error}, in {typed}: choose a name that --help lists for the group"


def _replaces_conf(arguments: Sequence[str]) -> bool:
    return any(each.partition("=")[0] in ("--config-path", "-cp") for each in arguments)


def _quoting(override: str) -> str:
    """Returns how an option is quoted whose value is a text, where Hydra would read commas and brackets."""
    name, _, value = override.lstrip("+").partition("=")
    if not name.startswith("condition."):
        return ""
    text = value.strip("'\"")
    return (
        f"\na text with commas, brackets, quotes or other letters is quoted twice: {words([f'{name}={quoted(text)}'])}"
    )


@contextmanager
def _beside_hydra() -> Iterator[None]:
    """Allows composing a configuration within the block, even inside a program that Hydra has started."""
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
    """Returns the configuration as plain data with every reference resolved; the arguments are those of `settled`."""
    return plain_data(settled(config, output_dir, data, empty))


def settled(
    config: DictConfig,
    output_dir: str | None = None,
    data: dict[str, Any] | None = None,
    empty: Iterable[str] = GROUPS,
    earlier: Mapping[str, Any] | None = None,
    found: list[Any] | None = None,
) -> DictConfig:
    """Returns the configuration with its references, without Hydra's part, and with all values that null stands for.

    A null `data.shape` or `data.num_classes` is read from the data, and the shape of x from the codec. A null seed is
    drawn. Null options of speed become what is fastest. A callback, guide, likelihood or logger of null is removed.

    - `config`: the composed configuration, which is not changed.
    - `output_dir`: the run folder that Hydra made; a name with the time in it would differ between processes.
    - `data`: the `data` node of a checkpoint, to which options may refer.
    - `empty`: the groups for which null means empty; where a checkpoint provides them, null means its own value.
    - `earlier`: the configuration of the run in this folder, if there is one.
    - `found`: receives the data set, if it was built and is that of the result.
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
        built = find_codec(config, find_facts(own, config.get("allow_targets") or []))
        if found is not None and built is not None:
            found.append(built)
        find_encoded_shape(config, earlier or {})
    find_fastest(config, earlier)
    return config


def place_guidance(config: DictConfig) -> None:
    """Moves the short options of guidance, such as `guidance.scale`, into the guides that have them."""
    if isinstance(config.get("guidance"), DictConfig):
        chosen: Any = OmegaConf.to_container(config.guidance, resolve=False)
        config.guidance = guides(chosen)


def _leave_out(config: DictConfig, empty: Iterable[str]) -> None:
    """Removes the parts that are null, before anything refers to them."""
    if OmegaConf.select(config, "trainer.enable_progress_bar") is False and config.get("callbacks"):
        config.callbacks.progress = None  # Lightning refuses the one without the other
    for name in empty:
        if config.get(name) is None:
            config[name] = {}
    for name in GROUPS:
        if name != "guidance" and isinstance(parts := config.get(name), DictConfig):
            for key in [key for key, part in parts.items() if part is None]:
                del parts[key]


@functools.cache  # describing a sweep asks for it in each trial
def content_of(base: str) -> Mapping[str, Any]:
    """Returns the content of the file of a primary configuration of `conf/`."""
    return dict(read_yaml(CONF / f"{base}.yaml"))


def _options_of(base: str) -> tuple[list[str], list[str]]:
    """Returns the options at the top level of a primary configuration of `conf/`, and its groups."""
    content = dict(content_of(base))
    groups = [str(key) for each in content.pop("defaults") if isinstance(each, dict) for key in each]
    return list(content), [key for key in groups if key not in GLOBAL and " " not in key]


def refuse_unread(config: DictConfig, base: str, name: str | None = None) -> None:
    """Raises `ConfigurationError` for an option at the top level that nothing reads, or for one that was removed.

    An option is read if a file of conf/ has it or a reference names it. `base` is the primary configuration of the
    command, and `name` the user's own one that extends it. Every option of `base` must be present. Options further down
    are checked against signatures.
    """
    content, groups = _options_of(base)
    further = [key for key in map(str, config) if key not in (*content, *groups, "hydra")]
    text = str(OmegaConf.to_container(config, resolve=False)) if further else ""
    for key in further:
        if not re.search(rf"\$\{{[^}}]*\b{re.escape(key)}\b", text):
            raise ConfigurationError(unknown_option(key, [*content, *groups], "; see --help"))
    if missing := sorted(set(content) - {"hydra", *_LATER} - set(config)):
        own = name not in (None, base)
        advice = f"add `defaults: [{base}, _self_]` to {name}" if own else f"remove ~{missing[0]}"
        raise ConfigurationError(f"{missing[0]} is missing, but {base}.yaml has it: {advice}")


def refuse_foreign_targets(config: DictConfig, overrides: Iterable[str], primary: Mapping[str, Any]) -> None:
    """Raises `ConfigurationError` for targets that are allowed only by a file which the configuration includes.

    The user alone decides which code may run: on the command line, or in the primary configuration itself.
    """
    named = config.get("allow_targets")
    allowed: Any = OmegaConf.to_container(named, resolve=False) if OmegaConf.is_list(named) else []
    given = any(each.lstrip("+").partition("=")[0] == "allow_targets" for each in overrides)
    if allowed and not given and allowed != primary.get("allow_targets"):
        raise ConfigurationError(
            f"allow_targets={harmless(allowed)} is set in a file that this configuration includes, but is allowed only "
            "on the command line or in your own primary configuration: set it there if you trust all of these packages"
        )


def overrides_of(hydra: Any) -> list[str]:
    """Returns the options of the command line as they were typed, with unresolved references."""
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    return typed


def primary_of(hydra: Any) -> dict[str, Any]:
    """Returns the content of the primary configuration's own file."""
    for source in hydra.runtime.config_sources:
        file = Path(source.path) / f"{str(hydra.job.config_name).removesuffix('.yaml')}.yaml"
        if source.schema == "file" and file.is_file():
            primary: dict[str, Any] = read_yaml(file)
            return primary
    return {}
