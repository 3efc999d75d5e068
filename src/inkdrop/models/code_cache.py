"""What a frozen encoder returned for items, kept by their content in memory and in a file.

N items in the file, S bytes of the numbers of an item.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor, nn

from inkdrop.errors import UnreadableError
from inkdrop.files.arrays import map_npy
from inkdrop.files.locations import cache_dir
from inkdrop.files.plain import open_regular
from inkdrop.files.writing import replacing

_KEY, _CHECK = 16, 8  # bytes of the key of an item, and of a checksum
_HEAD = _KEY + _CHECK
_LEAST = 4096  # new items that are written at once, unless an eighth of the file is more
_FORM = {"descr": "|u1", "fortran_order": False}


class CodeCache:
    """What a frozen encoder returned for items, by the hash of an item, in memory and in a file.

    The file, one for each model, lies in `INKDROP_CACHE_DIR` and holds rows (N, 16 + 8 + S), uint8: the key of an item,
    a checksum, and S / 4 numbers in float32. What is damaged is computed and written again. A process replaces the
    whole file, so that others see one state or the other; of two that write at once, one loses what it added.

    - `limit`: the bytes of what is new, and those of the file, which is read into memory. A full file loses the items
      that this process has not used.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forgets everything, and the file, which stays."""
        self._file: Path | None = None
        self._place: tuple[torch.device, torch.dtype] | None = None
        self._new: dict[bytes, Tensor] = {}
        self._num_unwritten = 0
        self._used: set[bytes] = set()
        self._map(np.empty((0, _HEAD), np.uint8))

    def belongs_to(self, model: nn.Module, weight: Tensor) -> None:
        """Uses the file of a model that is where this weight is, and of its type; looks at it only if these change."""
        if not self.limit or self._place == (weight.device, weight.dtype):
            return
        self.clear()
        self._place = weight.device, weight.dtype
        self._file = cache_dir() / "codes" / f"{_digest(model, weight.device)}.npy"
        self._read()

    def get(self, key: bytes) -> Tensor | None:
        """Returns the numbers (S / 4) of an item, or None."""
        if key in self._new:
            return self._new[key]
        if (place := self._places.get(key)) is None:
            return None
        row = self._rows[place].tobytes()
        if row[_KEY:_HEAD] != _check(key, row[_HEAD:]):
            del self._places[key]
            return None
        self._used.add(key)
        return torch.frombuffer(bytearray(row[_HEAD:]), dtype=torch.float32)

    def add(self, encoded: Mapping[bytes, Tensor]) -> None:
        """Keeps the numbers (S / 4) of items, as long as there is space; sometimes it writes the file."""
        for key, each in encoded.items():
            if (len(self._new) + 1) * each.nbytes <= self.limit:
                self._new[key] = each
                self._num_unwritten += 1
        if self._num_unwritten >= max(_LEAST, len(self._places) // 8):
            self.write()

    def write(self) -> None:
        """Adds what is new to the file; an error of the disk leaves it in memory."""
        if self._file is None or not self._num_unwritten:
            return
        self._num_unwritten = 0
        size = _HEAD + next(iter(self._new.values())).nbytes
        self._read()  # other processes may have written
        if self._rows.shape[1] != size:
            self._map(np.empty((0, size), np.uint8))
        kept = [key for key in self._places if key not in self._new]
        used = [key for key in kept if key in self._used]
        if len(used) * size >= self.limit:
            return
        order = [*used, *self._new, *(key for key in kept if key not in self._used)][: self.limit // size]
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as stream:
                npy.write_array_header_1_0(stream, {**_FORM, "shape": (len(order), size)})
                for key in order:
                    stream.write(self._row(key))
            self._read()
            self._used |= self._new.keys()
            self._new = {key: each for key, each in self._new.items() if key not in self._places}

    def _row(self, key: bytes) -> bytes:
        if key not in self._new:
            return self._rows[self._places[key]].tobytes()
        content = self._new[key].numpy().tobytes()
        return key + _check(key, content) + content

    def _read(self) -> None:
        """Reads the file if it is one, and forgets it otherwise."""
        rows: np.ndarray = np.empty((0, _HEAD), np.uint8)
        with contextlib.suppress(UnreadableError, OSError):
            if self._file is not None and not self._file.is_symlink():
                form = map_npy(self._file)
                if form.dtype == np.uint8 and form.ndim == 2 and form.shape[1] > _HEAD and len(form):
                    # A map would end the process where a file of a network file system is replaced by another one.
                    with open_regular(self._file) as stream:
                        content = np.fromfile(stream, np.uint8, form.size, offset=form.offset)  # type: ignore[attr-defined]
                    rows = content.reshape(form.shape) if content.size == form.size else rows
        self._map(rows)

    def _map(self, rows: np.ndarray) -> None:
        keys, self._rows = rows[:, :_KEY].tobytes(), rows
        self._places = {keys[_KEY * i : _KEY * (i + 1)]: i for i in range(len(rows))}

    def __deepcopy__(self, memo: dict[int, object]) -> CodeCache:
        return CodeCache(self.limit)

    def __reduce__(self) -> tuple[type[CodeCache], tuple[int]]:
        return CodeCache, (self.limit,)


def key_of(item: np.ndarray) -> bytes:
    """Returns the key of an item, a hash of its content."""
    return hashlib.blake2b(item.tobytes(), digest_size=_KEY).digest()


def _check(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(key + content, digest_size=_CHECK).digest()


def _digest(model: nn.Module, device: torch.device) -> str:
    """The hash of all on which the numbers of an encoder depend, to the last bit: its parts, weights and device."""
    on_gpu = device.type == "cuda"
    kind = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    digest = hashlib.sha256(f"{torch.__version__} {device.type} {kind} {model!r}".encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
