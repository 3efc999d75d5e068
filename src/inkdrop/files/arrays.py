"""Reads arrays of numpy: .npy files are mapped or read, .npz members are read on demand, and nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import open_regular
from inkdrop.files.showing import harmless

MAX_RATIO, FREE = 200, 2**28  # a .npz may unpack to this multiple of its size, plus this number of bytes


def map_npy(path: Path, error: type[ValueError] = UnreadableError) -> np.ndarray:
    """Maps the array of a .npy file; raises `error` for another format or a file shorter than its header declares."""
    with _raising(path, error), open_regular(path) as file:
        shape, fortran, kind, start = _header(file)
        _require_length(shape, kind, path.stat().st_size - start)
        if 0 in shape:
            return np.empty(shape, kind)
        return np.memmap(path, kind, "r", start, shape, "F" if fortran else "C")


def decode_npy(content: bytes) -> np.ndarray:
    """Returns the array in the bytes of a .npy file; raises `ValueError` for another format."""
    with _raising(None, ValueError):
        return _read(io.BytesIO(content), len(content))


def has_channels_last(array: np.ndarray, shape: Sequence[int] | None = None) -> bool:
    """Returns whether an array is images of 8 bits (N, H, W, C), as `samples.npz` and image libraries have them.

    With the shape (C, H, W) of an image, an array of which each item has this shape as it is has not. Without a shape,
    C is 1 or 3 and the second axis is not.
    """
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3):
        return False
    height, width, channels = array.shape[1:]
    if shape is None:
        return height not in (1, 3)
    return [height, width, channels] != list(shape) == [channels, height, width]


class Npz(Mapping[str, np.ndarray]):
    """The arrays of a .npz file by name, read on demand; raises `error` for another format or too large content."""

    def __init__(self, path: Path, error: type[ValueError] = UnreadableError):
        self.path, self.error = path, error
        with _raising(path, error), open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size, members = path.stat().st_size, archive.infolist()
            if sum(each.file_size for each in members) > MAX_RATIO * size + FREE:
                raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
            self.sizes = {each.filename.removesuffix(".npy"): each.file_size for each in members}
            self.files = {each.filename.removesuffix(".npy"): each.filename for each in members}

    def __getitem__(self, name: str) -> np.ndarray:
        member = self.files[name]
        with (
            _raising(self.path, self.error),
            open_regular(self.path) as file,
            zipfile.ZipFile(file) as archive,
            archive.open(member) as stream,
        ):
            return _read(stream, self.sizes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def _read(stream: IO[bytes], size: int) -> np.ndarray:
    shape, fortran, kind, start = _header(stream)
    length = _require_length(shape, kind, size - start)
    content = bytearray(stream.read(length))
    if len(content) < length:
        raise ValueError(f"it has only {len(content):,} of {length:,} bytes")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Returns the shape, whether the order is Fortran's, the type, and the position of the first number."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has version {version} of the format")
    shape, fortran, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    if kind.hasobject:
        raise ValueError("it contains Python objects")
    if kind.itemsize == 0 or any(length < 0 for length in shape):
        raise ValueError(f"it has the shape {shape} of {kind}")
    return shape, fortran, kind, stream.tell()


def _require_length(shape: tuple[int, ...], kind: np.dtype, size: int) -> int:
    if (length := math.prod(shape) * kind.itemsize) > size:
        raise ValueError(f"it declares {length:,} bytes but has {size:,}")
    return length


class _raising:
    """Raises this error for any exception within the block, because the readers of numpy and zip raise any type."""

    def __init__(self, what: object, error: type[ValueError]):
        self.what, self.error = what, error

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, reason: BaseException | None, trace: object) -> None:
        if isinstance(reason, FileNotFoundError) or not isinstance(reason, Exception):
            return
        text = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
        place = "" if self.what is None else f"{harmless(self.what)} cannot be read: "
        raise self.error(f"{place}{harmless(text)}") from None
