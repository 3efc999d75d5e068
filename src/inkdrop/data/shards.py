"""Tar shards with random access: the positions of their members, their download, and the decoding."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import numpy as np
import torch
from torch import Tensor

from inkdrop.data.arrays import as_tensor
from inkdrop.data.decoding import Decoder
from inkdrop.data.sources import Refused
from inkdrop.errors import DataError, UnreadableError
from inkdrop.files.arrays import Npz, decode_npy
from inkdrop.files.showing import harmless
from inkdrop.files.writing import replacing

_NPY = b"\x93NUMPY"  # the first bytes of a .npy


@dataclass(frozen=True)
class Shard:
    """The positions of the data of the n samples of a shard, and their classes."""

    url: str
    offsets: np.ndarray  # (n)
    sizes: np.ndarray  # (n) in bytes
    labels: np.ndarray  # (n) int64; empty without labels


class ShardStore:
    """Shards by URL as local files: remote ones are downloaded on demand, and the oldest are removed for new ones.

    `x` are the extensions of the data in order of preference, and `label` is that of the class, or None.
    """

    def __init__(self, folder: Path, cache_size: int, x: tuple[str, ...], label: str | None):
        try:
            from webdataset.cache import FileCache
        except ImportError:
            raise ValueError("data=webdataset needs webdataset: pip install inkdrop[streaming]") from None
        self.folder, self.x, self.label = folder, x, label
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
        kept = self.folder / "index" / f"{_name(f'{self._version(url)} {self.x} {self.label}')}.npz"
        if (shard := _kept(kept, url)) is None:
            shard = self._scan(url)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as file:
                np.savez(file, offsets=shard.offsets, sizes=shard.sizes, labels=shard.labels)
        return shard

    def _scan(self, url: str) -> Shard:
        rows: list[tuple[int, int, int]] = []
        with self.open(url) as file:
            for name, members in _samples(file, url):
                data = next((members[extension] for extension in self.x if extension in members), None)
                if data is None:
                    extensions = harmless(", ".join(members))
                    raise DataError(
                        f"{url}: the sample {harmless(name)} has none of {', '.join(self.x)}, but {extensions}: set "
                        "data.x to the extension of the data"
                    )
                rows.append((data.offset_data, data.size, self._class(file, url, name, members)))
        if not rows:
            raise DataError(f"{url} holds no samples: remove it from the pattern")
        offsets, sizes, labels = np.array(rows, np.int64).T
        return Shard(url, offsets, sizes, labels if self.label else labels[:0])

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

    def _is_local(self, url: str) -> bool:
        from webdataset.cache import islocal

        return bool(islocal(url))

    def _version(self, url: str) -> str:
        """What distinguishes a changed local shard from the old one; a remote shard is assumed not to change."""
        if not self._is_local(url):
            return url
        stat = os.stat(self._cache.get_file(url))
        return f"{url} {stat.st_size} {stat.st_mtime_ns}"


class ShardColumn:
    """A column of images (N, C, H, W), uint8, by `decoder`, or of arrays (N, *), that reads its shards on demand."""

    def __init__(self, store: ShardStore, shards: Sequence[Shard], shape: Sequence[int], decoder: Decoder):
        self.store, self.decoder, self.urls = store, decoder, [shard.url for shard in shards]
        self.offsets = np.concatenate([shard.offsets for shard in shards])
        self.sizes = np.concatenate([shard.sizes for shard in shards])
        self.ends = np.cumsum([len(shard.offsets) for shard in shards])
        self.shape: Sequence[int] = (len(self.offsets), *shape)
        self.dtype = torch.uint8
        self.dtype = self._read(np.zeros(1, int))[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        found = self._read(items.numpy())
        for item, each in zip(items.tolist(), found, strict=True):
            if each.dtype != self.dtype:
                raise DataError(
                    f"{self._member(item)} has the type {each.dtype}, but the first sample has {self.dtype}"
                )
        return torch.stack(found)

    def digest(self) -> str:
        """Returns the SHA-256 of the names of the shards, of all positions, and of the options of the decoder."""
        digest = hashlib.sha256(" ".join(self.urls).encode())
        for array in (self.offsets, self.sizes, self.ends):
            digest.update(array.tobytes())
        digest.update(self.decoder.digest())
        return digest.hexdigest()

    def _read(self, items: np.ndarray) -> list[Tensor]:
        """The items (B); each shard is opened once and read from front to back."""
        found: dict[int, Tensor] = {}
        places = np.searchsorted(self.ends, items, side="right")
        for place in dict.fromkeys(places.tolist()):
            with self.store.open(self.urls[place]) as file:
                for item in np.unique(items[places == place]).tolist():
                    file.seek(self.offsets[item])
                    found[item] = self._decoded(file.read(self.sizes[item]), item)
        return [found[item] for item in items.tolist()]

    def _decoded(self, content: bytes, item: int) -> Tensor:
        shape = self.shape[1:]
        try:
            tensor = _array(content) if content.startswith(_NPY) else self.decoder(content).pixels
        except (Refused, OSError, ValueError) as error:
            raise DataError(f"{self._member(item)} cannot be decoded: {error}") from None
        if tuple(tensor.shape) != tuple(shape):
            raise DataError(f"{self._member(item)} has the shape {list(tensor.shape)}, but data.shape={list(shape)}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(f"{self._member(item)} holds numbers that are not finite in float32")
        return tensor

    def _member(self, item: int) -> str:
        """The shard and name of a member, for an error message."""
        url = self.urls[int(np.searchsorted(self.ends, item, side="right"))]
        with self.store.open(url) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            names = (each.name for each in archive if each.offset_data == self.offsets[item])
            return f"{url}: {harmless(next(names, item))}"


def _array(content: bytes) -> Tensor:
    return as_tensor(decode_npy(content))


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
        offsets, sizes, labels = (arrays[name] for name in ("offsets", "sizes", "labels"))
    except (FileNotFoundError, KeyError, UnreadableError):
        return None
    if any(each.dtype != np.int64 or each.ndim != 1 for each in (offsets, sizes, labels)):
        return None
    return Shard(url, offsets, sizes, labels) if len(offsets) == len(sizes) and len(labels) in (0, len(sizes)) else None


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
