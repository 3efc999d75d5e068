"""Images of a second folder that belong to those of a data set by their names."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge, Len

from inkdrop.data.decoding import Decoder
from inkdrop.data.findings import Findings
from inkdrop.data.images import Images, scan
from inkdrop.data.loaders import Column
from inkdrop.data.sources import Source, open_source
from inkdrop.errors import DataError
from inkdrop.files.locations import Location


class Paired:
    """A field (N, C, H, W) of images of the same names, with any suffix, in another folder or .zip file.

    - `path`: the place of the images that belong to those of `data.path`, with the same folders below it.
    - `shape`: their shape [C, H, W]; null is that of the data.
    - `validation`: the place of those that belong to the images of `data.validation`, where that is given.

    An image without a counterpart, or with one that is not a valid image, counts as broken.
    """

    def __init__(
        self,
        path: Location,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)] | None = None,
        validation: Location | None = None,
    ):
        self.path, self.shape, self.validation = path, shape, validation

    def decoder(self, decoder: Decoder) -> Decoder:
        """Returns the decoder of the data for images of this shape; raises `ValueError` for a shape of no image."""
        mine = copy.copy(decoder)
        mine.shape = tuple(self.shape or decoder.shape)
        mine.check_shape()
        return mine

    def source(self, name: str, folder: str, separate: bool, allow_links: bool) -> Source:
        """Returns the place of the counterparts of one split.

        - `name`: the name of the field, for the message.
        - `folder`: the folder of the split below `data.path`, or nothing where it is `data.path` itself.
        - `separate`: whether the split is that of `data.validation`.
        - `allow_links`: whether links may leave the place.

        Raises `DataError` if there is no such place.
        """
        if separate and self.validation is None:
            raise DataError(
                f"data.paired.{name}.validation is missing, and data.validation is given: set it to the folder with "
                "the counterparts of these images"
            )
        source = open_source(str(self.validation if separate else self.path), allow_links)
        if not folder:
            return source
        if folder not in source.folders():
            raise DataError(f"{source.root} has no folder {folder}, which {name} needs as data.path does: add it")
        return source.within(folder)


class Counterparts:
    """The counterparts of some files in a source, all decoded once; `broken` has reasons by the number of the file."""

    def __init__(self, source: Source, decoder: Decoder, names: Sequence[str], keep: bool, num_workers: int | None):
        self.source, self._decoder, self._keep = source, decoder, keep
        listing, by_stem = source.listing(), dict[str, list[str]]()
        for each in listing.files:
            by_stem.setdefault(_stem(each), []).append(each)
        present = set(listing.files)
        matches = [[name] if name in present else by_stem.get(_stem(name), []) for name in names]
        self.broken: dict[int, str] = {}
        for number, (name, match) in enumerate(zip(names, matches, strict=True)):
            if not match:
                self.broken[number] = f"is missing, the counterpart of {name}"
            elif len(match) > 1:
                self.broken[number] = f"has several counterparts: {', '.join(match)}"
        self._numbers = [number for number in range(len(names)) if number not in self.broken]
        self._names = [matches[number][0] for number in self._numbers]
        self._scanned, self._pixels = scan(source, decoder, self._names, keep, num_workers)
        reasons = zip(self._numbers, self._scanned, strict=True)
        self.broken |= {number: each.reason for number, each in reasons if each.reason is not None}

    def report(self, names: Sequence[str], findings: Findings) -> None:
        """Adds the broken ones to the findings, by their paths; `names` are the files whose counterparts they are."""
        found = dict(zip(self._numbers, self._names, strict=True))
        for number, reason in self.broken.items():
            findings.broken[self.source.path(found.get(number, names[number]))] = reason

    def column(self, numbers: Sequence[int]) -> Column:
        """Returns the images of these files, none of which is broken."""
        rows = {number: row for row, number in enumerate(self._numbers)}
        chosen = [rows[number] for number in numbers]
        if self._keep:
            valid = [row for row, each in enumerate(self._scanned) if each.reason is None]
            place = {row: index for index, row in enumerate(valid)}
            return self._pixels[[place[row] for row in chosen]]
        names = [self._names[row] for row in chosen]
        return Images(self.source, self._decoder, names, [self._scanned[row].checksum for row in chosen])


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
