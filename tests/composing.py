"""Configurations of `conf/` are composed faster where they are composed hundreds of times in one process.

The files of `conf/` do not change while the tests run. The text of each is parsed once, and so is each reference; files
that are chosen again are not merged again: the options of the command line come on top of a copy. Configurations with
files from elsewhere are composed as ever.
"""

from __future__ import annotations

import copy
import functools
import io
from pathlib import Path
from typing import Any

import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.default_element import ResultDefault
from omegaconf import DictConfig, base
from omegaconf._utils import get_yaml_loader

CONF = Path(__file__).parents[1] / "conf"

_parse, _choose, _read = yaml.load, config_loader_impl.create_defaults_list, base.parse
_map = defaults_list._create_interpolation_map
_merge = ConfigLoaderImpl._compose_config_from_defaults_list
_parsed: dict[str, Any] = {}
_lists: dict[Any, DefaultsList] = {}
_configs: dict[Any, DictConfig] = {}


def compose_faster() -> None:
    """Makes this process keep what it has parsed and merged."""
    yaml.load, base.parse = _load, functools.cache(_read)
    config_loader_impl.create_defaults_list = _create_defaults_list
    defaults_list._create_interpolation_map = _create_interpolation_map
    ConfigLoaderImpl._compose_config_from_defaults_list = _compose_config_from_defaults_list  # type: ignore[method-assign]


def parse_all() -> None:
    """Parses all files of `conf/`, for processes that are forked from this one."""
    for file in CONF.rglob("*.yaml"):
        _load(io.StringIO(file.read_text()), get_yaml_loader())


def compose_plainly() -> None:
    """Makes this process compose as Hydra does."""
    yaml.load, base.parse = _parse, _read
    config_loader_impl.create_defaults_list = _choose
    defaults_list._create_interpolation_map = _map
    ConfigLoaderImpl._compose_config_from_defaults_list = _merge  # type: ignore[method-assign]


def _load(stream: Any, Loader: Any) -> Any:
    if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "seek"):
        return _parse(stream, Loader)
    text = stream.read()
    if text not in _parsed:
        _parsed[text] = _parse(io.StringIO(text), Loader)
    return copy.deepcopy(_parsed[text])


def _is_ours(repo: Any) -> bool:
    return [each.path for each in repo.get_sources() if each.scheme() == "file"] == [str(CONF)]


def _create_interpolation_map(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """The choices that references in a list of defaults are resolved by; it takes a quarter of the time to make it."""
    return _map(overrides, defaults, self_added) if "${" in repr(defaults) else None


def _create_defaults_list(**asked: Any) -> DefaultsList:
    repo, overrides = asked["repo"], asked["overrides_list"]
    if not _is_ours(repo):
        return _choose(**asked)
    typed = Overrides(repo, overrides).config_overrides
    groups = [each.input_line for each in overrides if not any(each is other for other in typed)]
    key = (*groups, *(asked[name] for name in ("config_name", "prepend_hydra", "skip_missing")))
    if key not in _lists:
        _lists[key] = _choose(**asked)
    kept = _lists[key]
    return DefaultsList(kept.defaults, kept.defaults_tree, typed, kept.overrides)


def _compose_config_from_defaults_list(loader: Any, defaults: list[ResultDefault], repo: Any) -> DictConfig:
    if not _is_ours(repo):
        return _merge(loader, defaults, repo)
    key = repr(defaults)
    if key not in _configs:
        _configs[key] = _merge(loader, defaults, repo)
    return copy.deepcopy(_configs[key])
