"""Prints the `--help` of `train` and `sample`: every option with its value and its comment in the YAML files.

This module imports only Hydra and YAML, so that help is shown immediately.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration.compose import GLOBAL, searching
from inkdrop.configuration.suggestions import command, written

_OPTION = re.compile(
    r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>(?:\"[^\"]*\"|'[^']*'|[^#])*)(?:#\s*(?P<comment>.*))?$"
)


def show(conf: Path, verb: str, description: str, arguments: list[str]) -> None:
    """Prints the options of a configuration as the command line composes it, including the user's own groups."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn", default=verb)
    given, others = parser.parse_known_args(arguments)
    overrides = [each for each in others if not each.startswith("-")]
    with searching(conf.parent / (given.config_path or conf.name), given.config_dir):
        config = compose(given.config_name, overrides, return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        choices = _choices(config, loader.compute_defaults_list(given.config_name, overrides, RunMode.RUN).defaults)
        sweeps = {name: loader.get_group_options(f"hydra/{name}") for name in ("launcher", "sweeper")}
        names = {
            key: loader.get_group_options(key.partition("@")[0], config_name=given.config_name, overrides=overrides)
            for key in choices
        }
    print(f"{description}\n\nusage: {command(verb)} [option=value ...]\n")
    folders = [Path(each.path) for each in config.hydra.runtime.config_sources if each.schema == "file"]
    print("Parts, selected by `group=name`; the current choices are in brackets:")
    for group, chosen in sorted(choices.items()):
        title = group
        for family, members in _families(folders, group.partition("@")[0], sorted(names[group])).items():
            shown = "  ".join(f"[{each}]" if each in chosen else each for each in members)
            print(f"  {title:14} {f'{family}: ' if family else ''}{shown}")
            title = ""
    print("\nOptions:")
    comments = dict(_comments(folders, given.config_name, choices))
    for path, value in _options(config):
        comment = comments.get(path, "")
        print(f"  {path + '=' + value:46} {comment}".rstrip())
    print(f"\n-m runs every combination of comma-separated values: {command(verb)} -m seed=0,1,2")
    if config.hydra.runtime.choices["hydra/launcher"] != "basic":
        for kind, members in sweeps.items():
            _show_sweep_options(kind, config.hydra, members)


def _show_sweep_options(kind: str, hydra: DictConfig, members: list[str]) -> None:
    """Prints the choices of a launcher or a sweeper, and the options of the chosen one from its docstring."""
    chosen = hydra.runtime.choices[f"hydra/{kind}"]
    shown = "  ".join(f"[{each}]" if each == chosen else each for each in sorted(members))
    print(f"\n  {f'hydra/{kind}':14} {shown}")
    described = dict(re.findall(r"- `(\w+)`: ((?:.|\n(?! *- | *\n))+)", get_class(hydra[kind]._target_).__doc__ or ""))
    options: Any = OmegaConf.to_container(hydra[kind])
    for name, value in options.items():
        if name != "_target_":
            comment = " ".join(described.get(name, "").split()).replace("`", "").rstrip(".")
            print(f"  {f'hydra.{kind}.{name}={written(value)}':46} {comment}".rstrip())


def _families(folders: list[Path], group: str, names: list[str]) -> dict[str, list[str]]:
    """Groups names by the family in the line `# Family: ...` of their YAML file, or by "" without such a line."""
    families: dict[str, list[str]] = {}
    for name in names:
        file = next((each for folder in folders if (each := folder / group / f"{name}.yaml").is_file()), None)
        line = file and re.search(r"^# Family: (.+)$", file.read_text(), re.MULTILINE)
        families.setdefault(line[1] if line else "", []).append(name)
    return dict(sorted(families.items()))


def _choices(config: DictConfig, composed: Sequence[ResultDefault]) -> dict[str, list[str]]:
    """Returns the choices of each group: none, one, or several as for metrics, which Hydra does not list."""
    choices = {
        key: [] if choice is None else [choice]
        for key, choice in config.hydra.runtime.choices.items()
        if not key.startswith("hydra")
    }
    for each in composed:
        group, _, name = (each.config_path or "").rpartition("/")
        if group and not group.startswith("hydra") and each.override_key is None and "/" not in f"{group}{each.parent}":
            choices.setdefault(group, []).append(name)
    return choices


def _comments(folders: list[Path], name: str, choices: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Yields (path of an option, its comment) over all composed YAML files that lie in folders."""
    yield from _comments_of(folders, "", name, "")
    for key, chosen in sorted(choices.items(), key=lambda each: each[0] in GLOBAL):  # these override the others
        group, _, package = key.partition("@")  # schedule@schedule.start=vp mounts a file of one group elsewhere
        for choice in chosen:
            yield from _comments_of(folders, group, choice, "" if group in GLOBAL else package or group)


def _comments_of(folders: list[Path], group: str, name: str, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields those of one file, after those of the files of the same group that it extends."""
    places = (folder / group / f"{name}.yaml" for folder in folders)
    if (file := next((each for each in places if each.is_file()), None)) is None:
        return
    for base in (yaml.safe_load(file.read_text()) or {}).get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            yield from _comments_of(folders, group, base, prefix)
    yield from comments_in(file, prefix)


def comments_in(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields (path, comment) for each commented option of one YAML file."""
    stack: list[tuple[int, str]] = []
    for line in file.read_text().splitlines():
        match = _OPTION.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, match["key"]))
        if match["comment"]:
            path = ".".join(([prefix] if prefix else []) + [key for _, key in stack])
            yield path, match["comment"]


def _options(config: DictConfig) -> Iterator[tuple[str, str]]:
    """Yields (path, value) of all options, except those that refer to other options."""

    def walk(node: DictConfig, path: str) -> Iterator[tuple[str, str]]:
        for key in map(str, node):
            below = f"{path}.{key}" if path else key
            if key in ("_target_", "_partial_") or OmegaConf.is_interpolation(node, key) or below == "hydra":
                continue
            value = None if OmegaConf.is_missing(node, key) else node[key]
            if OmegaConf.is_missing(node, key):
                yield below, "???"
            elif isinstance(value, DictConfig) and value:
                yield from walk(value, below)
            else:
                yield below, _text(value)

    yield from walk(config, "")


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if OmegaConf.is_list(value):
        return "[" + ",".join(_text(each) for each in value) + "]"  # type: ignore[attr-defined]
    return "{}" if OmegaConf.is_dict(value) else str(value)
