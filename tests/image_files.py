"""Image files made for tests: pixels that are known, and encodings that Pillow does not write."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inkdrop.data import ImageFolder

SIDE = 32
SHAPE = [3, SIDE, SIDE]


def pixels(seed: int, *shape: int, levels: int = 256, dtype: Any = np.uint8) -> np.ndarray:
    """Random levels of this shape."""
    return np.random.default_rng(seed).integers(0, levels, shape).astype(dtype)


RGB, GREY, ALPHA = pixels(0, SIDE, SIDE, 3), pixels(1, SIDE, SIDE), pixels(2, SIDE, SIDE)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, colour: int, depth: int, rows: Iterable[bytes] = (), extra: bytes = b"") -> bytes:
    """A PNG file of any depth and size, from the bytes of its rows; without rows a header and little else."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def deep_png(image: np.ndarray) -> bytes:
    """A PNG of 16 bits from levels (H, W) or (H, W, 3)."""
    rows = (row.astype(">u2").tobytes() for row in image)
    return png(image.shape[1], image.shape[0], 2 if image.ndim == 3 else 0, 16, rows)


def write(root: Path, files: dict[str, bytes]) -> Path:
    """The files by their path below a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def sound(*folders: str, count: int = 10) -> dict[str, bytes]:
    """So many different sound images in each folder."""
    return {
        f"{folder}/{number:02}.png": encoded(pixels(1000 * place + number + 100, SIDE, SIDE, 3))
        for place, folder in enumerate(folders)
        for number in range(count)
    }


def folder(path: Path | str, **options: Any) -> ImageFolder:
    """An `ImageFolder` with small batches."""
    arguments: dict[str, Any] = {"shape": SHAPE, "num_classes": None, "batch_size": 4, **options}
    return ImageFolder(str(path), **arguments)
