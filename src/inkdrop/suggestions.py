"""What is said of a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def no_option(path: str, names: Iterable[str], advice: str = "") -> str:
    """That there is no option at this path, and the name meant, or else the names beside it, and advice."""
    names = list(names)
    if close := difflib.get_close_matches(path.rpartition(".")[2], names, 1):
        return f"{path} is no option: did you mean {close[0]}?"
    return f"{path} is no option{': there are ' if names else ''}{', '.join(names)}{advice}"
