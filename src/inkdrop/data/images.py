"""Image files as a column of pixels: all are decoded once as a check, then kept or decoded again for each batch."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import rich
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inkdrop.data.decoding import Decoder, Format
from inkdrop.data.sources import Refused, Source
from inkdrop.errors import DataError

_CHUNK_BYTES = 2**22  # of pixels that a process hands over at once
_FEW = 2000  # files; for fewer, starting processes takes longer than it saves
_LOOKED_AT, _LONGEST, _MULTIPLE = 25, 96, 8


class Images:
    """Pixels (N, C, H, W) of image files, decoded when a batch needs them, in this or in any worker process.

    `checksums` are the CRC-32 of the files' bytes. Raises `DataError` for a file that is missing or has changed.
    """

    dtype = torch.uint8

    def __init__(self, source: Source, decoder: Decoder, names: Sequence[str], checksums: Sequence[int]):
        self.source, self.decoder, self.names, self.checksums = source, decoder, names, checksums
        self.shape = (len(names), *decoder.shape)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        out = torch.empty(len(items), *self.decoder.shape, dtype=torch.uint8)
        for row, item in zip(out, items.tolist(), strict=True):
            row.copy_(self._pixels(item))
        return out

    def _pixels(self, item: int) -> Tensor:
        name = self.names[item]
        try:
            content = self.source.read(name)
        except Refused as error:
            raise DataError(f"{self.source.path(name)} can no longer be read: {error}") from None
        if zlib.crc32(content) != self.checksums[item]:
            raise DataError(f"{self.source.path(name)} has changed since the data were loaded: start the run again")
        return self.decoder(content).pixels

    def digest(self) -> str:
        """Returns the SHA-256 of the options of the decoder and of the names and checksums of the files."""
        digest = hashlib.sha256(repr(sorted(vars(self.decoder).items())).encode())
        for name, checksum in zip(self.names, self.checksums, strict=True):
            digest.update(f"{name}\0{checksum}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Scanned:
    """The result of decoding one file: `reason` is why it is not a valid image, or None."""

    reason: str | None = None
    checksum: int = 0
    size: tuple[int, int] = (0, 0)
    conversions: tuple[str, ...] = ()


class _Chunks(Dataset[Any]):
    """From names of files to the result of decoding each, and the pixels of the valid ones (M, C, H, W)."""

    def __init__(self, source: Source, decoder: Decoder, keep: bool):
        self.source, self.decoder, self.keep = source, decoder, keep

    def __getitem__(self, names: Sequence[str]) -> tuple[list[Scanned], Tensor]:
        scanned, pixels = [], []
        for name in names:
            try:
                content = self.source.read(name)
                decoded = self.decoder(content)
            except Refused as error:
                scanned.append(Scanned(str(error)))
                continue
            scanned.append(Scanned(None, zlib.crc32(content), decoded.size, decoded.conversions))
            if self.keep:
                pixels.append(decoded.pixels)
        return scanned, torch.stack(pixels) if pixels else torch.empty(0, *self.decoder.shape, dtype=torch.uint8)


def typical_shape(source: Source) -> list[int]:
    """Returns a shape [C, H, W] that suits the images: their median aspect, at most 96 pixels long, multiples of 8.

    It reads the headers of up to 25 images, evenly spread; C is 1 if all of these are grey. Raises `DataError` if none
    of them is valid.
    """
    names, decoder = source.listing().files, Decoder([3, 1, 1], formats=get_args(Format))
    headers = []
    for name in names[:: max(1, len(names) // _LOOKED_AT)][:_LOOKED_AT]:
        with contextlib.suppress(Refused):  # loading reports it
            headers.append(decoder.look(source.read(name)))
    if not headers:
        raise DataError(f"{source.root} has no valid image from which data.shape could follow: set data.shape")
    aspect = statistics.median(math.log(width / height) for width, height, _ in headers)
    longest = min(_LONGEST, statistics.median(max(width, height) for width, height, _ in headers))
    height, width = longest * min(1, math.exp(-aspect)), longest * min(1, math.exp(aspect))
    sides = (max(_MULTIPLE, _MULTIPLE * round(side / _MULTIPLE)) for side in (height, width))
    return [1 if all(grey for *_, grey in headers) else 3, *sides]


def scan(
    source: Source, decoder: Decoder, names: Sequence[str], keep: bool, num_workers: int | None
) -> tuple[list[Scanned], Tensor]:
    """Returns the result of decoding each file, and with `keep` the pixels of the valid ones (M, C, H, W)."""
    if num_workers is None:
        num_workers = 0 if len(names) < _FEW else min(16, os.cpu_count() or 1)
    length = max(1, min(256, _CHUNK_BYTES // torch.Size(decoder.shape).numel()))
    chunks = [names[first : first + length] for first in range(0, len(names), length)]
    loader = DataLoader(
        _Chunks(source, decoder, keep), batch_size=None, sampler=chunks, num_workers=num_workers, collate_fn=_same
    )
    results = iter(loader)  # the processes must start before the thread of the progress bar
    quiet = bool(getattr(rank_zero_only, "rank", 0)) or not rich.get_console().is_terminal
    scanned: list[Scanned] = []
    pixels = torch.empty(len(names) if keep else 0, *decoder.shape, dtype=torch.uint8)
    filled = 0
    for report, part in track(results, f"reading {source.root.name}", len(chunks), transient=True, disable=quiet):
        scanned += report
        pixels[filled : filled + len(part)] = part
        filled += len(part)
    return scanned, pixels[:filled]


def _same(chunk: Any) -> Any:
    return chunk
