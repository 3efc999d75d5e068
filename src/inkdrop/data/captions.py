"""Captions of items, and where those of image files are: in a table, in texts next to the images, or in class names."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from inkdrop.data.choices import Choices
from inkdrop.data.layout import Place
from inkdrop.data.sources import Listing, Refused, Source
from inkdrop.errors import DataError
from inkdrop.files.showing import harmless
from inkdrop.files.texts import MAX_LENGTH

NAME = "caption"  # the field of a batch
BESIDE = "txt"  # the value of `data.captions` for texts next to images
_LABEL = "{label}"
_MAX_BYTES = 2**20  # of a file with captions


class Captions(Choices):
    """Texts (N, L), UTF-8 in uint8, filled with zeros, of items with one caption each or several."""

    dtype = torch.uint8

    def __init__(self, captions: Sequence[Sequence[str]]):
        texts = dict.fromkeys(text for each in captions for text in each)
        different = {text: number for number, text in enumerate(texts)}
        contents = [text.encode() for text in different]
        self._texts = torch.frombuffer(bytearray(b"".join(contents) or b"\0"), dtype=torch.uint8)
        self._starts = torch.tensor([0, *map(len, contents)]).cumsum(0)
        self._numbers = torch.tensor([different[text] for each in captions for text in each], dtype=torch.int64)
        self._first = torch.tensor([0, *map(len, captions)]).cumsum(0)
        self._most = max([1, *map(len, captions)])
        self.shape = (len(captions), max([1, *map(len, contents)]))

    @property
    def most(self) -> int:
        return self._most

    def counts(self, items: Tensor) -> Tensor:
        return self._first[items + 1] - self._first[items]

    def chosen(self, items: Tensor, numbers: Tensor) -> Tensor:
        texts = self._numbers[self._first[items] + numbers]
        start, end = self._starts[texts, None], self._starts[texts + 1, None]
        places = start + torch.arange(self.shape[1])
        return torch.where(places < end, self._texts[places.clamp(max=len(self._texts) - 1)], 0)

    def digest(self) -> str:
        """Returns the SHA-256 of the captions in order, and of how many each item has."""
        digest = hashlib.sha256()
        for tensor in (self._texts, self._starts, self._numbers, self._first):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def is_template(captions: str | None) -> bool:
    """Whether the value of `data.captions` is a template, such as `a photo of a {label}`.

    Raises `ValueError` for braces that are not `{label}`.
    """
    if captions is None or not {"{", "}"} & set(captions):
        return False
    if {"{", "}"} & set(captions.replace(_LABEL, "")) or _LABEL not in captions:
        raise ValueError(
            f"data.captions={harmless(captions, 60)} must have {_LABEL}, which stands for the name of the class, and "
            "no other braces"
        )
    return True


def of_classes(template: str, labels: Sequence[int], classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the captions that a template makes of the classes (N) of items."""
    texts = [(template.replace(_LABEL, name),) for name in classes]
    return [texts[label] for label in labels]


def lines_of(content: bytes) -> tuple[str, ...]:
    """Returns the captions in a text, one in each line; raises `Refused` with the reason if there are none."""
    if len(content) > _MAX_BYTES:
        raise Refused(f"it has {len(content):,} bytes, more than {_MAX_BYTES:,}")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise Refused("it is not text in UTF-8") from None
    return checked([line for line in lines if line.strip()])


def checked(values: Sequence[object]) -> tuple[str, ...]:
    """Returns the captions of an item without spaces around them; raises `Refused` with the reason if one is invalid.

    There must be at least one.
    """
    if not values:
        raise Refused("it has no caption")
    captions = []
    for value in values:
        if not isinstance(value, str):
            raise Refused(f"its caption {harmless(value, 40)} is not a text")
        if not (caption := value.strip()):
            raise Refused("its caption is empty")
        try:
            size = len(caption.encode())
        except UnicodeEncodeError:
            raise Refused(f"its caption {harmless(ascii(value), 40)} is not valid Unicode") from None
        if "\0" in caption:
            raise Refused("its caption contains the character 0")
        if size > MAX_LENGTH:
            raise Refused(f"its caption has {size:,} bytes, more than {MAX_LENGTH:,}")
        captions.append(caption)
    return tuple(captions)


class Read(NamedTuple):
    """The captions of files by their number, and the path and the reason of those without a valid one."""

    captions: dict[int, tuple[str, ...]]
    broken: dict[int, tuple[str, str]]

    def column(self, numbers: Sequence[int]) -> Captions:
        """Returns the captions of these files, none of which is broken."""
        return Captions([self.captions[number] for number in numbers])


class Captioned(ABC):
    """Where the captions of the images of a split are; `files` are those next to the images that have them."""

    files: Collection[str] = ()

    def read(self, source: Source, names: Sequence[str], labels: Sequence[int]) -> Read:
        """Returns the captions of these files, whose classes are `labels` (N)."""
        found = Read({}, {})
        for number, (name, label) in enumerate(zip(names, labels, strict=True)):
            path = self._path(source, name)
            try:
                found.captions[number] = self._captions(source, name, label)
            except Refused as error:
                found.broken[number] = (path, str(error))
        return found

    def _path(self, source: Source, name: str) -> str:
        """The path of the file that is broken if the caption of this image is."""
        return source.path(name)

    @abstractmethod
    def _captions(self, source: Source, name: str, label: int) -> tuple[str, ...]:
        """The captions of one image; raises `Refused` with the reason if there is no valid one."""


class _InTable(Captioned):
    """Captions in a column of a table."""

    def __init__(self, path: str, captions: Mapping[str, Sequence[object]]):
        self.path, self.captions = path, captions

    def _captions(self, source: Source, name: str, label: int) -> tuple[str, ...]:
        try:
            return checked(self.captions.get(name, ()))
        except Refused as error:
            raise Refused(f"{error} in {self.path}") from None


class _Beside(Captioned):
    """Captions in a text next to each image, whose name it has but for the suffix; each line is a caption."""

    def __init__(self, texts: Mapping[str, str]):
        self.texts = texts  # by the name of the image without its suffix
        self.files = set(texts.values())

    def _path(self, source: Source, name: str) -> str:
        return source.path(self.texts.get(_stem(name), name))

    def _captions(self, source: Source, name: str, label: int) -> tuple[str, ...]:
        if (text := self.texts.get(_stem(name))) is None:
            raise Refused(f"has no caption: {_stem(name).rpartition('/')[2]}.{BESIDE} is missing")
        return lines_of(source.read(text))


class _OfClasses(Captioned):
    """Captions that a template makes of the names of classes."""

    def __init__(self, template: str, classes: Sequence[str]):
        self.template, self.classes = template, classes

    def _captions(self, source: Source, name: str, label: int) -> tuple[str, ...]:
        return checked(of_classes(self.template, [label], self.classes)[0])


def texts_beside(listing: Listing) -> dict[str, str]:
    """Returns the texts next to images of the same name, by this name without the suffix."""
    stems = {_stem(name) for name in listing.files}
    texts = {_stem(name): name for name in listing.skipped if name.lower().endswith(f".{BESIDE}")}
    return {stem: name for stem, name in texts.items() if stem in stems}


def captioned(captions: str, place: Place, listing: Listing, classes: Sequence[str]) -> Captioned:
    """Returns where the captions of a split are.

    - `captions`: a column of the table of the place, `txt` for texts next to images, or a template.
    - `place`: the place of the split.
    - `listing`: all files there.
    - `classes`: names of the classes.

    Raises `DataError` if the captions are not there, or if a table and texts both have captions, and `ValueError` for a
    template without classes.
    """
    if is_template(captions):
        if not classes:
            raise ValueError(
                f"data.captions={harmless(captions, 60)} needs classes, and {harmless(place.path)} has none: set "
                f"data.captions to a column of its table, or to {BESIDE} for texts next to the images"
            )
        return _OfClasses(captions, classes)
    texts, table = texts_beside(listing), place.table
    if texts and table is not None and table.captions:
        text = place.source.path(next(iter(texts.values())))
        raise DataError(
            f"{table.path} (column {harmless(table.captions, 40)}) and {text} both have captions: remove one of them"
        )
    if table is not None and table.captions == captions.lower():
        return _InTable(table.path, {name: row.captions for name, row in table.rows.items()})
    if texts and captions == BESIDE:
        return _Beside(texts)
    columns = "" if table is None else harmless(", ".join(table.columns), 200) or "none"
    there = [] if table is None else [f"{table.path} has the columns {columns}"]
    there += [f"{len(texts)} texts are next to images: set data.captions={BESIDE}"] if texts else []
    there = there or ["no table and no texts of the names of images are there"]
    raise DataError(f"{harmless(place.path)} has no captions {harmless(captions, 60)}: {', and '.join(there)}")


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
