"""Tables next to images that describe them: `dataset.json` as in EDM, `metadata.jsonl` as at Hugging Face, or a CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from inkdrop.data.sources import Refused, Source
from inkdrop.errors import DataError
from inkdrop.files import json_of
from inkdrop.files.showing import harmless

MAX_BYTES, MAX_VALUES = 2**27, 10**7  # of one table: a line for each image
EDM, LINES, CSV = "dataset.json", "metadata.jsonl", "metadata.csv"

_FILE = ("file_name", "filename", "file", "image", "image_path", "path")  # columns, of which the first counts
_LABEL = ("label", "class", "class_name", "category")
_SPLIT = ("split",)
_CAPTION = ("text", "caption", "captions", "prompt")
_KNOWN = {*_FILE, *_LABEL, *_SPLIT, *_CAPTION}


class Row(NamedTuple):
    """What a table says about one image; None where it says nothing."""

    label: int | str | None = None
    split: str | None = None
    captions: tuple[object, ...] = ()  # as they are in the file


@dataclass(frozen=True)
class Table:
    """A table about images: rows by the path of the image from the folder of the table.

    `labelled` is whether the table says the classes; None where it does not mention them. `captions` is the column with
    captions: that which was asked for, or else one of a usual name.
    """

    path: str
    rows: Mapping[str, Row] = field(default_factory=dict)
    labelled: bool | None = None
    unread: Sequence[str] = ()  # further columns
    columns: Sequence[str] = ()
    captions: str = ""

    def unused(self, asked: str | None) -> str:
        """What of the table is not used, as the subject of a sentence, if `data.captions` is `asked`."""
        count = sum(any(row.captions) for row in self.rows.values())
        parts = [f"{count} captions (data.captions={self.captions} uses them)"] if count and asked is None else []
        parts += [f"the columns {_listed(self.unread)}"] if self.unread else []
        return f"{' and '.join(parts)} are" if parts else ""

    def below(self, folder: str) -> Table | None:
        """Returns the part of the table about the images of a folder, or None if it names none of them."""
        start = f"{folder}/"
        rows = {name.removeprefix(start): row for name, row in self.rows.items() if name.startswith(start)}
        return replace(self, rows=rows) if rows or self.labelled is False else None


def read_table(source: Source, captions: str | None = None) -> Table | None:
    """Returns the table directly below the root, with this column of captions if it has one, or None without a table.

    Raises `DataError` for several tables, or for one that cannot be read.
    """
    files = source.files()
    found = [name for name in files if name.lower() in (EDM, LINES, CSV)]
    about = found or [name for name in files if name.lower().endswith(".csv")]
    read = {name: _table(source, name, captions) for name in about}
    tables = {name: table for name, table in read.items() if table is not None}
    if len(tables) > 1:
        one, other = [source.path(name) for name in tables][:2]
        raise DataError(f"{one} and {other} both name images: keep one of them, or give each split its own folder")
    return next(iter(tables.values()), None)


def _table(source: Source, name: str, captions: str | None) -> Table | None:
    """One table, or None for a dataset.json without `labels` or a CSV without file names."""
    path = source.path(name)
    try:
        content = source.read(name)
    except Refused as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} has {len(content):,} bytes, more than {MAX_BYTES:,}")
    if name.lower() == EDM:
        return _of_edm(content, path)
    lines = _of_lines(content, path) if name.lower() == LINES else _of_csv(content, path)
    return _of_columns(lines, path, name.lower() in (LINES, CSV), (captions or "").lower())


def _of_edm(content: bytes, path: str) -> Table | None:
    """{"labels": [[path, class], ...] or null}."""
    table = json_of(content, path, dict, DataError, MAX_VALUES)
    if "labels" not in table:
        return None
    if (labels := table["labels"]) is None:
        return Table(path, labelled=False)
    if not isinstance(labels, list) or not all(isinstance(each, list) and len(each) == 2 for each in labels):
        raise DataError(f"{path} cannot be read: its labels are not a list of [path, class]")
    return _joined((({"file_name": name, "label": label}, f"{path}: {name}") for name, label in labels), path, {})


def _of_lines(content: bytes, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield json_of(line, place, dict, DataError), place


def _of_csv(content: bytes, path: str) -> Iterator[tuple[dict[str, Any], str]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} cannot be read: it is not text in UTF-8") from None
    header = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        for row in reader:
            yield {key: value for key, value in row.items() if key is not None}, f"{path}, line {reader.line_num}"
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}, cannot be read: {error}") from None


def _of_columns(lines: Iterator[tuple[dict[str, Any], str]], path: str, stated: bool, captions: str) -> Table | None:
    """A table from rows by column, or None for a CSV that is not `stated` to be about images and seems not to be.

    `captions` is the column that was asked for; without it, one of a usual name has the captions.
    """
    rows = [({str(key).strip().lower(): value for key, value in row.items()}, place) for row, place in lines]
    columns = dict.fromkeys(key for row, _ in rows for key in row)
    kinds = {**_COLUMNS, "text": (captions, *_CAPTION)}
    names = {kind: next((each for each in usual if each in columns), "") for kind, usual in kinds.items()}
    if not names["file_name"] or not (stated or names["label"] or names["split"] or names["text"]):
        if stated and rows:
            raise DataError(f"{path} has no column file_name, but {_listed(columns)}: rename the column of file names")
        return None
    table = _joined(rows, path, names)
    unread = [each for each in columns if each not in _KNOWN and each != captions]
    return replace(table, unread=unread, columns=list(columns), captions=names["text"])


_COLUMNS = {"file_name": _FILE, "label": _LABEL, "split": _SPLIT, "text": _CAPTION}


def _joined(rows: Iterable[tuple[dict[str, Any], str]], path: str, names: Mapping[str, str]) -> Table:
    """The rows by image, which may have several with captions; `names` gives the columns of what a row says."""
    found: dict[str, Row] = {}
    for row, place in rows:
        name, label, split, text = (row.get(names.get(kind, kind)) for kind in _COLUMNS)
        if not isinstance(name, str) or not name:
            raise DataError(f"{place}: {harmless(name, 40)} is not the name of a file")
        image = str(PurePosixPath(name.replace("\\", "/")))
        captions = tuple(text if isinstance(text, list) else [] if text is None else [text])
        entry = Row(_label(label, place), str(split).strip() if split else None, captions)
        earlier = found.get(image, entry._replace(captions=()))
        if earlier[:2] != entry[:2]:
            raise DataError(f"{place}: {harmless(image)} occurs before with another label or split: remove one line")
        found[image] = entry._replace(captions=earlier.captions + captions)
    labels = [row.label for row in found.values() if row.label is not None]
    if not all(isinstance(label, int) or str(label) == _plain(label) for label in labels):
        found = {name: row._replace(label=None if row.label is None else str(row.label)) for name, row in found.items()}
    else:
        found = {name: row._replace(label=None if row.label is None else int(row.label)) for name, row in found.items()}
    return Table(path, found, True if labels else None)


def _plain(label: int | str) -> str:
    """A whole number in its usual form, or an empty text."""
    return str(int(label)) if re.fullmatch("[0-9]{1,18}", str(label)) else ""


def _label(value: Any, place: str) -> int | str | None:
    """A label as a whole number from 0 on, or as a name; None without a label."""
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and not re.fullmatch(r"\s*|\s*[-+]?[0-9]*\.[0-9]+\s*", value):
        return value.strip()
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise DataError(f"{place}: the label {harmless(value, 40)} is neither a whole number from 0 on nor a name")


def _listed(columns: Iterable[str]) -> str:
    return harmless(", ".join(columns)) or "none"
