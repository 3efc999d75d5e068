"""Where data are read from, and which of these locations a checkpoint may name."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

_LOCATION, _FETCHES = "a location that is read", "whether data are fetched"

Location: TypeAlias = Annotated[str, _LOCATION]  # an argument that is a file, a folder, a pattern or an address
Fetches: TypeAlias = Annotated[bool, _FETCHES]  # an argument that says whether what is absent is fetched


def data_dir(root: str | None = None) -> Path:
    """The folder that data sets lie in: `root`, or else `INKDROP_DATA_DIR`, or else `data`."""
    return Path(root or os.environ.get("INKDROP_DATA_DIR") or "data")


def cache_dir() -> Path:
    """Where what can be made again is kept: `INKDROP_CACHE_DIR`, or `~/.cache/inkdrop`."""
    return Path(os.environ.get("INKDROP_CACHE_DIR") or Path.home() / ".cache" / "inkdrop")


def is_location(annotation: Any) -> bool:
    """Whether an annotation is that of a `Location`."""
    return _marked(annotation, _LOCATION)


def fetches(annotation: Any) -> bool:
    """Whether an annotation is that of `Fetches`."""
    return _marked(annotation, _FETCHES)


def _marked(annotation: Any, mark: str) -> bool:
    return annotation == mark or any(_marked(each, mark) for each in typing.get_args(annotation))


def outside(location: str, folders: Iterable[str]) -> str | None:
    """The part of a location that lies neither in the data folder nor in one of these; None if there is none.

    A relative path counts from here, or from the data folder if nothing is here. Of a pattern the folder counts that
    stands before it; an address lies in those that one of `folders` begins.
    """
    named = list(folders)
    roots = [os.path.realpath(str(folder)) for folder in (data_dir(), *named)]
    for each in location.split("::"):  # as patterns of shards are listed
        if re.match("[A-Za-z][A-Za-z0-9+.-]+:", each):
            inside = any("://" in folder and each.startswith(f"{folder.rstrip('/')}/") for folder in named)
        else:
            prefix = re.split(r"[{*?\[]", each, maxsplit=1)[0]
            is_pattern = prefix != each
            path = Path(os.path.dirname(prefix) if is_pattern else each)
            path = path if path.is_absolute() or path.exists() else data_dir() / path
            climbs = is_pattern and ".." in re.split(r"[/{},]", each)
            inside = not climbs and any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots)
        if not inside:
            return each
    return None
