"""Codes in a file: nothing is encoded twice, what is damaged is made again, and processes do not disturb each other."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inkdrop.codecs import Pixels
from inkdrop.models import Autoencoder, Latent
from inkdrop.models.code_cache import CodeCache
from inkdrop.models.observations import Gaussian
from inkdrop.networks.autoencoders import ConvolutionalAutoencoder
from inkdrop.networks.bottlenecks import KL

IMAGES = torch.arange(40)[:, None, None, None].expand(40, 1, 8, 8).to(torch.uint8) * 3


def codec(seed: int = 0, **options: int) -> Latent:
    torch.manual_seed(seed)
    network = ConvolutionalAutoencoder([1, 8, 8], KL(2), 8, [1, 2])
    return Latent(Autoencoder(network, Gaussian(), Pixels(), [1, 8, 8]), **options)


def fitted(made: Latent) -> int:
    """Fits a codec to the images, and returns how many batches were encoded."""
    calls: list[int] = []
    handle = made.model.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    made.fit(lambda size, names=None: ({"x": part} for part in IMAGES.split(size)), torch.device("cpu"))
    handle.remove()
    return len(calls)


def files() -> list[Path]:
    from inkdrop.files.locations import cache_dir

    return sorted((cache_dir() / "codes").glob("*"))


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(tmp_path))


def test_a_later_run_reads_the_same_codes_and_another_model_has_a_file_of_its_own() -> None:
    first, second, other, none = codec(), codec(), codec(seed=1), codec(cache_mib=0)
    assert [fitted(each) for each in (first, second, other)] == [3, 0, 3]
    assert len(files()) == 2
    assert fitted(none) == 3
    assert len(files()) == 2
    x = first.encode({"x": IMAGES})
    assert torch.equal(second.encode({"x": IMAGES}), x)
    assert torch.equal(none.encode({"x": IMAGES}), x)
    assert not torch.equal(other.encode({"x": IMAGES}), x)


def test_new_weights_have_other_codes() -> None:
    first, other = codec(), codec(seed=1)
    fitted(first)
    fitted(other)
    expected = other.encode({"x": IMAGES})
    first.load_state_dict(other.state_dict())
    assert torch.equal(first.encode({"x": IMAGES}), expected)


@pytest.mark.parametrize("damage", ["byte", "half", "text", "nothing", "columns"])
def test_what_is_damaged_is_encoded_again_and_replaced(damage: str) -> None:
    first = codec()
    fitted(first)
    expected, (file,) = first.encode({"x": IMAGES}), files()
    content = bytearray(file.read_bytes())
    whole = bytes(content)
    content[-5] ^= 1
    damaged = {"byte": bytes(content), "half": whole[: len(whole) // 2], "text": b"no array", "nothing": b""}
    file.write_bytes(damaged.get(damage, whole))
    if damage == "columns":
        np.save(file, np.zeros((40, 30), np.uint8))
    second = codec()
    assert fitted(second) == (1 if damage == "byte" else 3)
    assert torch.equal(second.encode({"x": IMAGES}), expected)
    assert fitted(codec()) == 0, "the file was not made again"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    fitted(codec())
    (file,) = files()
    elsewhere = file.rename(tmp_path / "elsewhere.npy")
    before = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    assert fitted(codec()) == 3
    assert elsewhere.read_bytes() == before
    assert not file.is_symlink()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("a file in the place of the folder")
    first = codec()
    assert fitted(first) == 3
    assert fitted(first) == 0, "what could not be written was forgotten"


def numbers(name: int) -> Tensor:
    return torch.full((8,), float(name))


def key(name: int) -> bytes:
    return name.to_bytes(16, "big")


def test_a_full_file_loses_what_was_not_used(tmp_path: Path) -> None:
    model, size = nn.Linear(2, 2), 24 + 32
    for first in (0, 10):
        cache = CodeCache(10 * size)
        cache.belongs_to(model, model.weight)
        if first:
            assert cache.get(key(3)) is not None
        cache.add({key(name): numbers(name) for name in range(first, first + 10)})
        cache.write()
    cache = CodeCache(10 * size)
    cache.belongs_to(model, model.weight)
    assert [name for name in range(20) if cache.get(key(name)) is not None] == [3, *range(10, 19)]
    assert all(torch.equal(found, numbers(name)) for name in range(20) if (found := cache.get(key(name))) is not None)


def _write(first: int) -> None:
    torch.manual_seed(0)
    cache, model = CodeCache(2**20), nn.Linear(2, 2)
    cache.belongs_to(model, model.weight)
    for name in range(first, first + 30):
        cache.add({key(name): numbers(name)})
        cache.write()


def test_processes_that_write_at_once_leave_a_file_that_is_right() -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_write, args=(100 * number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    torch.manual_seed(0)
    cache, model = CodeCache(2**20), nn.Linear(2, 2)
    cache.belongs_to(model, model.weight)
    found = {name: each for name in range(300) if (each := cache.get(key(name))) is not None}
    assert len(found) >= 30
    assert all(torch.equal(each, numbers(name)) for name, each in found.items())
    assert len(files()) == 1, "an unfinished file was left"
