"""Arrays of numpy and torch as data sets."""

from __future__ import annotations

import itertools
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inkdrop.data import Arrays
from inkdrop.data.arrays import OnDisk
from inkdrop.data.loaders import collect
from inkdrop.data.numbers import read_csv
from inkdrop.errors import DataError
from inkdrop.files.texts import decoded

N = 40
X = np.random.default_rng(0).normal(size=(N, 5, 2))
LABEL = np.arange(N) % 4
PAST = np.arange(N * 3, dtype=np.int32).reshape(N, 3)
FIELDS = {"x": "series", "label": "kind", "past": "before"}


def arrays(path: Path, fields: dict[str, str] = FIELDS, **options: Any) -> Arrays:
    return Arrays(str(path), fields, **{"shape": [5, 2], "num_classes": 4, "batch_size": 8, **options})


def save(path: Path, **content: np.ndarray) -> Path:
    """The arrays in the format that the suffix says; without one, a folder of .npy files."""
    if path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".pt":
        torch.save({name: torch.from_numpy(array) for name, array in content.items()}, path)
    else:
        path.mkdir()
        for name, array in content.items():
            np.save(path / f"{name}.npy", array)
    return path


def saved(path: Path, **changes: np.ndarray) -> Path:
    return save(path, **{"series": X, "kind": LABEL, "before": PAST, **changes})


@pytest.mark.parametrize("name", ["data.npz", "data.pt", "folder"])
def test_splits_hold_each_item_once_with_its_fields(tmp_path: Path, name: str) -> None:
    splits = arrays(saved(tmp_path / name), held_out=0.25).splits
    assert {part: len(split["x"]) for part, split in splits.items()} == {"train": 30, "validation": 10}
    together = {field: torch.cat([collect(split)[field] for split in splits.values()]) for field in FIELDS}
    order = together["past"][:, 0] // 3
    assert order.sort().values.tolist() == list(range(N))
    torch.testing.assert_close(together["x"], torch.from_numpy(X).float()[order], rtol=0, atol=0)
    assert together["label"].tolist() == (order % 4).tolist()
    assert [together[field].dtype for field in FIELDS] == [torch.float32, torch.int64, torch.int32]


def test_what_is_held_out_does_not_depend_on_the_seed_of_the_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "data.npz")
    held = [arrays(path, seed=seed).splits["validation"]["past"] for seed in (0, 1)]
    assert torch.equal(collect({"x": held[0]})["x"], collect({"x": held[1]})["x"])
    assert collect({"x": held[0]})["x"][:, 0].tolist() != list(range(0, 12, 3))


def test_a_validation_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path, other = saved(tmp_path / "a.npz"), saved(tmp_path / "b.pt", series=X + 1)
    splits = arrays(path, validation=str(other)).splits
    torch.testing.assert_close(collect(splits["train"])["x"], torch.from_numpy(X).float())
    torch.testing.assert_close(collect(splits["validation"])["x"], torch.from_numpy(X + 1).float())


@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_a_single_array_is_called_x(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"points{suffix}"
    if suffix == ".npy":
        np.save(path, X)
    else:
        torch.save(torch.from_numpy(X), path)
    data = arrays(path, {"x": "x"}, num_classes=None, validation=str(path))
    assert data.num_classes == 0
    torch.testing.assert_close(collect(data.splits["train"])["x"], torch.from_numpy(X).float())


@pytest.mark.parametrize("name", ["data.npz", "data.pt", "folder"])
def test_classes_are_found_in_the_labels_of_all_files(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    assert arrays(path, num_classes=None).num_classes == 4
    other = saved(tmp_path / f"other-{name}", kind=LABEL + 2)
    assert arrays(path, num_classes=None, validation=str(other)).num_classes == 6


def test_types_become_what_torch_computes_with(tmp_path: Path) -> None:
    images = np.arange(N * 4, dtype=">u2").reshape(N, 1, 2, 2) + 60000
    path = save(tmp_path / "data.npz", image=images, half=X.astype(np.float16), byte=images.astype(np.uint8))
    fields = {"x": "image", "half": "half", "byte": "byte"}
    train = collect(arrays(path, fields, shape=[1, 2, 2], validation=str(path)).splits["train"])
    assert [train[name].dtype for name in fields] == [torch.int64, torch.float32, torch.uint8]
    assert train["x"].flatten().tolist() == list(range(60000, 60000 + N * 4))


def test_a_large_file_stays_on_disk_and_gives_the_same_batches(tmp_path: Path) -> None:
    path = saved(tmp_path / "folder")
    memory, disk = arrays(path), arrays(path, memory_limit=1e-7, num_workers=2)
    column = disk.splits["train"]["x"]
    assert isinstance(column, OnDisk)
    assert isinstance(disk.splits["train"]["label"], torch.Tensor)
    assert len(pickle.dumps(column)) < X.nbytes * 2  # the items' numbers, not the file
    batches = (itertools.islice(data.train_dataloader(), 5) for data in (disk, memory))
    for ours, theirs in zip(*batches, strict=True):
        assert all(torch.equal(ours[field], theirs[field]) for field in (*FIELDS, "position"))
    for ours, theirs in zip(disk.val_dataloader(), memory.val_dataloader(), strict=True):
        assert torch.equal(ours["x"], theirs["x"])


IMAGES = np.arange(N * 5 * 4 * 3, dtype=np.uint8).reshape(N, 5, 4, 3)


@pytest.mark.parametrize("shape", [None, [3, 5, 4]], ids=["found", "stated"])
@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["in memory", "on disk"])
def test_images_may_have_their_channels_last(shape: list[int] | None, limit: float, tmp_path: Path) -> None:
    """As samples.npz has them. Those with channels first, and those that are stated to be as they are, stay so."""
    fields, first = {"x": "x"}, IMAGES.transpose(0, 3, 1, 2)
    np.save(tmp_path / "last.npy", IMAGES)
    np.save(tmp_path / "first.npy", np.ascontiguousarray(first))
    for name in ("last", "first"):
        path = tmp_path / f"{name}.npy"
        data = arrays(path, fields, shape=shape, validation=str(path), memory_limit=limit)
        assert data.shape == [3, 5, 4]
        assert list(data.example().shape) == [1, 3, 5, 4]
        assert isinstance(data.splits["train"]["x"], OnDisk if limit == 0 else torch.Tensor)
        assert np.array_equal(collect(data.splits["train"])["x"].numpy(), first)
    path = tmp_path / "last.npy"
    data = arrays(path, fields, shape=[5, 4, 3], validation=str(path), memory_limit=limit)
    assert np.array_equal(collect(data.splits["train"])["x"].numpy(), IMAGES)


@pytest.mark.parametrize("kind", [np.float32, np.uint8], ids=["floats", "few rows"])
def test_arrays_that_need_not_be_images_stay_as_they_are(kind: type, tmp_path: Path) -> None:
    """Floats; and images of which either axis may be that of the channels."""
    x = np.ascontiguousarray(IMAGES[:, : 5 if kind is np.float32 else 3]).astype(kind)
    np.savez(tmp_path / "x.npz", x=x)
    data = arrays(tmp_path / "x.npz", {"x": "x"}, shape=None, validation=str(tmp_path / "x.npz"))
    assert np.array_equal(collect(data.splits["train"])["x"].numpy(), x)


def test_the_fingerprint_of_a_file_on_disk_follows_its_content(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "one"), saved(tmp_path / "two", series=X[:, ::-1])
    assert arrays(first, memory_limit=0).fingerprint == arrays(first, memory_limit=0).fingerprint
    assert arrays(first, memory_limit=0).fingerprint != arrays(second, memory_limit=0).fingerprint
    assert arrays(first, memory_limit=0).fingerprint != arrays(first, memory_limit=0, held_out=0.2).fingerprint


BROKEN = X.copy()
BROKEN[7, 1, 0], BROKEN[7, 2, 0], BROKEN[11, 0, 0] = np.nan, np.inf, 1e300  # the last overflows float32
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such array": (
        {},
        {"fields": {"x": "serie"}},
        r"no array serie \(available: series, kind, before\): set data.fields",
    ),
    "text": ({"series": X.astype(str)}, {}, "data.npz: series holds <U"),
    "complex": ({"series": X * 1j}, {}, "holds complex128"),
    "not finite": ({"series": BROKEN}, {}, "series: 3 numbers are not finite in float32, the first of them in item 7"),
    "other length": ({"kind": LABEL[1:]}, {}, "lengths, series 40, kind 39, before 40"),
    "other shape": ({}, {"shape": [2, 5]}, r"data.shape=\[2, 5\], but the samples of train have the shape \[5, 2\]"),
    "empty": ({"series": X[:0]}, {}, r"series has the shape \(0, 5, 2\) and holds no items"),
    "one number": ({"series": np.array(1.0)}, {}, "holds no items"),
    "fractions as labels": ({"kind": LABEL / 2}, {}, "labels must be whole numbers"),
    "one-hot labels": ({"kind": np.eye(4, dtype=int)[LABEL]}, {}, "labels must be whole numbers"),
    "negative label": ({"kind": LABEL - 1}, {}, "item 0 has the label -1"),
    "label too high": ({}, {"num_classes": 3}, "data.num_classes=3, but train has the label 3"),
    "nothing held out": ({}, {"held_out": 0.01}, "held_out=0.01 of 40 items"),
}


@pytest.mark.parametrize(("content", "options", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_arrays_are_refused(
    tmp_path: Path, content: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path / "data.npz", **content)
    with pytest.raises(DataError, match=message):
        _ = arrays(path, **options).splits


def test_large_labels_are_names_and_very_many_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "data.npz", kind=LABEL + 10**12)
    assert arrays(path, num_classes=None).classes == [str(10**12 + number) for number in range(4)]
    monkeypatch.setattr("inkdrop.data.arrays.MAX_CLASSES", 3)
    with pytest.raises(DataError, match="kind has 4 different labels, more than the 3 classes"):
        arrays(path, num_classes=None)


def test_numbers_on_disk_are_checked_when_they_are_read(tmp_path: Path) -> None:
    splits = arrays(saved(tmp_path / "folder", series=np.where(BROKEN > 1e30, 0, BROKEN)), memory_limit=0).splits
    with pytest.raises(
        DataError, match=r"series.npy: 1 numbers are not finite in float32, the first of them in item 7"
    ):
        _ = [collect(split) for split in splits.values()]


class Hostile:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('was run')",)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([Hostile()], object))
    np.save(tmp_path / "a.npy", np.array([Hostile()], object))
    torch.save({"x": Hostile()}, tmp_path / "a.pt")
    for name in ("a.npz", "a.npy", "a.pt"):
        data = arrays(tmp_path / name, {"x": "x"})
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            _ = data.splits


def test_absent_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing.npz is missing: set data.path to a file or folder that exists"):
        arrays(tmp_path / "nothing.npz").verify()
    with pytest.raises(DataError, match=r"nothing.npz is missing"):
        arrays(tmp_path / "nothing.npz", num_classes=None)
    for name in ("a.npz", "a.npy", "a.pt"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 damaged")
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            arrays(tmp_path / name).verify()
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match=f"{name} cannot be read: it is not a regular file"):
            arrays(tmp_path / name).verify()
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"a.txt is not a .npz, .npy, .pt or .csv"):
        arrays(tmp_path / "a.txt").verify()
    torch.save({"x": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(DataError, match="neither a tensor nor a dict of tensors"):
        arrays(tmp_path / "list.pt").verify()
    with pytest.raises(ValueError, match="does not say which array is x"):
        arrays(tmp_path / "a.npz", {"label": "y"})


# Tables and channels -------------------------------------------------------------------------------------------------


def test_a_table_of_numbers_is_x_without_the_other_fields(tmp_path: Path) -> None:
    rows = "1.5,2,0,oak\n2.5,3,1,elm\n-1e3,4,0,ash\n0,5,1,fir\n"
    (tmp_path / "a.csv").write_text(f"height, width,kind,name\n{rows}", "utf-8-sig")
    data = Arrays(tmp_path / "a.csv", {"x": "x", "label": "kind", "caption": "name"}, None, None, 2, held_out=0.25)
    assert (data.shape, data.num_classes) == ([2], 2)
    items = [collect(split) for split in data.splits.values()]
    x = torch.cat([each["x"] for each in items])
    assert x[x[:, 1].argsort()].tolist() == [[1.5, 2], [2.5, 3], [-1000, 4], [0, 5]]
    assert sorted(text for each in items for text in decoded(each["caption"])) == ["ash", "elm", "fir", "oak"]
    assert sorted(torch.cat([each["label"] for each in items]).tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize("between", [";", "\t"])
def test_decimals_may_have_a_comma_where_cells_have_another_separator(between: str, tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\n".join(between.join(row) for row in (["a", "b"], ["-1,5", "2"], ["3", "0,25"])))
    assert read_csv(tmp_path / "a.tsv", [])["x"].tolist() == [[-1.5, 2], [3, 0.25]]
    (tmp_path / "a.tsv").write_text(f"a{between}b\n1.234,5{between}2\n3{between}4\n6{between}4\n")
    with pytest.raises(DataError, match=re.escape("column a, row 2: 1.234,5 is not a number")):
        read_csv(tmp_path / "a.tsv", [])


def test_what_programs_write_for_a_missing_number_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,x\nNA,y\n,z\nNaN,\n2,-\n")
    columns = read_csv(tmp_path / "a.csv", [], np.nan)
    assert np.array_equal(columns["a"], [1, np.nan, np.nan, np.nan, 2], equal_nan=True)
    assert columns["b"].tolist() == ["x", "y", "z", "", "-"]


def test_a_first_row_of_data_is_no_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("2020-01-01,100.94\n2020-01-02,101.5\n")
    read_csv(tmp_path / "a.csv", [])
    assert "its header has the number 100.94: if its first row is data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", r"a\.csv, row 3: 1 values for 2 columns"),
        ("a,b\n1,2\n3,\n4,5\n", "column b, row 3: nothing is not a number"),
        ("a,b\n1,2\n3,nan\n4,5\n", "column b, row 3: nan is not a number"),
        ("a,a\n1,2\n", "two columns of one name"),
        ("a,b\n", "has 1 rows: a table has a header and at least one row"),
        ("", "has 0 rows"),
        ("a;b\n1;2\n3;x\n4;5\n", "column b, row 3: x is not a number"),
        ("a\nx\ny\n", r"has no columns of numbers besides x, so that x would be empty \(columns: a\)"),
    ],
)
def test_odd_tables_are_refused_by_row_and_column(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        Arrays(tmp_path / "a.csv", {"x": "x"}, None, 0, 2)


@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["in memory", "on disk"])
def test_channels_along_the_last_axis_become_the_first(limit: float, tmp_path: Path) -> None:
    x = np.arange(10 * 7 * 3, dtype=np.float64).reshape(10, 7, 3)
    np.save(tmp_path / "x.npy", x)
    data = Arrays(tmp_path / "x.npy", {"x": "x"}, None, 0, 2, held_out=0.2, memory_limit=limit, channels="last")
    assert data.shape == [3, 7]
    both = torch.cat([collect(data.splits[name])["x"] for name in ("train", "validation")])
    assert np.array_equal(np.sort(both.numpy(), 0), x.transpose(0, 2, 1).astype(np.float32))
    assert tuple(data.example().shape) == (1, 3, 7)
    assert Arrays(tmp_path / "x.npy", {"x": "x"}, None, 0, 2).shape == [7, 3]
