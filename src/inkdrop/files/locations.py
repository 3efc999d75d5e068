"""The folders of data and caches, and the locations of data that a checkpoint may name."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

_LOCATION, _FETCHES = "a location that is read", "whether data are fetched"

Location: TypeAlias = Annotated[str, _LOCATION]  # an argument that is a file, a folder, a pattern or a URL
Fetches: TypeAlias = Annotated[bool, _FETCHES]  # an argument that allows the download of missing data


def data_dir(root: str | None = None) -> Path:
    """Returns the folder of data sets: `root`, or else `INKDROP_DATA_DIR`, or else `data`."""
    return Path(root or os.environ.get("INKDROP_DATA_DIR") or "data")


def cache_dir() -> Path:
    """Returns the folder of files that can be computed again: `INKDROP_CACHE_DIR`, or `~/.cache/inkdrop`."""
    return Path(os.environ.get("INKDROP_CACHE_DIR") or Path.home() / ".cache" / "inkdrop")


def is_location(annotation: Any) -> bool:
    """Returns whether an annotation is that of a `Location`."""
    return _marked(annotation, _LOCATION)


def fetches(annotation: Any) -> bool:
    """Returns whether an annotation is that of `Fetches`."""
    return _marked(annotation, _FETCHES)


def _marked(annotation: Any, mark: str) -> bool:
    return annotation == mark or any(_marked(each, mark) for each in typing.get_args(annotation))


def outside(location: str, folders: Iterable[str]) -> str | None:
    """Returns the first part of a location outside the data folder and all of these folders, or None if all are inside.

    A relative path is relative to the working directory, or to the data folder if it does not exist there. A pattern is
    judged by the folder before its first wildcard, and a URL is inside if it begins with one of `folders`.
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
