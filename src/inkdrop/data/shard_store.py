"""Tar shards: their download, and the positions of their members, which are read once and stored."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import numpy as np

from inkdrop.data.captions import checked, lines_of
from inkdrop.data.sources import Refused
from inkdrop.errors import DataError, UnreadableError
from inkdrop.files.arrays import Npz
from inkdrop.files.plain import json_of
from inkdrop.files.showing import harmless
from inkdrop.files.writing import replacing

_JSON = "json"
COUNT, LONGEST = 2, 3  # columns of `Shard.texts`
_ARRAYS = ("offsets", "sizes", "labels", "texts", "broken")


@dataclass(frozen=True)
class Shard:
    """The positions of the data of the n valid samples of a shard, and their classes and captions."""

    url: str
    offsets: np.ndarray  # (n)
    sizes: np.ndarray  # (n) in bytes
    labels: np.ndarray  # (n) int64; empty without labels
    texts: np.ndarray  # (n, 4) offset and size of the file, number of captions, bytes of the longest; or (0, 4)
    broken: np.ndarray  # (m, 2) texts: the files of samples without a valid caption, and reasons


class ShardStore:
    """Shards by URL as local files: remote ones are downloaded on demand, and the oldest are removed for new ones.

    `x` are the extensions of the data in order of preference, and `label` is that of the class, or None. `captions` is
    the extension of a text with a caption in each line, or `json.KEY`, or None.
    """

    def __init__(self, folder: Path, cache_size: int, x: tuple[str, ...], label: str | None, captions: str | None):
        try:
            from webdataset.cache import FileCache
        except ImportError:
            raise ValueError("data=webdataset needs webdataset: pip install inkdrop[streaming]") from None
        self.folder, self.x, self.label, self.captions = folder, x, label, captions
        self._cache = FileCache(str(folder / "fetched"), url_to_name=_name, cache_size=cache_size)

    def expand(self, pattern: str) -> list[str]:
        """Returns the URLs of a pattern with {000..123} or {a,b}; raises `ValueError` for commands."""
        from webdataset.shardlists import expand_urls

        urls: list[str] = expand_urls(pattern)
        if commands := [url for url in urls if urlsplit(url).scheme == "pipe"]:  # in any spelling, such as PIPE:
            raise ValueError(f"{commands[0]} would run a command: download the shards first, or give a URL")
        return urls

    def verify(self, url: str) -> None:
        """Raises `DataError` if a local shard is missing."""
        if self._is_local(url) and not Path(self._cache.get_file(url)).is_file():
            raise DataError(f"{url} is missing: set data.train and data.validation to shards that exist")

    def open(self, url: str) -> BinaryIO:
        """Returns a shard as an open file, downloaded if it is remote; raises `DataError` if that fails."""
        from filelock import FileLock

        self.verify(url)
        try:
            if self._is_local(url):
                return open(self._cache.get_file(url), "rb")
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{_name(url)}.lock"):  # one process downloads, and the others wait
                return open(self._cache.get_file(url), "rb")
        except (OSError, ValueError) as error:
            raise DataError(f"{url} cannot be opened or downloaded: {error}") from None

    def index(self, url: str) -> Shard:
        """Returns the positions of the samples of a shard, which are read once and stored."""
        self.verify(url)
        kept = self.folder / "index" / f"{_name(f'{self._version(url)} {self.x} {self.label} {self.captions}')}.npz"
        if (shard := _kept(kept, url)) is None:
            shard = self._scan(url)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                np.savez(file, **{name: getattr(shard, name) for name in _ARRAYS})
        return shard

    def _scan(self, url: str) -> Shard:
        rows: list[tuple[int, int, int]] = []
        texts: list[tuple[int, int, int, int]] = []
        broken: list[tuple[str, str]] = []
        with self.open(url) as file:
            for name, members in _samples(file, url):
                data = next((members[extension] for extension in self.x if extension in members), None)
                if data is None:
                    extensions = harmless(", ".join(members))
                    raise DataError(
                        f"{url}: the sample {harmless(name)} has none of {', '.join(self.x)}, but {extensions}: set "
                        "data.x to the extension of the data"
                    )
                row = data.offset_data, data.size, self._class(file, url, name, members)
                try:
                    texts += [self._texts(file, members)] if self.captions else []
                except Refused as error:
                    there = f".{self._extension}" if self._extension in members else f".{next(iter(members))}"
                    broken.append((harmless(f"{name}{there}"), harmless(str(error))))
                else:
                    rows.append(row)
        if not rows and not broken:
            raise DataError(f"{url} holds no samples: remove it from the pattern")
        offsets, sizes, labels = np.array(rows, np.int64).reshape(-1, 3).T
        positions = np.array(texts, np.int64).reshape(-1, 4)
        odd = np.array(broken, np.str_).reshape(-1, 2)
        return Shard(url, offsets, sizes, labels if self.label else labels[:0], positions, odd)

    def _class(self, file: BinaryIO, url: str, name: str, members: dict[str, tarfile.TarInfo]) -> int:
        if self.label is None:
            return -1
        if self.label not in members:
            raise DataError(f"{url}: the sample {name} has no .{self.label}: set data.label=null for no labels")
        file.seek(members[self.label].offset_data)
        text = file.read(min(members[self.label].size, 20)).strip()
        if not re.fullmatch(rb"\d{1,9}", text):
            raise DataError(
                f"{url}: {harmless(name)}.{self.label} holds {text!r}, but a class must be a whole number from 0 on"
            )
        return int(text)

    def _texts(self, file: BinaryIO, members: dict[str, tarfile.TarInfo]) -> tuple[int, int, int, int]:
        """A row of `Shard.texts`; raises `Refused` with the reason if the sample has no valid caption."""
        if (member := members.get(self._extension)) is None:
            raise Refused(f"has no caption: its .{self._extension} is missing")
        file.seek(member.offset_data)
        texts = self.captions_in(file.read(member.size))
        return member.offset_data, member.size, len(texts), max(len(text.encode()) for text in texts)

    @property
    def _extension(self) -> str:
        """The extension of the file with captions."""
        return _JSON if self._key else str(self.captions)

    @property
    def _key(self) -> str:
        """The key of captions in JSON, or nothing if they are in a text."""
        return (self.captions or "").partition(f"{_JSON}.")[2] if (self.captions or "").startswith(_JSON) else ""

    def captions_in(self, content: bytes) -> tuple[str, ...]:
        """Returns the captions in a file of a sample; raises `Refused` with the reason if they are invalid."""
        if not self._key:
            return lines_of(content)
        value = json_of(content, "the file", dict, Refused).get(self._key, [])
        return checked(value if isinstance(value, list) else [value])

    def _is_local(self, url: str) -> bool:
        from webdataset.cache import islocal

        return bool(islocal(url))

    def _version(self, url: str) -> str:
        """What distinguishes a changed local shard from the old one; a remote shard is assumed not to change."""
        if not self._is_local(url):
            return url
        stat = os.stat(self._cache.get_file(url))
        return f"{url} {stat.st_size} {stat.st_mtime_ns}"


def _samples(file: BinaryIO, url: str) -> Iterator[tuple[str, dict[str, tarfile.TarInfo]]]:
    """(name, members by extension) of each sample, whose members follow one another and share its name."""
    from webdataset.tariterators import base_plus_ext

    name: str | None = None
    members: dict[str, tarfile.TarInfo] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
                base, extension = base_plus_ext(member.name)
                if not member.isfile() or base is None:
                    continue
                if base != name and members:
                    yield str(name), members
                    members = {}
                name = base
                members[extension.lower()] = member
    except Exception as error:  # a damaged header can raise errors of many types
        raise DataError(f"{url} is not an intact, uncompressed tar file: {harmless(error)}") from None
    if members:
        yield str(name), members


def _kept(file: Path, url: str) -> Shard | None:
    """The stored positions of a shard, or None if they are missing or damaged."""
    try:
        arrays = Npz(file)
        shard = Shard(url, *(arrays[name] for name in _ARRAYS))
    except (FileNotFoundError, KeyError, UnreadableError):
        return None
    rows = (shard.offsets, shard.sizes, shard.labels, shard.texts)
    if any(each.dtype != np.int64 for each in rows) or [each.ndim for each in rows] != [1, 1, 1, 2]:
        return None
    count, columns = len(shard.offsets), shard.texts.shape[1]
    if shard.broken.dtype.kind != "U" or shard.broken.ndim != 2 or shard.broken.shape[1] != 2:
        return None
    fine = len(shard.sizes) == count and {len(shard.labels), len(shard.texts)} <= {0, count} and columns == LONGEST + 1
    return shard if fine else None


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
