"""Suggestions in messages: the name that was probably meant, and options that can be pasted."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inkdrop.files.showing import harmless

_BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)(?:[A-Za-z_/]|\.{1,2}/)[A-Za-z0-9_./-]*", re.ASCII | re.IGNORECASE)

_SCRIPTS = ("train.py", "sample.py")  # of the repository, next to each other


def unknown_option(path: str, names: Iterable[str], advice: str = "") -> str:
    """Returns the message about an unknown option, with the most similar valid name or else all of them and advice."""
    names = list(names)
    if (near := nearest(path.rpartition(".")[2], names)) is not None:
        return f"unknown option {path}: did you mean {near}?"
    return f"unknown option {path}{': the options here are ' if names else ''}{', '.join(names)}{advice}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Returns the most similar of these names, or None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


def command(verb: str) -> str:
    """Returns how the user types a verb: as a script of the repository or with `python -m` if this program was."""
    program = Path(sys.argv[0])
    if program.parts[-2:] == ("inkdrop", "__main__.py"):
        return f"python -m inkdrop {verb}"
    script = program.with_name(f"{verb}.py")
    if program.name in _SCRIPTS and all(program.with_name(each).is_file() for each in (*_SCRIPTS, script.name)):
        return f"python {shlex.quote(str(script))}"
    return f"inkdrop {verb}"


def options(chosen: Mapping[str, Any]) -> str:
    """Returns options for a command line, quoted for Hydra and for a shell."""
    return words(f"{name}={written(value)}" for name, value in chosen.items())


def words(texts: Iterable[str]) -> str:
    """Returns the words of a command line, quoted for a shell."""
    return harmless(" ".join(map(_quoted, texts)), 10_000)


def _quoted(text: str) -> str:
    """Returns a word in double quotes where it contains Hydra's single ones, which makes it easier to read."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def written(value: Any) -> str:
    """Returns a value in Hydra's notation."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return text if _BARE.fullmatch(text) else quoted(text)


def quoted(text: str) -> str:
    """Returns a text in the quotes of Hydra's notation."""
    from hydra.core.override_parser.types import Quote, QuotedString  # the mathematics does not import Hydra

    text = re.sub(r"(\\*)\$\{", lambda match: 2 * match[1] + "\\${", text)  # else it would be a reference
    return QuotedString(text, Quote.single).with_quotes()
