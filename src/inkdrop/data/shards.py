"""Columns of tar shards with random access: images and arrays, and captions."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from inkdrop.data.arrays import as_tensor
from inkdrop.data.choices import Choices
from inkdrop.data.decoding import Decoder
from inkdrop.data.shard_store import COUNT, LONGEST, Shard, ShardStore
from inkdrop.data.sources import Refused
from inkdrop.errors import DataError
from inkdrop.files.arrays import decode_npy
from inkdrop.files.showing import harmless
from inkdrop.files.texts import encoded

T = TypeVar("T")
_NPY = b"\x93NUMPY"  # the first bytes of a .npy


class _Members:
    """Members of shards by number, each of which is read on demand."""

    def __init__(self, store: ShardStore, shards: Sequence[Shard], offsets: np.ndarray, sizes: np.ndarray):
        self.store, self.offsets, self.sizes = store, offsets, sizes
        self.urls = [shard.url for shard in shards]
        self.ends = np.cumsum([len(shard.offsets) for shard in shards])

    def read(self, items: np.ndarray, decode: Callable[[bytes, int], T]) -> list[T]:
        """Returns the items (B), decoded from content and number; each shard is opened once, and read to its end."""
        found: dict[int, T] = {}
        places = np.searchsorted(self.ends, items, side="right")
        for place in dict.fromkeys(places.tolist()):
            with self.store.open(self.urls[place]) as file:
                for item in np.unique(items[places == place]).tolist():
                    file.seek(self.offsets[item])
                    found[item] = decode(file.read(self.sizes[item]), item)
        return [found[item] for item in items.tolist()]

    def name(self, item: int) -> str:
        """Returns the shard and the name of a member, for an error message."""
        url = self.urls[int(np.searchsorted(self.ends, item, side="right"))]
        with self.store.open(url) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            names = (each.name for each in archive if each.offset_data == self.offsets[item])
            return f"{url}: {harmless(next(names, item))}"

    def digest(self, further: bytes = b"") -> str:
        """Returns the SHA-256 of the names of the shards, of all positions, and of further bytes."""
        digest = hashlib.sha256(" ".join(self.urls).encode())
        for array in (self.offsets, self.sizes, self.ends):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(further)
        return digest.hexdigest()


class ShardColumn:
    """A column of images (N, C, H, W), uint8, by `decoder`, or of arrays (N, *), that reads its shards on demand."""

    def __init__(self, store: ShardStore, shards: Sequence[Shard], shape: Sequence[int], decoder: Decoder):
        offsets, sizes = (np.concatenate([vars(each)[name] for each in shards]) for name in ("offsets", "sizes"))
        self.decoder, self._members = decoder, _Members(store, shards, offsets, sizes)
        self.shape: Sequence[int] = (len(offsets), *shape)
        self.dtype = torch.uint8
        self.dtype = self._members.read(np.zeros(1, int), self._decoded)[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        found = self._members.read(items.numpy(), self._decoded)
        for item, each in zip(items.tolist(), found, strict=True):
            if each.dtype != self.dtype:
                name = self._members.name(item)
                raise DataError(f"{name} has the type {each.dtype}, but the first sample has {self.dtype}")
        return torch.stack(found)

    def digest(self) -> str:
        """Returns the SHA-256 of the names of the shards, of all positions, and of the options of the decoder."""
        return self._members.digest(self.decoder.digest())

    def _decoded(self, content: bytes, item: int) -> Tensor:
        shape, name = self.shape[1:], self._members.name
        try:
            tensor = _array(content) if content.startswith(_NPY) else self.decoder(content).pixels
        except (Refused, OSError, ValueError) as error:
            raise DataError(f"{name(item)} cannot be decoded: {error}") from None
        if tuple(tensor.shape) != tuple(shape):
            raise DataError(f"{name(item)} has the shape {list(tensor.shape)}, but data.shape={list(shape)}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(f"{name(item)} holds numbers that are not finite in float32")
        return tensor


class ShardTexts(Choices):
    """A column of captions (N, L), uint8, that reads its shards on demand."""

    dtype = torch.uint8

    def __init__(self, store: ShardStore, shards: Sequence[Shard]):
        texts = np.concatenate([shard.texts for shard in shards])
        self._members, self._counts = _Members(store, shards, *texts.T[:2]), torch.from_numpy(texts[:, COUNT].copy())
        self.store, self.shape = store, (len(texts), int(texts[:, LONGEST].max()))

    @property
    def most(self) -> int:
        return int(self._counts.max())

    def counts(self, items: Tensor) -> Tensor:
        return self._counts[items]

    def chosen(self, items: Tensor, numbers: Tensor) -> Tensor:
        found = self._members.read(items.numpy(), self._captions)
        rows = encoded([texts[number] for texts, number in zip(found, numbers.tolist(), strict=True)])
        return torch.nn.functional.pad(rows, (0, self.shape[1] - rows.shape[1]))

    def digest(self) -> str:
        """Returns the SHA-256 of the names of the shards, of all positions, and of what the captions are."""
        return self._members.digest(str(self.store.captions).encode())

    def _captions(self, content: bytes, item: int) -> tuple[str, ...]:
        try:
            texts = self.store.captions_in(content)
        except Refused:
            texts = ()
        if len(texts) != self._counts[item] or max(len(text.encode()) for text in texts) > self.shape[1]:
            raise DataError(f"{self._members.name(item)} has changed since the data were loaded: start the run again")
        return texts


def _array(content: bytes) -> Tensor:
    return as_tensor(decode_npy(content))
