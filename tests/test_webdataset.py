"""Tar shards of WebDataset: order, decoding, fetching, and what is refused."""

from __future__ import annotations

import gc
import http.server
import io
import itertools
import shutil
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from inkdrop.data import Mixture, WebDataset
from inkdrop.data.augmentations import flip
from inkdrop.data.decoding import Decoder
from inkdrop.data.loaders import ShuffledLoader, collect
from inkdrop.data.shards import ShardColumn
from inkdrop.data.webdataset import ShardPasses
from inkdrop.errors import DataError

# Held-out samples have classes of their own here, as each sample has.
pytestmark = pytest.mark.filterwarnings("ignore:no training item has the class")

SIZES = [5, 9, 7, 11, 8]  # samples of the training shards, 40 in all
N = sum(SIZES)
IMAGES = np.random.default_rng(0).integers(0, 256, (N + 6, 4, 6, 3), np.uint8)  # the last 6 are held out


def encoded(array: np.ndarray, extension: str = "png") -> bytes:
    buffer = io.BytesIO()
    if extension == "npy":
        np.save(buffer, array)
    else:
        Image.fromarray(array).save(buffer, extension)
    return buffer.getvalue()


def write(path: Path, members: list[tuple[str, bytes]], mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(number: int) -> list[tuple[str, bytes]]:
    """Sample `number` has class `number`."""
    return [(f"./{number:04}.cls", f"{number}\n".encode()), (f"./{number:04}.PNG", encoded(IMAGES[number]))]


def samples(first: int, end: int) -> list[tuple[str, bytes]]:
    return [member for number in range(first, end) for member in sample(number)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ends = list(itertools.accumulate(SIZES))
    for shard, (end, size) in enumerate(zip(ends, SIZES, strict=True)):
        write(tmp_path / f"train-{shard}.tar", samples(end - size, end))
    write(tmp_path / "held.tar", samples(N, N + 6))
    return tmp_path


def dataset(folder: Path | str, train: str = "train-{0..4}.tar", validation: str = "held.tar", **options: Any) -> Any:
    defaults: dict[str, Any] = {"x": ["png", "npy"], "label": "cls", "shape": [3, 4, 6], "num_classes": 46}
    arguments = {**defaults, "batch_size": 8, **options}
    arguments.setdefault("decoder", Decoder(arguments["shape"], min_side=4))
    return WebDataset(f"{folder}/{train}", f"{folder}/{validation}", **arguments)


def shard_of(items: torch.Tensor) -> list[int]:
    return torch.bucketize(items, torch.tensor(SIZES).cumsum(0), right=True).tolist()


def test_samples_are_what_was_written(folder: Path) -> None:
    splits = {name: collect(split) for name, split in dataset(folder).splits.items()}
    images = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)
    assert torch.equal(splits["train"]["x"], images[:N])
    assert torch.equal(splits["validation"]["x"], images[N:])
    assert splits["train"]["label"].tolist() == list(range(N))
    assert dataset(folder).splits["train"]["x"][torch.tensor([7, 39, 7])].eq(images[[7, 39, 7]]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_library_reads_the_same_from_shards_that_it_wrote(tmp_path: Path) -> None:
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(f"{tmp_path}/train-%06d.tar", maxcount=7, verbose=0) as writer:
        for number in range(20):
            writer.write({"__key__": f"{number:03}", "png": IMAGES[number], "cls": number % 3})
    theirs = list(wds.WebDataset(f"{tmp_path}/train-{{000000..000002}}.tar", shardshuffle=False).decode("torchrgb8"))
    gc.collect()  # the library leaves files open
    data = dataset(tmp_path, "train-{000000..000002}.tar", "train-000000.tar", num_classes=None)
    ours = collect(data.splits["train"])
    assert data.num_classes == 3
    assert ours["label"].tolist() == [each["cls"] for each in theirs]
    assert torch.equal(ours["x"], torch.stack([each["png"] for each in theirs]))


@pytest.mark.parametrize("shards_at_once", [1, 2, 4, 9])
def test_a_pass_visits_each_sample_once_and_few_shards_at_a_time(folder: Path, shards_at_once: int) -> None:
    order = dataset(folder, shards_at_once=shards_at_once).order()
    passes = [order(range(k * N, (k + 1) * N)) for k in range(4)]
    assert all(items.sort().values.tolist() == list(range(N)) for items in passes)
    assert len({tuple(items.tolist()) for items in passes}) == 4
    for items in passes:
        shards = shard_of(items)
        spans = [(shards.index(s), N - 1 - shards[::-1].index(s)) for s in range(len(SIZES))]
        open_at = [sum(first <= p <= last for first, last in spans) for p in range(N)]
        assert max(open_at) <= shards_at_once
    if shards_at_once == 2:  # and those two are mixed
        assert sum(len(list(itertools.groupby(shard_of(items)))) for items in passes) > 40  # unmixed: 20
    if shards_at_once < 5:
        assert len({shard_of(items)[0] for items in passes}) > 1


def test_the_order_is_a_function_of_seed_and_position() -> None:
    whole = ShardPasses(SIZES, 2, seed=0)(range(3 * N)).tolist()
    order = ShardPasses(SIZES, 2, seed=0)
    assert [int(order([p])) for p in reversed(range(3 * N))][::-1] == whole
    assert ShardPasses(SIZES, 2, seed=1)(range(3 * N)).tolist() != whole


def test_shards_of_equal_length_do_not_go_in_step() -> None:
    items = ShardPasses([20, 20], 1, seed=0)(range(40)).reshape(2, 20) % 20
    assert not torch.equal(items[0], items[1])


def stream(data: Any, workers: int, rank: int = 0, world_size: int = 1) -> list[dict[str, Any]]:
    split = data.splits["train"]
    loader = ShuffledLoader(split, 8, 0, rank, world_size, data.order(), flip, num_workers=workers)
    return list(itertools.islice(loader, 10))


def test_workers_and_ranks_see_the_same_samples(folder: Path) -> None:
    data = dataset(folder, shards_at_once=2)
    alone, helped = stream(data, 0), stream(data, 2)
    ranks = [stream(data, 0, rank, 2) for rank in (0, 1)]
    for one, two, first, second in zip(alone, helped, *ranks, strict=True):
        for field in ("x", "label", "position"):
            assert torch.equal(one[field], two[field])
            assert torch.equal(one[field], torch.cat([first[field], second[field]]))
    mirrored = [not torch.equal(b["x"], torch.from_numpy(IMAGES[b["label"]]).permute(0, 3, 1, 2)) for b in alone]
    assert any(mirrored)  # the augmentation took part


def test_reading_a_pass_opens_shards_in_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(folder, shards_at_once=1, num_workers=0)
    loader = data.train_dataloader()
    opened: list[str] = []
    original = data.store.open
    monkeypatch.setattr(data.store, "open", lambda url: opened.append(url) or original(url))
    num_batches = sum(SIZES) // data.batch_size
    _ = list(itertools.islice(loader, num_batches))
    assert len(list(itertools.groupby(opened))) == len(SIZES)
    assert len(opened) <= num_batches + len(SIZES)


def test_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    series = np.random.default_rng(0).normal(size=(4, 7, 2))
    write(tmp_path / "a.tar", [(f"{i}.npy", encoded(each, "npy")) for i, each in enumerate(series)])
    data = dataset(tmp_path, "a.tar", "a.tar", label=None, shape=[7, 2], num_classes=None)
    assert data.num_classes == 0
    assert set(data.splits["train"]) == {"x"}
    torch.testing.assert_close(collect(data.splits["train"])["x"], torch.from_numpy(series).float())


def test_the_first_extension_that_is_there_is_taken_and_images_become_the_stated_channels(tmp_path: Path) -> None:
    grey = IMAGES[0, :, :, 0]
    write(
        tmp_path / "a.tar",
        [("0.jpg", b"no image"), ("0.png", encoded(grey)), ("1.png", encoded(np.stack([grey] * 3, 2)))],
    )
    for shape in ([1, 4, 6], [3, 4, 6]):
        data = dataset(tmp_path, "a.tar", "a.tar", x=["png", "jpg"], label=None, shape=shape)
        assert collect(data.splits["train"])["x"].eq(torch.from_numpy(grey)).all()
    write(tmp_path / "b.tar", [("0.npy", encoded(np.zeros((7, 2), np.uint8), "npy")), ("1.png", encoded(grey))])
    data = dataset(tmp_path, "b.tar", "b.tar", label=None, shape=[7, 2])
    assert collect(data.splits["train"], torch.tensor([0]))["x"].shape == (1, 7, 2)
    with pytest.raises(DataError, match=r"1.png cannot be decoded: data.shape=\[7, 2\] must be"):
        collect(data.splits["train"])


def test_the_digest_follows_the_decoder(folder: Path) -> None:
    usual = dataset(folder)
    assert dataset(folder).fingerprint == usual.fingerprint
    assert dataset(folder, decoder=Decoder([3, 4, 6], (0, 0, 0), min_side=4)).fingerprint != usual.fingerprint


def test_classes_are_found_in_the_labels(folder: Path) -> None:
    assert dataset(folder, num_classes=None).num_classes == N + 6
    with pytest.raises(DataError, match="num_classes=40, but validation has the label 45"):
        _ = dataset(folder, num_classes=N).splits


def test_the_index_is_read_once_and_again_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset(folder).fingerprint
    scanned: list[str] = []
    original = type(dataset(folder).store)._scan
    monkeypatch.setattr(
        "inkdrop.data.shards.ShardStore._scan", lambda self, url: scanned.append(url) or original(self, url)
    )
    assert dataset(folder).fingerprint == first
    assert not scanned
    write(folder / "train-1.tar", sample(3))
    data = dataset(folder)
    assert data.fingerprint != first
    assert scanned == [f"{folder}/train-1.tar"]
    assert len(data.splits["train"]["x"]) == N - SIZES[1] + 1
    size = (folder / "train-1.tar").stat().st_size
    write(folder / "train-1.tar", sample(4))
    assert (folder / "train-1.tar").stat().st_size == size
    assert dataset(folder).splits["train"]["label"][SIZES[0]] == 4


def test_shards_keep_their_runs_in_a_mixture(folder: Path) -> None:
    data = Mixture({"a": dataset(folder, shards_at_once=1), "b": dataset(folder)}, [3, 4, 6], 46, 8, False)
    drawn = collect(data.splits["train"], data.order()(range(100)))
    labels = drawn["label"][drawn["source"] == 0][:N]
    assert len(list(itertools.groupby(shard_of(labels)))) == len(SIZES)


@pytest.fixture
def address(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The folder served on this machine, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="webdataset fetches with curl")
def test_shards_from_elsewhere_are_fetched_once(folder: Path, address: tuple[str, list[str]]) -> None:
    url, asked = address
    remote, local = dataset(url), dataset(folder)
    assert torch.equal(collect(remote.splits["train"])["x"], collect(local.splits["train"])["x"])
    assert torch.cat([b["x"] for b in stream(remote, 2)]).equal(torch.cat([b["x"] for b in stream(local, 0)]))
    assert sorted(asked) == sorted([*(f"/train-{i}.tar" for i in range(5)), "/held.tar"])
    with pytest.raises(DataError, match=r"nothing.tar cannot be opened or downloaded"):
        _ = dataset(url, "nothing.tar").splits


BAD = "train-1.tar: "
PNG = encoded(IMAGES[0])
WRONG: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "other size": (
        [("7.npy", encoded(IMAGES[0], "npy"))],
        r"7.npy has the shape \[4, 6, 3\], but data.shape=\[3, 4, 6\]",
    ),
    "too small": ([("7.png", encoded(IMAGES[0][:3]))], "7.png cannot be decoded: 6 x 3: a side is shorter than"),
    "damaged image": ([("dir/7.png", PNG[:60])], "dir/7.png cannot be decoded"),
    "no image": ([("7.png", b"text")], "7.png cannot be decoded: not an image of the formats"),
    "pickle": ([("7.npy", encoded(np.array([{}]), "npy"))], "7.npy cannot be decoded: it contains Python objects"),
    "not finite": ([("7.npy", encoded(np.full((3, 4, 6), np.nan), "npy"))], "7.npy holds numbers that are not finite"),
    "other type": ([("7.npy", encoded(np.ones((3, 4, 6)), "npy"))], "7.npy has the type torch.float32, but the first"),
    "no data": ([("7.txt", b"text")], "the sample 7 has none of png, npy, but txt, cls: set data.x"),
    "nothing": ([], "train-1.tar holds no samples"),
}


@pytest.mark.parametrize(("members", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_members_are_named(folder: Path, members: list[tuple[str, bytes]], message: str) -> None:
    labels = [(name.rpartition(".")[0] + ".cls", b"1") for name, _ in members]
    write(folder / "train-1.tar", members + labels)
    with pytest.raises(DataError, match=rf"train-1.tar.*{message}" if members else message):
        _ = collect(dataset(folder).splits["train"])


@pytest.mark.parametrize("content", [b"cat", b"-1", b"1.5", b""])
def test_labels_are_whole_numbers(folder: Path, content: bytes) -> None:
    write(folder / "train-1.tar", [("7.png", PNG), ("7.cls", content)])
    with pytest.raises(DataError, match=r"train-1.tar: 7.cls holds .*, but a class must be"):
        _ = dataset(folder).splits
    write(folder / "train-1.tar", [("7.png", PNG)])
    with pytest.raises(DataError, match=r"train-1.tar: the sample 7 has no .cls"):
        _ = dataset(folder).splits


def test_shards_that_cannot_be_read_are_named(folder: Path) -> None:
    write(folder / "train-1.tar", sample(7), "w:gz")
    with pytest.raises(DataError, match=r"train-1.tar is not an intact, uncompressed tar"):
        _ = dataset(folder).splits
    whole = (folder / "train-2.tar").read_bytes()
    (folder / "train-2.tar").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=r"train-2.tar is not an intact, uncompressed tar"):
        _ = dataset(folder, "train-2.tar").splits
    (folder / "train-2.tar").unlink()
    with pytest.raises(DataError, match=r"train-2.tar is missing"):
        dataset(folder).verify()


@pytest.mark.parametrize("start", ["pipe:", "PIPE:", "Pipe:", " pipe:;", "pi\npe:;"])
def test_commands_are_refused(start: str, folder: Path) -> None:
    with pytest.raises(ValueError, match="would run a command"):
        _ = WebDataset(f"{start}touch {folder}/ran", "b.tar", ["png"], None, [3, 4, 6], 0, 8).splits
    assert not (folder / "ran").exists()


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.cache", None)
    with pytest.raises(ValueError, match=r"pip install inkdrop\[streaming\]"):
        dataset(folder)


def test_members_are_looked_up_by_name_without_decoding_the_others(folder: Path) -> None:
    column = dataset(folder).splits["train"]["x"]
    assert isinstance(column, ShardColumn)
    assert column._members.name(6) == f"{folder}/train-1.tar: ./0006.PNG"
