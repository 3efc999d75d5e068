"""Makes texts from files harmless where they are shown: on a terminal, in Markdown, in a spreadsheet."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

LONGEST = 300  # characters of one text
MAX_LINES, LONGEST_LINE = 60, 2000  # of a message
_FORMULA = "=+\\-@＝＋－＠"  # first characters of a formula in a spreadsheet, full width or not
_SEPARATED = re.compile(rf"(^|[;,|])(?=\s*[{_FORMULA}])")


def harmless(text: object, longest: int = LONGEST) -> str:
    """Returns a text as one line of at most about `longest` characters; unprintable and bidi characters are escaped."""
    shown = str(text)
    if len(shown) > longest:  # before any other operation: it may be gigabytes
        shown = f"{shown[: longest * 2 // 3]}...{shown[-longest // 4 :]}"
        shown = f"{shown} ({len(str(text)):,} characters)"
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)


def harmless_lines(text: object) -> str:
    """Returns a message of several lines with each line made harmless, and only the first lines of very many."""
    lines = str(text).split("\n")
    shown = [harmless(line, LONGEST_LINE) for line in lines[:MAX_LINES]]
    return "\n".join([*shown, f"... and {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else shown)


def warn(text: object) -> None:
    """Prints a warning to the error stream."""
    print(harmless_lines(f"warning: {text}"), file=sys.stderr, flush=True)


def file_name(text: object, longest: int = 80) -> str:
    """Returns a text for a file name, of at most `longest` bytes, with _ for all but letters, digits, - and `.`."""
    plain = "".join(each if each.isalnum() or each in "-." else "_" for each in str(text)[:longest])
    return plain.encode()[:longest].decode(errors="ignore")


def markdown(text: object) -> str:
    """Returns a text for a cell or a line of Markdown, in which no heading, link, picture, tag or cell can begin."""
    shown = re.sub(r"([\\`*\[\]<>|~])", r"\\\1", harmless(text))
    return shown if _is_number(shown) else re.sub(r"^(\s*)(?=[#+=_-])|^(\s*\d+)(?=[.)])", r"\1\2\\", shown)


def cell(value: Any) -> Any:
    """Returns a value for a spreadsheet: a number unchanged, and a text such that it is not computed as a formula."""
    if value is None or isinstance(value, int | float):
        return value
    shown = harmless(value)
    return shown if _is_number(shown) else _SEPARATED.sub(r"\1'", shown)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def pipe_may_close() -> Iterator[None]:
    """Ends the output within the block silently if its reader has gone, such as `head`."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end
