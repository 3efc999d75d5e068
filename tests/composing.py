"""Configurations of `conf/` are composed faster where they are composed hundreds of times in one process.

The files of `conf/` do not change while the tests run. Each is read once, and each reference and option is parsed once;
files that are chosen again are not merged again: the options of the command line come on top of a copy. Configurations
with files from elsewhere are composed as ever. What is kept is pickled, as a copy is made six times as fast from there.
"""

from __future__ import annotations

import copy
import functools
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, base
from omegaconf.basecontainer import BaseContainer

CONF = Path(__file__).parents[1] / "conf"

_Loader, _Repository, _Parser = ConfigLoaderImpl, CachingConfigRepository, OverridesParser
_parsed: dict[str, bytes] = {}
_options: dict[str, bytes] = {}
_files: dict[str, bytes] = {}
_lists: dict[Any, DefaultsList] = {}
_placed: dict[str, bytes] = {}
_beginnings: dict[tuple[str, ...], bytes] = {}  # what lists of defaults were merged to, by the files
_AT_A_TIME, _MOST = 6, 60


def compose_faster() -> None:
    """Makes this process keep what it has read, parsed and merged."""
    for owner, name, faster, _ in _REPLACED:
        setattr(owner, name, faster)


def compose_plainly() -> None:
    """Makes this process compose as Hydra does."""
    for owner, name, _, plain in _REPLACED:
        setattr(owner, name, plain)


def read_all() -> None:
    """Reads all files of `conf/`, for processes that are forked from this one."""
    repo = ConfigRepository.__new__(ConfigRepository)
    repo.sources = [FileConfigSource("main", f"file://{CONF}")]
    for file in CONF.rglob("*.yaml"):
        repo.load_config(config_path=str(file.relative_to(CONF).with_suffix("")))


def _load(stream: Any, Loader: Any) -> Any:
    if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "seek"):
        return _parse(stream, Loader)
    text = stream.read()
    if text not in _parsed:
        _parsed[text] = pickle.dumps(_parse(io.StringIO(text), Loader))
    return pickle.loads(_parsed[text])


def _parse_rule(parser: OverridesParser, text: str, rule: str) -> Any:
    """Only options, whose mistakes are shown as ever."""
    if rule != "override":
        return _parse_option(parser, text, rule)
    if text not in _options:
        _options[text] = pickle.dumps(_parse_option(parser, text, rule))
    return pickle.loads(_options[text])


def _load_config(repo: ConfigRepository, config_path: str) -> Any:
    if not _is_ours(repo):
        return _read_file(repo, config_path)
    if config_path not in _files:
        _files[config_path] = pickle.dumps(_read_file(repo, config_path))
    return pickle.loads(_files[config_path])


def _begin_repository(repo: CachingConfigRepository, delegate: Any) -> None:
    """The sources of a repository are replaced as a whole, and never changed."""
    repo.delegate, repo.cache = copy.copy(delegate), {}


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


def _load_single_config(loader: Any, default: Any, repo: Any) -> Any:
    if isinstance(default, _Beginning):
        return default
    if not _is_ours(repo):
        return _load_one(loader, default, repo)
    key = repr(default)
    if key not in _placed:
        _placed[key] = pickle.dumps(_load_one(loader, default, repo))
    return pickle.loads(_placed[key])


@dataclass(frozen=True)
class _Beginning:
    """What the first files of a list were merged to, in the place of those files."""

    config: DictConfig


def _compose_config_from_defaults_list(loader: Any, defaults: list[ResultDefault], repo: Any) -> DictConfig:
    if not _is_ours(repo):
        return _merge(loader, defaults, repo)
    keys = [repr(each) for each in defaults]
    count = next((n for n in range(len(keys), 0, -1) if tuple(keys[:n]) in _beginnings), 0)
    for end in (*range(count + _AT_A_TIME, len(keys), _AT_A_TIME), len(keys)):
        if end > count and (len(_beginnings) < _MOST or end == len(keys)):
            start: list[Any] = [_Beginning(pickle.loads(_beginnings[tuple(keys[:count])]))] if count else []
            _beginnings[tuple(keys[:end])] = pickle.dumps(_merged(loader, [*start, *defaults[count:end]], repo))
            count = end
    return pickle.loads(_beginnings[tuple(keys)])


def _merged(loader: Any, defaults: list[Any], repo: Any) -> DictConfig:
    """What Hydra merges, where each node learns of its parent once, not after each file."""
    BaseContainer._re_parent = lambda node: None  # type: ignore[method-assign]
    try:
        config = _merge(loader, defaults, repo)
    finally:
        BaseContainer._re_parent = _learn_parents  # type: ignore[method-assign]
    config._re_parent()
    return config


def _copy(config: DictConfig) -> DictConfig:
    return pickle.loads(pickle.dumps(config))  # type: ignore[no-any-return]


_learn_parents = BaseContainer._re_parent
_parse, _choose, _read = yaml.load, config_loader_impl.create_defaults_list, base.parse
_map, _merge = defaults_list._create_interpolation_map, _Loader._compose_config_from_defaults_list
_load_one = _Loader._load_single_config
_parse_option, _read_file = _Parser.parse_rule, ConfigRepository.load_config
_REPLACED: list[tuple[Any, str, Any, Any]] = [
    (yaml, "load", _load, _parse),
    (base, "parse", functools.cache(_read), _read),
    (config_loader_impl, "create_defaults_list", _create_defaults_list, _choose),
    (defaults_list, "_create_interpolation_map", _create_interpolation_map, _map),
    (_Loader, "_compose_config_from_defaults_list", _compose_config_from_defaults_list, _merge),
    (_Loader, "_load_single_config", _load_single_config, _load_one),
    (DictConfig, "copy", _copy, DictConfig.copy),
    (_Parser, "parse_rule", _parse_rule, _parse_option),
    (ConfigRepository, "load_config", _load_config, _read_file),
    (_Repository, "__init__", _begin_repository, _Repository.__init__),
]
