"""Reads files of torch and safetensors that contain only tensors and plain data, no larger than the file itself."""

from __future__ import annotations

import errno
import functools
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import json_of, misfit, open_regular, read_bytes
from inkdrop.files.showing import harmless

MAX_TENSORS_BYTES = 2**40
MAX_INDEX_BYTES = 2**25  # of the names of the files into which weights were split
_PART = re.compile(r"[\w-][\w.-]*\.safetensors")
TYPES = (  # of tensors that can be read and computed with
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
)
# All names in the pickle of tensors and plain data; torch's own list also has functions that allocate any size.
_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool"
_NAMES = {
    *(f"torch._utils {name}" for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")),
    *(f"torch {name}Storage" for name in _STORAGES.split()),
    *(f"torch uint{bits}" for bits in (16, 32, 64)),
    *("torch.storage UntypedStorage", "collections OrderedDict", "torch Size"),
}


class ForeignError(ValueError):
    """A file of torch is damaged or contains other objects than tensors and plain data; the message follows "it"."""


def read_torch(path: str | Path, error: type[ValueError] = UnreadableError) -> Any:
    """Returns the checked content of a file of `torch.save` on the CPU; raises `error` if it is refused."""
    try:
        with open_regular(path) as file:
            return load_torch(file)
    except OSError as reason:
        raise error(f"{harmless(path)} cannot be read: {reason.strerror or reason}") from None
    except ForeignError as reason:
        raise error(f"{harmless(path)} cannot be read: it {reason}") from None


def load_torch(file: BinaryIO) -> Any:
    """Returns the checked content of an open file of `torch.save`; raises `ForeignError` if it is refused."""
    size = check_archive(file)
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:  # the unpickler runs into anything on a foreign file
        # torch's own message advises to turn the protection off.
        raise ForeignError(f"has damaged or forbidden content: {type(reason).__name__}") from None
    if (wrong := misfit(content, size)) is not None:  # a list can repeat another one endlessly
        raise ForeignError(f"has damaged or forbidden content: {wrong}")
    held = 0
    for name, tensor in tensors(content):
        require_numbers(tensor, name)
        held += tensor.numel() * tensor.element_size()
    if held > size:  # a view can repeat one number endlessly
        raise ForeignError("has tensors that are larger than the file")
    return content


def check_archive(file: BinaryIO, whole: bool = False) -> int:
    """Returns the size of an archive of torch that unpacks to no more and names only tensors.

    `whole` also compares every byte with its checksum. Raises `ForeignError` for any other file.
    """
    try:
        size = file.seek(0, 2)
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > size:
                raise ForeignError("unpacks to more than its size")
            if whole and (damaged := archive.testzip()) is not None:
                raise ForeignError(f"is damaged in {harmless(damaged)}")
            pickles = [each for each in members if each.filename.endswith("/data.pkl")]
            for each in pickles:
                _check_names(archive.read(each))
    except ForeignError:
        raise
    except Exception as reason:  # zipfile raises any type on a foreign file
        if isinstance(reason, OSError) and reason.errno != errno.EINVAL:  # a position before the file's start
            raise
        raise ForeignError("is incomplete, damaged or not a file of torch.save") from None
    if not pickles:
        raise ForeignError("is not a file of torch.save")
    return size


@functools.lru_cache(maxsize=2)  # a checkpoint is checked as it is found and again as it is read
def _check_names(pickled: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in _NAMES:
            raise ForeignError(
                f"contains {harmless(argument).replace(' ', '.')}, where only tensors and plain data are allowed"
            )


_PLAIN_KEYS = (bool, int, float, str)
_PLAIN = (*_PLAIN_KEYS, type(None))


def tensors(node: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields all tensors in plain data, with their paths; raises `ForeignError` for other objects."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            if type(value) not in _PLAIN:
                yield from tensors(value, f"{path}[{number}]")
    elif isinstance(node, dict | Mapping):  # it takes longer to know that something is a Mapping
        for key, value in node.items():
            plain = type(key) in _PLAIN_KEYS
            if plain and type(value) in _PLAIN:
                continue
            name = f"{path}.{key}" if path else str(key)
            if not plain:
                _require_plain(key, name)
            yield from tensors(value, name)
    elif node is not None:
        _require_plain(node, path)


def _require_plain(node: Any, path: str) -> None:
    if type(node) not in _PLAIN_KEYS:
        raise ForeignError(
            f"contains a {type(node).__name__} in {harmless(path)}, where only tensors and plain data are allowed"
        )


def require_numbers(tensor: Tensor, path: str) -> None:
    """Raises `ForeignError` unless a tensor has plain numbers: not sparse, quantized, complex or on the meta device."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in TYPES:
        kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
        raise ForeignError(f"contains a tensor of {kind} in {harmless(path)}, where only plain numbers are allowed")


def safetensors_metadata(path: str | Path, error: type[ValueError] = UnreadableError) -> dict[str, str]:
    """Returns the texts by name in the header of a safetensors file; raises `error` for any other file."""
    content = read_bytes(path, MAX_TENSORS_BYTES, error)
    length = int.from_bytes(content[:8], "little")
    header = json_of(content[8 : 8 + length], path, error=error)
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(name): str(text) for name, text in found.items()} if isinstance(found, dict) else {}


def read_safetensors(path: str | Path, error: type[ValueError] = UnreadableError) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file by name; raises `error` for any other file."""
    from safetensors.torch import load

    content = read_bytes(path, MAX_TENSORS_BYTES, error)
    try:
        state = load(content)
        for name, tensor in state.items():
            require_numbers(tensor, name)
    except Exception as reason:  # also for types that torch does not have
        fault = harmless(" ".join(str(reason).split()))
        raise error(f"{harmless(path)} is not a safetensors file of plain numbers: {fault}") from None
    return state


def read_published(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file, or of the files into which a large one was split.

    The names of those are in `path` with `.index.json`. Raises `UnreadableError` for any other file, and for names of
    files elsewhere.
    """
    index = path.with_name(f"{path.name}.index.json")
    if path.is_file() or not index.is_file():
        return read_safetensors(path)
    places = json_of(read_bytes(index, MAX_INDEX_BYTES, UnreadableError), index, error=UnreadableError)
    places = places.get("weight_map") if isinstance(places, dict) else None
    if not isinstance(places, dict) or not all(
        isinstance(each, str) and _PART.fullmatch(each) for each in places.values()
    ):
        raise UnreadableError(f"{harmless(index)} has no weight_map to files next to it: use the original folder")
    parts = {name: read_safetensors(path.with_name(name)) for name in sorted(set(places.values()))}
    if missing := [name for name, part in places.items() if name not in parts[part]]:
        raise UnreadableError(f"{harmless(places[missing[0]])} has no {harmless(missing[0])}: use the original folder")
    return {name: parts[part][name] for name, part in places.items()}
