"""Tensors of torch and safetensors: files that hold tensors and plain data only, of no more bytes than they have."""

from __future__ import annotations

import errno
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from inkdrop.errors import UnreadableError
from inkdrop.files.plain import misfit, open_regular, read_bytes
from inkdrop.files.showing import harmless

MAX_TENSORS_BYTES = 2**40
TYPES = (  # of tensors that can be read and computed with
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.uint8),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
)
# All that the pickle of tensors and plain data names; torch's own list also has what allocates at will.
_STORAGES = "Float Double Half BFloat16 Long Int Short Char Byte Bool"
_NAMES = {
    *(f"torch._utils {name}" for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")),
    *(f"torch {name}Storage" for name in _STORAGES.split()),
    *(f"torch uint{bits}" for bits in (16, 32, 64)),
    *("torch.storage UntypedStorage", "collections OrderedDict", "torch Size"),
}


class ForeignError(ValueError):
    """A file of torch holds something else than tensors and plain data, or is damaged; the message completes "It"."""


def read_torch(path: str | Path, error: type[ValueError] = UnreadableError) -> Any:
    """What `torch.save` wrote, on the CPU, once all is checked; else `error`."""
    try:
        with open_regular(path) as file:
            return load_torch(file)
    except OSError as reason:
        raise error(f"{harmless(path)} cannot be read: {reason.strerror or reason}") from None
    except ForeignError as reason:
        raise error(f"{harmless(path)} cannot be read: it {reason}") from None


def load_torch(file: BinaryIO) -> Any:
    """The same of a file that is open; `ForeignError` for what is not to be had."""
    size = check_archive(file)
    file.seek(0)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:  # the unpickler runs into anything on a foreign file
        # torch's own words advise to switch the protection off.
        raise ForeignError(f"holds what is damaged or not to be read: {type(reason).__name__}") from None
    if (wrong := misfit(content, size)) is not None:  # a list can repeat another one without end
        raise ForeignError(f"is damaged or not to be read: {wrong}")
    held = 0
    for name, tensor in tensors(content):
        require_numbers(tensor, name)
        held += tensor.numel() * tensor.element_size()
    if held > size:  # a view can repeat one number without end
        raise ForeignError("has tensors that are larger than the file")
    return content


def check_archive(file: BinaryIO, whole: bool = False) -> int:
    """The size of an archive of torch that unpacks to no more, and names tensors only; else `ForeignError`.

    `whole` also compares every byte with its checksum.
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
    except Exception as reason:  # zipfile is not ready for everything
        if isinstance(reason, OSError) and reason.errno != errno.EINVAL:  # a place before the file's beginning
            raise
        raise ForeignError("is incomplete, damaged or no file of torch.save") from None
    if not pickles:
        raise ForeignError("is no file of torch.save")
    return size


def _check_names(pickled: bytes) -> None:
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in _NAMES:
            raise ForeignError(
                f"holds {harmless(argument).replace(' ', '.')}, where only tensors and plain data may be"
            )


def tensors(node: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in plain data, with their paths; `ForeignError` for what is neither."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            name = f"{path}.{key}" if path else str(key)
            _require_plain(key, name)
            yield from tensors(value, name)
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from tensors(value, f"{path}[{number}]")
    elif node is not None:
        _require_plain(node, path)


def _require_plain(node: Any, path: str) -> None:
    if type(node) not in (bool, int, float, str):
        raise ForeignError(
            f"holds a {type(node).__name__} in {harmless(path)}, where only tensors and plain data may be"
        )


def require_numbers(tensor: Tensor, path: str) -> None:
    """`ForeignError` unless a tensor is a plain one of numbers: not sparse, quantised, complex or without content."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in TYPES:
        kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
        raise ForeignError(f"holds a tensor of {kind} in {harmless(path)}, where plain numbers must be")


def read_safetensors(path: str | Path, error: type[ValueError] = UnreadableError) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; else `error`."""
    from safetensors.torch import load

    content = read_bytes(path, MAX_TENSORS_BYTES, error)
    try:
        found = load(content)
        for name, tensor in found.items():
            require_numbers(tensor, name)
    except Exception as reason:  # of types that torch does not know, too
        told = harmless(" ".join(str(reason).split()))
        raise error(f"{harmless(path)} is no safetensors file of plain numbers: {told}") from None
    return found
