"""Files of torch, safetensors and numpy that are damaged, foreign, or more than they seem."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import resource
import struct
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from inkdrop.checkpoints import read_checkpoint
from inkdrop.errors import CheckpointError, UnreadableError
from inkdrop.files.arrays import Npz, decode_npy, map_npy
from inkdrop.files.tensors import read_safetensors, read_torch


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """What would take 8 more gigabytes fails, as it does for whoever has no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**33, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def with_state(**fields: Any) -> dict[str, Any]:
    return {"state_dict": {"pipeline.w": torch.ones(3)}, "config": {"seed": 0}, **fields}


def weight(value: Any) -> dict[str, Any]:
    return with_state(state_dict={"pipeline.w": value})


def held(value: list[Any]) -> list[Any]:
    value.append(value)
    return value


def laughs(levels: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(levels):
        value = [value] * 10
    return value


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def cyclic_config() -> dict[str, Any]:
    config: dict[str, Any] = {"seed": 0}
    config["pipeline"] = config
    return config


with warnings.catch_warnings(action="ignore"):
    COMPRESSED = torch.eye(3).to_sparse_csr()
    QUANTISED = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
CONTENT: dict[str, tuple[Any, str]] = {
    "list in itself": (with_state(more=held([1])), "more than 64 levels deep"),
    "configuration in itself": (with_state(config=cyclic_config()), "more than 64 levels deep"),
    "laughs": (with_state(config={"a": laughs(30)}), "it contains more than"),
    "deep": (with_state(config={"a": nested(100)}), "more than 64 levels deep"),
    "ema list": (with_state(ema=[1]), "ema: input should be a valid dictionary"),
    "ema number": (with_state(ema=1), "ema: input should be a valid dictionary"),
    "ema of numbers": (with_state(ema={"0.9": {"pipeline.w": 1}}), "ema.0.9.pipeline.w: input should be an instance"),
    "ema of text": (with_state(ema={"0.9": "x"}), "ema.0.9: input should be a valid dictionary"),
    "ema by number": (with_state(ema={0.9: {}}), "ema.0.9"),
    "trainable text": (with_state(trainable="pipeline.w"), "trainable: input should be a valid list"),
    "trainable number": (with_state(trainable=3), "trainable: input should be a valid list"),
    "trainable numbers": (with_state(trainable=[1]), "trainable.0: input should be a valid string"),
    "trainable lists": (with_state(trainable=[["pipeline.w"]]), "trainable.0: input should be a valid string"),
    "weight number": (weight(1.0), "state_dict.pipeline.w: input should be an instance of Tensor"),
    "weight list": (weight([1.0]), "state_dict.pipeline.w: input should be an instance of Tensor"),
    "weight null": (weight(None), "state_dict.pipeline.w: input should be an instance of Tensor"),
    "weight by number": (with_state(state_dict={1: torch.ones(1)}), "state_dict.1"),
    "sparse weight": (weight(torch.eye(3).to_sparse()), "contains torch"),
    "compressed weight": (weight(COMPRESSED), "contains torch"),
    "quantised weight": (weight(QUANTISED), "contains torch"),
    "weight without content": (weight(torch.ones(3, device="meta")), "contains torch"),
    "complex weight": (weight(torch.ones(3, dtype=torch.complex64)), "contains torch.ComplexFloatStorage"),
    "weight of 8 bits": (weight(torch.ones(3).to(torch.float8_e4m3fn)), "contains torch.float8_e4m3fn"),
    "bytes": (with_state(more=bytearray(b"abc")), "contains __builtin__.bytearray"),
    "set": (with_state(more={1}), r"contains (builtins|__builtin__).set"),
    "counter": (with_state(more=Counter("a")), "contains collections.Counter"),
    "type": (with_state(more=torch.float32), "contains torch.float32"),
    "metrics": (with_state(metrics={"fd": "low"}), "metrics.fd: input should be a valid number"),
    "step": (with_state(global_step=-1), "global_step: input should be greater than or equal to 0"),
    "facts": (with_state(facts=3), "facts: input should be a valid dictionary"),
    "evaluation of version 1": (with_state(format=1, config={"evaluation": 3}), "is not of version 1"),
    "extractor of version 1": (with_state(format=1, config={"evaluation": {"extractor": 3}}), "is not of version 1"),
}


@pytest.mark.filterwarnings("ignore:.*")  # of torch, when such a file is written
@pytest.mark.parametrize(("content", "told"), CONTENT.values(), ids=CONTENT)
def test_a_checkpoint_of_odd_content_is_refused(content: Any, told: str, tmp_path: Path) -> None:
    torch.save(content, file := tmp_path / "file.ckpt")
    with pytest.raises(CheckpointError, match=told) as refused:
        read_checkpoint(file)
    assert str(file) in str(refused.value)
    assert len(str(refused.value)) < 500


def allocating(file: Path) -> None:
    """A pickle whose bytearray takes all memory there is."""
    torch.save(with_state(), file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickled = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x20\x85R."
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else data)


def packed(file: Path) -> None:
    torch.save(with_state(more="x" * 10**6), file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


HUNGRY = [(allocating, "contains __builtin__.bytearray"), (packed, "unpacks to more than its size")]


@pytest.mark.parametrize(("make", "told"), HUNGRY)
def test_what_would_take_memory_is_refused_before(make: Callable[[Path], None], told: str, tmp_path: Path) -> None:
    make(file := tmp_path / "file.ckpt")
    with pytest.raises(CheckpointError, match=told):
        read_checkpoint(file)


@pytest.mark.slow
def test_damage_anywhere_at_the_end_is_told(tmp_path: Path) -> None:
    torch.save(with_state(), file := tmp_path / "file.ckpt")
    sound = file.read_bytes()
    chance, refused = random.Random(0), 0
    beginning = sound.index(b"PK\x01\x02")  # of the directory
    for place in [*range(beginning, len(sound)), *(chance.randrange(beginning) for _ in range(100))]:
        damaged = bytearray(sound)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            read_checkpoint(file)
        except CheckpointError:
            refused += 1
    assert refused > 100


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda file: None, "No such file"),
    "pipe": (os.mkfifo, "not a regular file"),
    "folder": (Path.mkdir, "not a regular file"),
    "empty": (Path.touch, "is incomplete, damaged or not a file of torch.save"),
    "old": (
        lambda file: torch.save(torch.ones(3), file, _use_new_zipfile_serialization=False),
        "is incomplete, damaged or not a file of torch.save",
    ),
    "module": (lambda file: torch.save(torch.nn.Linear(1, 1), file), "contains torch.nn.modules.linear.Linear"),
    "pickle": (
        lambda file: file.write_bytes(pickle.dumps({"x": 1})),
        "is incomplete, damaged or not a file of torch.save",
    ),
    "view": (lambda file: torch.save(torch.ones(1).expand(10**13), file), "tensors that are larger than the file"),
}


@pytest.mark.parametrize(("make", "told"), FILES.values(), ids=FILES)
def test_a_file_of_torch_is_refused(make: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    make(file := tmp_path / "file.pt")
    with pytest.raises(UnreadableError, match=told):
        read_torch(file)


def test_tensors_of_all_kinds_come_back(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.bfloat16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.int64)
    content = {str(kind): torch.ones(2, 3).to(kind) for kind in kinds}
    content["parameter"] = torch.nn.Parameter(torch.ones(2))
    content["strided"] = torch.arange(12.0).view(3, 4).T
    torch.save(content, tmp_path / "a.pt")
    found = read_torch(tmp_path / "a.pt")
    assert all(torch.equal(found[name], content[name]) for name in content)
    del content["parameter"]
    save_file({name: value.contiguous() for name, value in content.items()}, tmp_path / "a.safetensors")
    found = read_safetensors(tmp_path / "a.safetensors")
    assert all(torch.equal(found[name], content[name]) for name in content)


def header(told: Any, length: int | None = None) -> Callable[[Path], Any]:
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    return lambda file: file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(8))


def entry(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


SAFETENSORS: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "empty": Path.touch,
    "long header": header({}, 2**62),
    "no JSON": header(b"{"),
    "deep": header(b"[" * 10**5),
    "beyond": header(entry(data_offsets=[0, 2**40], shape=[2**38])),
    "overflow": header(entry(shape=[2**62, 2**62])),
    "negative": header(entry(shape=[-1])),
    "kind": header(entry(dtype="F3")),
    "complex": header(entry(dtype="C64", shape=[1])),
    "bits": header(entry(dtype="F8_E4M3", shape=[8])),
}


@pytest.mark.parametrize("make", SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_file_is_refused(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(file := tmp_path / "file.safetensors")
    with pytest.raises(UnreadableError, match=r"file\.safetensors"):
        read_safetensors(file)


def npy(told: Any, length: int = 16, version: bytes = b"\x01\x00") -> bytes:
    text = told if isinstance(told, bytes) else repr(told).encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + bytes(length)


def described(**changes: Any) -> dict[str, Any]:
    return {"descr": "<f8", "fortran_order": False, "shape": (2,), **changes}


NPY: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "cut": npy(described(), length=15),
    "header": npy(b"{"),
    "header of a call": npy(b"{'descr': open('marker', 'w'), 'fortran_order': False, 'shape': (2,)}"),
    "deep header": npy(b"(" * 9000),
    "wide": npy(described(shape=(10**12,))),
    "overflow": npy(described(shape=(2**62, 2**62, 2**62))),
    "negative": npy(described(shape=(-1,))),
    "negative twice": npy(described(shape=(-1, -2))),
    "no shape": npy(described(shape=3)),
    "fractions": npy(described(shape=(1.5,))),
    "objects": npy(described(descr="|O")),
    "kind": npy(described(descr="<x9")),
    "kind of none": npy(described(descr=None, shape=())),
    "nothing each": npy(described(descr="|V0", shape=(2**60,))),
    "version": npy(described(), version=b"\x09\x00"),
}


@pytest.mark.parametrize("content", NPY.values(), ids=NPY)
def test_an_array_is_refused(content: bytes, tmp_path: Path) -> None:
    (file := tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UnreadableError, match=r"x\.npy cannot be read"):
        map_npy(file)
    with pytest.raises(ValueError, match=r"."):
        decode_npy(content)
    with zipfile.ZipFile(archive := tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("x.npy", content)
    with pytest.raises(UnreadableError, match=r"x\.npz cannot be read"):
        Npz(archive)["x"]
    assert not Path("marker").exists()


def bomb(file: Path) -> None:
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy(described(descr="|u1", shape=(2**29,)), 0))
        for _ in range(2**9):
            member.write(bytes(2**20))


def encrypted(file: Path) -> None:
    np.savez(file, x=np.ones(3))
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)


NPZ: dict[str, Callable[[Path], Any]] = {
    "pipe": os.mkfifo,
    "empty": Path.touch,
    "bomb": bomb,
    "encrypted": encrypted,
    "objects": lambda file: np.savez(file, x=np.array([{}], dtype=object)),
}


@pytest.mark.parametrize("make", NPZ.values(), ids=NPZ)
def test_an_archive_of_arrays_is_refused(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(file := tmp_path / "x.npz")
    with pytest.raises(UnreadableError, match=r"x\.npz cannot be read"):
        Npz(file)["x"]


def test_arrays_of_all_kinds_come_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big": np.arange(3, dtype=">u2"),
        "none": np.empty((0, 3)),
        "one": np.array(5),
        "text": np.array(["a", "bc"]),
        "zeros": np.zeros(10**6),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = Npz(tmp_path / "x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        stream = io.BytesIO()
        np.save(stream, array)
        for each in (found[name], map_npy(tmp_path / f"{name}.npy"), decode_npy(stream.getvalue())):
            assert each.dtype == array.dtype
            np.testing.assert_array_equal(each, array)
