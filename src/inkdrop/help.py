"""`--help` for train.py and sample.py: every option with its value and the comment beside it in the YAML.

Imports Hydra and YAML only, so that the answer comes at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

_OPTION = re.compile(
    r"(?P<indent> *)(?P<key>[A-Za-z_]\w*):(?P<value>(?:\"[^\"]*\"|'[^']*'|[^#])*)(?:#\s*(?P<comment>.*))?$"
)


def show(conf: Path, name: str, description: str, overrides: list[str]) -> None:
    """Prints the options of a configuration as the overrides on the command line would compose it."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(name, overrides, return_hydra_config=True)
    choices = {group: choice for group, choice in config.hydra.runtime.choices.items() if not group.startswith("hydra")}
    print(f"{description}\n\nusage: python {name}.py [option=value ...]\n")
    print("Parts, each `group=name`; the name in brackets is taken now:")
    for group, choice in sorted(choices.items()):
        names = sorted(file.stem for file in (conf / group.partition("@")[0]).glob("*.yaml"))
        print(f"  {group:14} {'  '.join(f'[{each}]' if each == choice else each for each in names)}")
    print("\nOptions:")
    comments = dict(_comments(conf, name, choices))
    for path, value in _options(config):
        comment = comments.get(path, "")
        print(f"  {path + '=' + value:46} {comment}".rstrip())
    print(f"\n-m runs every combination of comma-separated values: python {name}.py -m seed=0,1,2")


def _comments(conf: Path, name: str, choices: dict[str, str | None]) -> Iterator[tuple[str, str]]:
    """(path of an option, comment beside it) over the YAML files that were composed."""
    yield from comments_in(conf / f"{name}.yaml", "")
    for key, choice in choices.items():
        group, _, package = key.partition("@")  # schedule@schedule.start=vp mounts a file of one group elsewhere
        if choice is not None:
            prefix = "" if group == "experiment" else package or group
            file = conf / group / f"{choice}.yaml"
            for base in (yaml.safe_load(file.read_text()) or {}).get("defaults", []):
                if isinstance(base, str) and base != "_self_":  # a file of the same group that this one changes
                    yield from comments_in(conf / group / f"{base}.yaml", prefix)
            yield from comments_in(file, prefix)


def comments_in(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(path, comment) for each commented option of one YAML file."""
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
    """(path, value) of everything that is set in its own place; references to other options are left out."""

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
