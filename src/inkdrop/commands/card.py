"""The command `card`: writes what a finished run is and what it measured into its folder, as README.md."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdrop.errors import ConfigurationError
from inkdrop.files import read_json, read_yaml
from inkdrop.files.showing import harmless

_AGAIN = """\
RUN is this folder, which is enough on its own.

```bash
python train.py --config-dir RUN --config-name config     # the same run in a new folder
python sample.py checkpoint=RUN num_samples=64            # samples of it
```"""
_MOST = 200  # options that differ


def main(arguments: Sequence[str]) -> None:
    """Writes the cards of runs, and prints their files."""
    parser = argparse.ArgumentParser(
        prog="inkdrop card", description="Writes README.md into the folders of finished runs."
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="folder of a finished run")
    from inkdrop.commands.command import for_the_user

    with for_the_user():
        for folder in parser.parse_args(arguments).folders:
            print(harmless(write_card(folder)))


def write_card(run: Path) -> Path:
    """Writes the card of a run, and returns its file; raises `ConfigurationError` for a folder without a result."""
    from inkdrop.commands.export.card import CARD
    from inkdrop.files.writing import write_text

    text = card_of(run)
    write_text(run / CARD, text)
    return run / CARD


def card_of(run: Path) -> str:
    """Returns the card of a run: command, differences, values, verdicts, samples and cost, without paths."""
    from inkdrop.commands.export.card import markdown_table, results_of

    for name in ("config.yaml", "result.json"):
        if not (run / name).is_file():
            raise ConfigurationError(f"{harmless(run)} has no {name}: it is not the folder of a finished run")
    config, result = read_yaml(run / "config.yaml"), read_json(run / "result.json")
    start, changes = differences(config)
    rows = [(path, *values) for path, values in list(changes.items())[:_MOST]]
    parts = {
        "Again": _AGAIN,
        "Configuration": (
            f"It is {start}, with these differences:\n\n{markdown_table(('option', 'here', 'there'), rows)}"
            if rows
            else f"It is {start}."
        ),
        "Result": results_of(str(run)),
        "Verdict": _verdicts(run),
        "Samples": "".join(f"![Samples](pictures/{each.name})" for each in sorted(run.glob("pictures/*.png"))[-1:]),
        "Cost": markdown_table(("what", "value"), _costs(result)),
    }
    shown = [f"## {title}\n\n{text}" for title, text in parts.items() if text]
    return "\n\n".join([f"# {harmless(config.get('name', run.name))}", "A run of inkdrop.", *shown]) + "\n"


def differences(config: Mapping[str, Any]) -> tuple[str, dict[str, tuple[str, str]]]:
    """Returns what a configuration starts from, and its own and the other value of each option that differs.

    It starts from the experiment of its name, or from the defaults if there is no such one.
    """
    from omegaconf import OmegaConf

    from inkdrop.commands.reproduce.points import plain
    from inkdrop.commands.reproduce.recipe import compared
    from inkdrop.configuration.compose import CONF, raw

    name = str(config.get("name", ""))
    known = name.isidentifier() and (CONF / "experiment" / f"{name}.yaml").is_file()
    both = (OmegaConf.create(dict(config)), raw("train", [f"experiment={name}"] if known else []))
    here, there = (plain(compared(each)) for each in both)
    paths = [path for path in sorted(here.keys() | there.keys()) if here.get(path) != there.get(path)]
    values = {path: (_value(here, path, both[0]), _value(there, path, both[1])) for path in paths}
    changes = {path: (own, other) for path, (own, other) in values.items() if own != other}
    return (f"`experiment={name}`" if known else "the default configuration"), changes


def _value(options: Mapping[str, Any], path: str, config: Any) -> str:
    """Returns an option as text: where it refers to another one, the value of that, unless this is a whole part."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    value = options.get(path)
    if "${" in str(value):
        try:
            found = OmegaConf.select(config, path)
        except OmegaConfBaseException:  # of a part that the experiment leaves out
            found = None
        if isinstance(found, ListConfig):
            found = list(found)
        value = value if found is None or isinstance(found, DictConfig) else found
    return _short(value)


def _verdicts(run: Path) -> str:
    """Returns what `reproduce` has said of the seeds of which this run is one, or an empty text."""
    file = run.absolute().parent / "reproduction.json"
    if not file.is_file():
        return ""
    content = read_json(file)
    lines = [f"{harmless(content.get('recipe'))}: {harmless(content.get('verdict'))} ({harmless(content.get('date'))})"]
    for metric, target in (content.get("targets") or {}).items():
        for what in ("paper", "ourselves"):
            if found := target.get(what):
                published = f" {harmless(target.get('published'))}" if what == "paper" else ""
                says = f"{harmless(found.get('word'))}, {harmless(found.get('text'), 300)}"
                lines.append(f"- {harmless(metric)}, against {what}{published}: {says}")
    lines += [f"- cannot pass: {harmless(each, 300)}" for each in content.get("cannot_pass") or ()]
    return "\n".join([lines[0], "", *lines[1:]]).rstrip()


def _costs(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = {name: result.get(name) for name in ("steps", "seconds", "flops", "seed", "threads", "git_commit")}
    facts |= {f"version of {name}": each for name, each in (result.get("versions") or {}).items()}
    return [(name.replace("_", " "), _short(each)) for name, each in facts.items() if each is not None]


def _short(value: Any) -> str:
    return "" if value is None else harmless(value, 120)
