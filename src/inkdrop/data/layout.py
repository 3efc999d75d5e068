"""Whether the folders below a path are splits, classes, or neither because the path is at the wrong level."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_warn

from inkdrop.configuration.suggestions import options
from inkdrop.data.classes import numbered, ordered
from inkdrop.data.sources import Listing, Source, image_by_name
from inkdrop.data.tables import Table, read_table
from inkdrop.errors import DataError
from inkdrop.files.showing import harmless

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Place:
    """The location of the files of a split, the table about them, and the names in the split; None is all."""

    path: str  # as the user would name it
    source: Source
    table: Table | None = None
    chosen: Collection[str] | None = None

    @property
    def labels(self) -> Table | None:
        """The table, if it and not the folders says the classes."""
        return self.table if self.table is not None and self.table.labelled is not None else None

    def sorted_out(self, listing: Listing, classes: Sequence[str]) -> tuple[list[str], list[int], dict[str, str]]:
        """Returns the files of the split, the class number of each, and the reason for each file that is left out."""
        numbers = {name: number for number, name in enumerate(classes)}
        rows = {} if self.table is None else self.table.rows
        files: list[str] = []
        labels: list[int] = []
        odd = dict(listing.odd)
        for name in listing.files:
            if self.chosen is not None and name not in self.chosen:
                if name not in rows:
                    odd[name] = self._not_in_table
            elif (label := numbers.get(str(self._label(name))) if numbers else 0) is None:
                odd[name] = "is not in the folder of any class" if self.labels is None else self._not_in_table
            else:
                files.append(name)
                labels.append(label)
        there = {*listing.files, *listing.skipped, *listing.odd}
        wanted = rows if self.chosen is None else self.chosen
        odd |= {name: f"is missing, but {self._table} names it" for name in wanted if name not in there}
        return files, labels, odd

    def _label(self, name: str) -> int | str | None:
        """The class of a file by table or folder; None if neither says it."""
        if (table := self.labels) is None:
            return name.split("/")[0] if "/" in name else None
        return table.rows[name].label if name in table.rows else None

    @property
    def _not_in_table(self) -> str:
        return f"has no line with a class in {self._table}"

    @property
    def _table(self) -> str:
        return "" if self.table is None else self.table.path


def places(path: str, source: Source, captions: str | None = None) -> dict[str, Place]:
    """Returns the splits below a path, by folders or by a table; `train` alone if neither names splits.

    `captions` is the column of captions in tables. Raises `DataError` for folders of which only some are splits.
    """
    table = read_table(source, captions)
    if folders := _split_folders(path, source):
        below = {split: source.within(folder) for split, folder in folders.items()}
        tables = {
            split: read_table(each, captions) or (table and table.below(folders[split]))
            for split, each in below.items()
        }
        return _named({split: Place(f"{path}/{name}", below[split], tables[split]) for split, name in folders.items()})
    if table is None or not any(row.split for row in table.rows.values()):
        return {"train": Place(path, source, table)}
    chosen: dict[str, set[str]] = {}
    for name, row in table.rows.items():
        if (split := _split(row.split or "")) is None:
            raise DataError(
                f"{table.path}: {harmless(name)} has the split {harmless(row.split, 40)}: it must be train, validation "
                "or test"
            )
        chosen.setdefault(split, set()).add(name)
    if "train" not in chosen:
        raise DataError(f"{table.path}: no image has the split train: give some images this split")
    return _named({split: Place(path, source, table, names) for split, names in chosen.items()})


def only_place(option: str, path: str, source: Source, captions: str | None = None) -> Place:
    """Returns the place of a path without splits, for use where another path is held out; else raises `DataError`."""
    splits = places(path, source, captions)
    if len(splits) == 1 and splits["train"].path == path:
        return splits["train"]
    below = splits["train"].path
    instead = f"set {options({f'data.{option}': below})}" if below != path else "remove the splits from the table"
    raise DataError(f"data.{option}={harmless(path)} itself has splits: leave data.validation out, or {instead}")


def _named(found: dict[str, Place]) -> dict[str, Place]:
    """The splits of a run: a test split becomes the held-out one where there is no other."""
    if "test" in found and "validation" not in found:
        return {"train": found["train"], "validation": found["test"]}
    return {split: found[split] for split in _SPLITS if split in found}


def _split(name: str) -> str | None:
    """The split that the name of a folder stands for."""
    plain = re.sub("[ _-]?(set|data|images)$", "", name.casefold())
    return next((split for split, names in _SPLITS.items() if plain in names), None)


def _split_folders(path: str, source: Source) -> dict[str, str]:
    """The folder of each split, if the folders are splits."""
    folders = source.folders()
    splits = {name: split for name in folders if (split := _split(name)) is not None}
    others = [name for name in folders if name not in splits]
    if not splits or (others and len(set(splits.values())) == 1):  # a class may be called train
        return {}
    if others or "train" not in splits.values() or len(set(splits.values())) < len(splits):
        raise DataError(
            f"{path} has the folders {_listed(folders)}, which are not one training split and other splits: name the "
            f"folders, such as {_advice(path, *sorted(splits, key=lambda name: list(_SPLITS).index(splits[name])))}"
        )
    if images := [name for name in source.files() if image_by_name(name)]:
        raise DataError(f"{source.path(images[0])} is next to the splits {_listed(folders)}: move it into one of them")
    return {split: name for name, split in splits.items()}


def class_names(found: Mapping[str, Place], num_classes: int | None) -> list[str]:
    """Returns the names of the classes in the order of their numbers, by the training split's table or folders."""
    if (table := found["train"].labels) is None:
        return ordered(found["train"].source.folders())
    tables = [place.labels for place in found.values() if place.labels is not None]
    labels = {row.label for each in tables for row in each.rows.values() if row.label is not None}
    if not table.labelled:
        return []
    if all(isinstance(label, int) for label in labels):
        return [str(label) for label in numbered(map(int, labels), num_classes)]
    return ordered(map(str, labels))


def check_level(place: Place, found: bool) -> None:
    """Raises `DataError` if classes or splits are further down; warns of folders that are probably not classes.

    Classes are only doubted if their number was counted (`found`) and not stated; splits within a folder always are.
    """
    if place.labels is not None:
        return
    path, source, folders = harmless(place.path), place.source, place.source.folders()
    wrapped, inner = _wrapped(source)
    if wrapped:
        whole = "/".join((place.path, *wrapped))
        if _split_folders(whole, inner) or (found and inner.folders() and not _images(inner)):
            raise DataError(
                f"all files of {path} are in its folder {'/'.join(map(harmless, wrapped))}, which holds the folders "
                f"{_listed(inner.folders())}: set {options({'data.path': whole})} to make these the classes or splits"
            )
    if not found:
        return
    if wrapped and _images(inner):
        rank_zero_warn(
            f"all images of {path} are in one folder, which makes one class, {harmless(folders[0])}: set "
            "data.num_classes=0 for no labels, or data.num_classes=1 to keep the class without this warning"
        )
    elif len(folders) > 1 and not any(_images(source.within(name)) for name in folders):
        inside = source.within(folders[0]).folders()
        if len(inside) > 1 and all(source.within(name).folders() == inside for name in folders):
            raise DataError(
                f"each of the folders {_listed(folders)} of {path} holds the folders {_listed(inside)}, as splits "
                f"do: set {_advice(path, *folders)}, or data.num_classes={len(folders)} if they are classes"
            )
    if len(folders) > 1 and all(re.fullmatch("[0-9]{5,}", name) for name in folders):
        rank_zero_warn(
            f"the folders {_listed(folders)} of {path} are taken as classes, but look like parts of one set: set "
            f"data.num_classes=0 for no labels, or data.num_classes={len(folders)} to keep them without this warning"
        )


def _wrapped(source: Source) -> tuple[list[str], Source]:
    """The chain of folders that each hold one folder and no image, and the source below them."""
    path: list[str] = []
    while not _images(source) and len(folders := source.folders()) == 1:
        path, source = [*path, *folders], source.within(folders[0])
    return path, source


def _images(source: Source) -> bool:
    return any(image_by_name(name) for name in source.files())


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - 5} more"] if len(names) > 5 else []
    return ", ".join([*(harmless(name, 60) for name in names[:5]), *more])


def _advice(path: str, *folders: str) -> str:
    """Options that train on the first folder and hold out the second."""
    named = zip(("path", "validation"), folders, strict=False)
    return options({f"data.{option}": f"{path}/{name}" for option, name in named})
