"""Image files as a column of pixels: all decoded once to see that they are sound, then kept, or decoded when asked."""

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
_FEW = 2000  # files for which starting processes does not pay
_LOOKED_AT, _LONGEST, _MULTIPLE = 25, 96, 8


class Images:
    """Pixels (N, C, H, W) of image files, decoded when asked for, here or in any worker process.

    `checksums` are the CRC-32 of the files' bytes: `DataError` for a file that is gone, or is no longer the same.
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
            raise DataError(f"{self.source.path(name)} cannot be read any more: {error}") from None
        if zlib.crc32(content) != self.checksums[item]:
            raise DataError(f"{self.source.path(name)} has changed since the data were loaded: begin again")
        return self.decoder(content).pixels

    def digest(self) -> str:
        """SHA-256 of how files are decoded and of their names and checksums."""
        digest = hashlib.sha256(repr(sorted(vars(self.decoder).items())).encode())
        for name, checksum in zip(self.names, self.checksums, strict=True):
            digest.update(f"{name}\0{checksum}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Scanned:
    """What decoding one file showed: `reason` is why it is no sound image, or None."""

    reason: str | None = None
    checksum: int = 0
    size: tuple[int, int] = (0, 0)
    conversions: tuple[str, ...] = ()


class _Chunks(Dataset[Any]):
    """Names of files -> what decoding each showed, and the pixels of the sound ones (M, C, H, W)."""

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
    """[C, H, W] that suits the images: their median aspect, at most 96 pixels long, sides in multiples of 8.

    Up to 25 of them, evenly spread, are looked at; C is 1 if all of these are grey. `DataError` if none is sound.
    """
    names, decoder = source.listing().files, Decoder([3, 1, 1], formats=get_args(Format))
    seen = []
    for name in names[:: max(1, len(names) // _LOOKED_AT)][:_LOOKED_AT]:
        with contextlib.suppress(Refused):  # which loading tells of
            seen.append(decoder.look(source.read(name)))
    if not seen:
        raise DataError(f"no sound images in {source.root}, from which data.shape could follow: set it")
    aspect = statistics.median(math.log(width / height) for width, height, _ in seen)
    longest = min(_LONGEST, statistics.median(max(width, height) for width, height, _ in seen))
    height, width = longest * min(1, math.exp(-aspect)), longest * min(1, math.exp(aspect))
    sides = (max(_MULTIPLE, _MULTIPLE * round(side / _MULTIPLE)) for side in (height, width))
    return [1 if all(grey for *_, grey in seen) else 3, *sides]


def scan(
    source: Source, decoder: Decoder, names: Sequence[str], keep: bool, num_workers: int | None
) -> tuple[list[Scanned], Tensor]:
    """What decoding each file showed, and with `keep` the pixels of the sound ones (M, C, H, W)."""
    if num_workers is None:
        num_workers = 0 if len(names) < _FEW else min(16, os.cpu_count() or 1)
    length = max(1, min(256, _CHUNK_BYTES // torch.Size(decoder.shape).numel()))
    chunks = [names[first : first + length] for first in range(0, len(names), length)]
    loader = DataLoader(
        _Chunks(source, decoder, keep), batch_size=None, sampler=chunks, num_workers=num_workers, collate_fn=_same
    )
    results = iter(loader)  # the processes start before the bar's thread does
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
