"""What a user is told to type: the name that was meant, and options that can be pasted."""

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

_SCRIPTS = ("train.py", "sample.py")  # of the repository, beside each other


def no_option(path: str, names: Iterable[str], advice: str = "") -> str:
    """That there is no option at this path, and the name meant, or else the names beside it, and advice."""
    names = list(names)
    if (near := nearest(path.rpartition(".")[2], names)) is not None:
        return f"{path} is no option: did you mean {near}?"
    return f"{path} is no option{': there are ' if names else ''}{', '.join(names)}{advice}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of these names that was meant; None if none is near."""
    return next(iter(difflib.get_close_matches(name, list(names), 1)), None)


def command(verb: str) -> str:
    """How the user types a verb: as a script of the repository or by `python -m` if this program was started so."""
    program = Path(sys.argv[0])
    if program.parts[-2:] == ("inkdrop", "__main__.py"):
        return f"python -m inkdrop {verb}"
    script = program.with_name(f"{verb}.py")
    if program.name in _SCRIPTS and all(program.with_name(each).is_file() for each in (*_SCRIPTS, script.name)):
        return f"python {shlex.quote(str(script))}"
    return f"inkdrop {verb}"


def options(chosen: Mapping[str, Any]) -> str:
    """Options for a command line, quoted as Hydra and as a shell read them."""
    return words(f"{name}={written(value)}" for name, value in chosen.items())


def words(texts: Iterable[str]) -> str:
    """Words of a command line, quoted as a shell reads them."""
    return harmless(" ".join(map(_quoted, texts)), 10_000)


def _quoted(text: str) -> str:
    """Hydra's own quotes are single ones, within which a shell's single quotes are hard to read."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def written(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{written(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    from hydra.core.override_parser.types import Quote, QuotedString  # the mathematics does without

    text = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", text)  # else it would be a reference
    return QuotedString(text, Quote.single).with_quotes()
