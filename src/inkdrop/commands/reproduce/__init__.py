"""The command `reproduce`: trains recipes over seeds, and says whether their published figures hold."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.errors import ConfigurationError

_EPILOG = """\
NAME            an experiment with a baseline; several are reproduced one after the other
seeds=5         number of seeds, or a list such as seeds=[0,1,2]; default: those of the recipe
checkpoint=RUN  judge this finished run instead of training
output_dir=DIR  folder of the runs, a folder for each recipe in it; the same command continues there
option=value    options of train; one that changes the recipe is listed, and such a run cannot pass;
                baseline.needs=[] says that what the recipe needs is here, and runs it

Exit codes: 0 reproduced and not worse than our own points, 6 missed or worse, 7 not decided or not run.
"""
_DEFAULT, _RECORDED = "runs/reproduce", 20


def main(arguments: Sequence[str]) -> None:
    """Reproduces recipes, and ends with the exit code of the worst verdict."""
    given = _parser().parse_intermixed_args(arguments)
    names = [each for each in given.words if "=" not in each]
    options = [each for each in given.words if "=" in each]
    if given.list:
        from inkdrop.commands.reproduce.page import page

        print(page(given.config_dir), end="")
        return
    if not names:
        raise ConfigurationError("which recipe? `inkdrop reproduce --list` shows all of them")
    codes = [_reproduce(name, options, given) for name in names]
    if code := next((each for each in (6, 7) if each in codes), 0):
        sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inkdrop reproduce",
        description="Trains recipes over seeds, and says whether their published figures hold.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="NAME | option=value")
    parser.add_argument("--list", action="store_true", help="show all recipes with verdict, date, cost and needs")
    parser.add_argument("--record", action="store_true", help="store the values as our own points of the recipe")
    parser.add_argument("--level", type=float, default=0.05, help="chance of a false alarm against our own points")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a further folder of configurations")
    return parser


def _reproduce(name: str, options: Sequence[str], given: Any) -> int:
    """Reproduces one recipe, and returns its exit code."""
    from inkdrop.commands.reproduce.recipe import read_recipe

    own, others = _taken(options)
    searched = [each for each in others if each.startswith("hydra.searchpath=")]
    recipe = read_recipe(name, given.config_dir, searched)
    chosen = read_recipe(name, given.config_dir, others)
    if chosen.needs and "checkpoint" not in own:
        print(f"{name}: not run: needs {'; '.join(chosen.needs)}")
        return 7
    seeds = seeds_of(own.get("seeds"), recipe.seeds if not given.record else [*range(_RECORDED)])

    from inkdrop.commands.reproduce.judging import judged
    from inkdrop.commands.reproduce.points import read_points
    from inkdrop.commands.reproduce.runs import collected, finished, train
    from inkdrop.runs.record import write_json

    folder = Path(own.get("output_dir", _DEFAULT)) / name
    if "checkpoint" in own:
        from dataclasses import replace

        runs, found = finished(Path(own["checkpoint"]))
        seeds, chosen = [*runs.results], replace(chosen, options=found)
    else:
        flags = [f"--config-dir={given.config_dir}"] if given.config_dir else []
        train(recipe, seeds, folder, others, flags)
        runs = collected(chosen, seeds, folder)
    judgement = judged(recipe, chosen, runs, read_points(recipe), given.level, seeds)
    print("\n" + judgement.text(), flush=True)
    if "checkpoint" not in own:
        write_json(judgement.record(), folder / "reproduction.json")
        print(f"  {folder / 'reproduction.json'}")
    if given.record:
        from inkdrop.commands.reproduce.recording import record

        print(f"  {record(recipe, judgement, runs)}")
    return judgement.exit_code


def _taken(options: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Returns the options of this command, and those of train."""
    own = {}
    others = []
    for each in options:
        name, _, value = each.partition("=")
        if name in ("seeds", "checkpoint", "output_dir"):
            own[name] = value
        elif name in ("seed", "experiment"):
            raise ConfigurationError(f"{each} is chosen by the recipe: give seeds=... and the name of the recipe")
        else:
            others.append(each)
    return own, others


def seeds_of(text: str | None, known: Sequence[int]) -> list[int]:
    """Returns the seeds that a text asks for: a number of them, or a list; raises `ConfigurationError` for others.

    The first ones are those of the recipe, and further ones follow the largest of them.
    """
    if text is None:
        return list(known)
    if re.fullmatch(r"\d{1,4}", text) and int(text) > 0:
        last = max(known)
        return [*known, *range(last + 1, last + 1 + int(text))][: int(text)]
    if re.fullmatch(r"\[\d{1,9}(,\s*\d{1,9})*\]|\d{1,9}(,\d{1,9})+", text):
        return list(dict.fromkeys(map(int, re.findall(r"\d+", text))))
    raise ConfigurationError(f"seeds={text} must be a number such as 5, or a list such as [0,1,2]")
