"""Texts from files made harmless where they are shown: on a terminal, in Markdown, in a spreadsheet."""

from __future__ import annotations

import re
import sys
from typing import Any

LONGEST = 300  # characters of one text
MAX_LINES, LONGEST_LINE = 60, 2000  # of a message
_FORMULA = "=+\\-@＝＋－＠"  # what a spreadsheet computes begins with one of these, full width or not
_SEPARATED = re.compile(rf"(^|[;,|])(?=\s*[{_FORMULA}])")


def harmless(text: object, longest: int = LONGEST) -> str:
    """A text on one line of at most about so many characters: what does not print, or turns direction, is escaped."""
    told = str(text)
    if len(told) > longest:  # before anything is made of it: it may be gigabytes
        told = f"{told[: longest * 2 // 3]}...{told[-longest // 4 :]}"
        told = f"{told} ({len(str(text)):,} characters)"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in told)


def harmless_lines(text: object) -> str:
    """A message of several lines, each made harmless; of very many, the first."""
    lines = str(text).split("\n")
    shown = [harmless(line, LONGEST_LINE) for line in lines[:MAX_LINES]]
    return "\n".join([*shown, f"... and {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else shown)


def warn(text: object) -> None:
    """Says on the error stream what goes on all the same."""
    print(harmless_lines(f"warning: {text}"), file=sys.stderr, flush=True)


def file_name(text: object, longest: int = 80) -> str:
    """A text as a part of the name of a file, of at most so many bytes: all but letters, digits, - and . become _."""
    plain = "".join(each if each.isalnum() or each in "-." else "_" for each in str(text)[:longest])
    return plain.encode()[:longest].decode(errors="ignore")


def markdown(text: object) -> str:
    """A text for a cell or a line of Markdown: no heading, link, picture, tag or further cell can begin in it."""
    told = re.sub(r"([\\`*\[\]<>|~])", r"\\\1", harmless(text))
    return told if _is_number(told) else re.sub(r"^(\s*)(?=[#+=_-])|^(\s*\d+)(?=[.)])", r"\1\2\\", told)


def cell(value: Any) -> Any:
    """A value for a spreadsheet: numbers as they are, and texts so that none is computed as a formula."""
    if value is None or isinstance(value, int | float):
        return value
    told = harmless(value)
    return told if _is_number(told) else _SEPARATED.sub(r"\1'", told)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
