"""Arrays of numpy: a .npy is mapped or read, members of a .npz are read when asked for, and nothing is unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import open_regular
from inkdrop.files.showing import harmless

MAX_RATIO, FREE = 200, 2**28  # a .npz may unpack to this multiple of its size, and to so many bytes in any case


def map_npy(path: Path, error: type[ValueError] = UnreadableError) -> np.ndarray:
    """The array of a .npy file, which stays on disk; `error` for what is none, or is shorter than it declares."""
    with _told(path, error), open_regular(path) as file:
        shape, fortran, kind, start = _header(file)
        _require_length(shape, kind, path.stat().st_size - start)
        if 0 in shape:
            return np.empty(shape, kind)
        return np.memmap(path, kind, "r", start, shape, "F" if fortran else "C")


def decode_npy(content: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file; `ValueError` for what is none."""
    with _told(None, ValueError):
        return _read(io.BytesIO(content), len(content))


class Npz(Mapping[str, np.ndarray]):
    """The arrays of a .npz file by name, each read when asked for; `error` for what is none or unpacks to too much."""

    def __init__(self, path: Path, error: type[ValueError] = UnreadableError):
        self.path, self.error = path, error
        with _told(path, error), open_regular(path) as file, zipfile.ZipFile(file) as archive:
            size, members = path.stat().st_size, archive.infolist()
            if sum(each.file_size for each in members) > MAX_RATIO * size + FREE:
                raise ValueError(f"it unpacks to more than {MAX_RATIO} times its size")
            self.sizes = {each.filename.removesuffix(".npy"): each.file_size for each in members}
            self.files = {each.filename.removesuffix(".npy"): each.filename for each in members}

    def __getitem__(self, name: str) -> np.ndarray:
        member = self.files[name]
        with (
            _told(self.path, self.error),
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
        raise ValueError(f"it has {len(content):,} bytes of {length:,}")
    return np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether Fortran's order, kind of number, and where the numbers begin."""
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it has version {version} of the format")
    shape, fortran, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    if kind.hasobject:
        raise ValueError("it holds objects of Python")
    if kind.itemsize == 0 or any(length < 0 for length in shape):
        raise ValueError(f"it has the shape {shape} of {kind}")
    return shape, fortran, kind, stream.tell()


def _require_length(shape: tuple[int, ...], kind: np.dtype, size: int) -> int:
    if (length := math.prod(shape) * kind.itemsize) > size:
        raise ValueError(f"it declares {length:,} bytes and has {size:,}")
    return length


class _told:
    """Whatever goes wrong within the block is told as this error; numpy's and zip's readers run into anything."""

    def __init__(self, what: object, error: type[ValueError]):
        self.what, self.error = what, error

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, reason: BaseException | None, trace: object) -> None:
        if isinstance(reason, FileNotFoundError) or not isinstance(reason, Exception):
            return
        said = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
        place = "" if self.what is None else f"{harmless(self.what)} cannot be read: "
        raise self.error(f"{place}{harmless(said)}") from None
