"""What folders and tables beside images are taken for: splits, classes, parts of one set, or a level that is wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import encoded, folder, pixels, sound, write

from inkdrop.data import ImageFolder
from inkdrop.data.classes import numbered, ordered, renumbered
from inkdrop.errors import DataError


def placed(kind: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder or in a .zip archive."""
    if kind == "folder":
        return write(tmp_path / "mine", files)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return tmp_path / "mine.zip"


def labels_by_name(data: ImageFolder) -> dict[str, dict[str, Any]]:
    """For each split, the class or None of each file, by path from the root."""
    findings = data.examine()
    assert not findings.broken
    root = str(data._places["train"].source.root) + "/"
    found: dict[str, dict[str, Any]] = {}
    for split, columns in findings.splits.items():
        names = [path.removeprefix(root).replace("\\", "/") for path in findings.paths[split]]
        labels = columns["label"][torch.arange(len(names))].tolist() if "label" in columns else [None] * len(names)
        found[split] = dict(zip(names, labels, strict=True))
    return found


def table(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def images(*names: str) -> dict[str, bytes]:
    return {name: encoded(pixels(number, 32, 32, 3)) for number, name in enumerate(names)}


NAMES = [f"{number}.png" for number in range(20)]
FLAT = images(*NAMES)


def lines(header: str, row: str, end: str = "\n") -> bytes:
    """A table of the flat images."""
    rows = (
        row.format(name=name, k=i % 2 + 1, tens=10 * (i % 3), split="train" if i < 15 else "test")
        for i, name in enumerate(NAMES)
    )
    return end.join([header, *rows]).encode()


SHARDS = images(*(f"0000{number // 10}/img{number:08}.png" for number in range(20)))
SPLIT = sound("train/cat", "train/dog", "val/cat", "val/dog", count=4)
LABELS = [[name, 3 + number % 2] for number, name in enumerate(SHARDS)]

# id: (files, options, classes, number of files by split)
TAKEN: dict[str, tuple[dict[str, bytes], dict[str, Any], list[str], dict[str, int]]] = {
    "train and val": (SPLIT, {}, ["cat", "dog"], {"train": 8, "validation": 8}),
    "train and val without labels": (SPLIT, {"num_classes": 0}, [], {"train": 8, "validation": 8}),
    "train and test": (
        sound("Training/a", "Training/b", "test_set/a"),
        {},
        ["a", "b"],
        {"train": 20, "validation": 10},
    ),
    "three splits": (
        sound("train", "validation", "test", count=5),
        {},
        [],
        {"train": 5, "validation": 5, "test": 5},
    ),
    "train alone": (sound("train/a", "train/b"), {}, ["a", "b"], {"train": 18, "validation": 2}),
    "a class called train": (sound("bus", "train"), {}, ["bus", "train"], {"train": 18, "validation": 2}),
    "numbers in their order": (sound("10", "2", "1"), {}, ["1", "2", "10"], {"train": 27, "validation": 3}),
    "EDM": (
        {**SHARDS, "dataset.json": json.dumps({"labels": LABELS, "more": 1}).encode()},
        {},
        ["3", "4"],
        {"train": 18, "validation": 2},
    ),
    "EDM, numbers stated": (
        {**SHARDS, "dataset.json": json.dumps({"labels": [[name, i % 3] for i, name in enumerate(SHARDS)]}).encode()},
        {"num_classes": 3},
        ["0", "1", "2"],
        {"train": 20, "validation": 0},
    ),
    "EDM without labels": (
        {**SHARDS, "dataset.json": b'{"labels": null}'},
        {},
        [],
        {"train": 18, "validation": 2},
    ),
    "EDM, labels not wanted": (
        {**SHARDS, "dataset.json": json.dumps({"labels": LABELS}).encode()},
        {"num_classes": 0},
        [],
        {"train": 18, "validation": 2},
    ),
    "a dataset.json of something else": (
        sound("a", "b") | {"dataset.json": b'{"info": 3}'},
        {},
        ["a", "b"],
        {"train": 18, "validation": 2},
    ),
    "metadata.jsonl with names": (
        FLAT
        | {"metadata.jsonl": table(*({"file_name": n, "label": ("cat", "dog")[i % 2]} for i, n in enumerate(NAMES)))},
        {},
        ["cat", "dog"],
        {"train": 18, "validation": 2},
    ),
    "metadata.jsonl in each split": (
        {
            **{f"train/{name}": content for name, content in FLAT.items()},
            **{f"test/{name}": content for name, content in FLAT.items()},
            "train/metadata.jsonl": table(*({"file_name": n, "label": i % 2} for i, n in enumerate(NAMES))),
            "test/metadata.jsonl": table(*({"file_name": f"./{n}", "label": 1} for n in NAMES)),
        },
        {},
        ["0", "1"],
        {"train": 20, "validation": 20},
    ),
    "metadata.jsonl above the splits": (
        SPLIT | {"metadata.jsonl": table(*({"file_name": n, "label": n.split("/")[1].upper()} for n in SPLIT))},
        {},
        ["CAT", "DOG"],
        {"train": 8, "validation": 8},
    ),
    "metadata.csv with splits": (
        FLAT | {"metadata.csv": lines("file_name,label,split", "{name},{k},{split}")},
        {},
        ["1", "2"],
        {"train": 15, "validation": 5},
    ),
    "any CSV, with semicolons": (
        FLAT
        | {
            "labels.csv": b"\xef\xbb\xbf" + lines("Filename;Class", "{name};{tens}", end="\r\n"),
            "other.csv": b"a,b\n1,2\n",
        },
        {},
        ["0", "10", "20"],
        {"train": 20, "validation": 0},
    ),
    "folders of classes beside another CSV": (
        sound("a", "b") | {"sizes.csv": b"file_name,width\na/0.png,3\n"},
        {},
        ["a", "b"],
        {"train": 18, "validation": 2},
    ),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(("files", "options", "classes", "counts"), TAKEN.values(), ids=TAKEN)
def test_splits_and_classes(
    files: dict[str, bytes],
    options: dict[str, Any],
    classes: list[str],
    counts: dict[str, int],
    kind: str,
    tmp_path: Path,
) -> None:
    data = folder(placed(kind, tmp_path, files), **options)
    assert data.classes == classes
    assert data.num_classes == len(classes)
    found = labels_by_name(data)
    assert {split: len(names) for split, names in found.items()} == counts
    assert sum(counts.values()) == sum(name.endswith(".png") for name in files)
    again = folder(data.path, **{**options, "num_classes": data.num_classes})  # as a run has it
    assert labels_by_name(again) == found


def test_labels_are_those_of_the_table(tmp_path: Path) -> None:
    data = folder(placed("folder", tmp_path, {**SHARDS, "dataset.json": json.dumps({"labels": LABELS}).encode()}))
    found = labels_by_name(data)
    assert {**found["train"], **found["validation"]} == {name: label - 3 for name, label in LABELS}


def test_splits_below_equal_those_that_are_named(tmp_path: Path) -> None:
    path = placed("folder", tmp_path, SPLIT)
    named = folder(path / "train", validation=str(path / "val"))
    assert folder(path).fingerprint == named.fingerprint


def with_table(**row: Any) -> dict[str, bytes]:
    return FLAT | {"metadata.jsonl": table(*({"file_name": name, "label": 0} for name in NAMES), row)}


INSIDE = sound("photos/cat", "photos/dog", count=2)
# id: (files, options, words)
REFUSED: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "classes one folder down": (
        INSIDE,
        {},
        r"in its folder photos, which holds the folders cat, dog: set data.path=.*/photos",
    ),
    "classes two folders down": (
        {f"more/{name}": content for name, content in INSIDE.items()},
        {},
        r"its folder more/photos, .*data.path=.*/more/photos",
    ),
    "splits one folder down": ({f"mine/{n}": c for n, c in SPLIT.items()}, {}, r"set data.path=.*/mine/? to make"),
    "splits one folder down, without labels": (
        {f"mine/{n}": c for n, c in SPLIT.items()},
        {"num_classes": 0},
        r"holds the folders train, val: set data.path=.*/mine to make",
    ),
    "splits of other names": (
        sound("a/cat", "a/dog", "b/cat", "b/dog", count=2),
        {},
        r"folders a, b .* holds the folders cat, dog, as splits do: set data.path=.*/a data.validation=.*/b",
    ),
    "splits and something else": (
        sound("train", "val", "extra"),
        {},
        r"folders extra, train, val, which are not one training split .*data.path=.*/train data.validation=.*/val",
    ),
    "no training split": (sound("val", "test"), {}, r"data.path=.*/val data.validation=.*/test"),
    "two of a split": (sound("train", "val", "validation"), {}, "which are not one training split"),
    "an image beside splits": (SPLIT | {"x.png": FLAT["0.png"]}, {}, "x.png is next to the splits train, val"),
    "an unnamed image": (
        FLAT | {"metadata.jsonl": table({"file_name": "0.png", "label": 1})},
        {},
        r"1.png: has no line with a class in .*metadata.jsonl",
    ),
    "an absent image": (
        with_table(file_name="no.png", label=0),
        {},
        r"no.png: is missing, but .*metadata.jsonl names",
    ),
    "an image above": (with_table(file_name="../../etc/passwd", label=0), {}, "is missing, but"),
    "two labels": (with_table(file_name="3.png", label=1), {}, "line 21: 3.png occurs before with another label"),
    "a list of labels": (with_table(file_name="x.png", label=[1, 0]), {}, r"the label \[1, 0\] is neither"),
    "a measured label": (with_table(file_name="x.png", label=0.5), {}, "the label 0.5 is neither"),
    "a truth": (with_table(file_name="x.png", label=True), {}, "the label True is neither"),
    "a negative label": (with_table(file_name="x.png", label=-1), {}, "the label -1 is neither"),
    "no name": (with_table(label=0), {}, "None is not the name of a file"),
    "no object": (FLAT | {"metadata.jsonl": b"[1]\n"}, {}, "metadata.jsonl, line 1 cannot be read: it contains a list"),
    "no JSON": (FLAT | {"dataset.json": b"{"}, {}, "dataset.json cannot be read: it is not JSON"),
    "deep JSON": (
        FLAT | {"dataset.json": b"[" * 10**5},
        {},
        "dataset.json cannot be read: it is nested more than 64 levels",
    ),
    "no pairs": (FLAT | {"dataset.json": b'{"labels": [1]}'}, {}, "its labels are not a list of"),
    "no column of files": (FLAT | {"metadata.csv": b"a,b\n1,2\n"}, {}, "has no column file_name, but a, b"),
    "no text": (FLAT | {"metadata.csv": b"file_name,label\n\xff\xfe,1\n"}, {}, "it is not text in UTF-8"),
    "a huge field": (FLAT | {"metadata.csv": b"file_name,label\n" + b"x" * 200_000}, {}, "field larger than"),
    "two tables": (
        FLAT | dict.fromkeys(("a.csv", "b.csv"), b"file_name,label\n0.png,1\n"),
        {},
        "a.csv and .*b.csv both name images",
    ),
    "an unknown split": (
        FLAT | {"metadata.csv": b"file_name,split\n0.png,7\n"},
        {},
        "0.png has the split 7: it must be train, validation or test",
    ),
    "nothing to train on": (
        FLAT | {"metadata.csv": b"file_name,split\n0.png,val\n"},
        {},
        "no image has the split train",
    ),
    "an image without split": (
        FLAT | {"metadata.csv": b"file_name,split\n0.png,train\n1.png,val\n"},
        {"num_classes": 0},
        r"2.png: has no line",
    ),
    "validation twice": (SPLIT, {"validation": "VAL"}, r"data.path=.* itself has splits: .*data.path=.*/train"),
    "labels beyond": (
        {**SHARDS, "dataset.json": json.dumps({"labels": LABELS}).encode()},
        {"num_classes": 3},
        "num_classes=3, but .* has 2 classes",
    ),
    "an empty class": (
        {**SHARDS, "dataset.json": json.dumps({"labels": LABELS}).encode()},
        {"num_classes": 5},
        "no images to train on of class 0 in",
    ),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(("files", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_named(
    files: dict[str, bytes], options: dict[str, Any], words: str, kind: str, tmp_path: Path
) -> None:
    path = placed(kind, tmp_path, files)
    if "validation" in options:
        options = {"validation": f"{path}/val"}
    with pytest.raises(ValueError, match=words) as error:
        _ = folder(path, **options).splits
    assert isinstance(error.value, DataError) == ("num_classes=3" not in str(error.value))


# id: (files, words, number of classes)
DOUBTED: dict[str, tuple[dict[str, bytes], str, int]] = {
    "one folder": (
        sound("photos"),
        "all images of .* are in one folder, which makes one class, photos: set data.num_cl",
        1,
    ),
    "shards": (SHARDS, "folders 00000, 00001 of .* look like parts of one set: set data.num_classes=0", 2),
}


@pytest.mark.parametrize(("files", "words", "count"), DOUBTED.values(), ids=DOUBTED)
def test_what_is_doubtful_is_told_unless_it_is_stated(
    files: dict[str, bytes], words: str, count: int, tmp_path: Path
) -> None:
    path = write(tmp_path, files)
    with pytest.warns(UserWarning, match=words):
        assert folder(path).num_classes == count
    for stated in (count, 0):
        assert len(folder(path, num_classes=stated).splits["train"]["x"]) == 9 * count


def test_splits_of_other_names_may_be_stated_to_be_classes(tmp_path: Path) -> None:
    path = write(tmp_path, sound("a/cat", "a/dog", "b/cat", "b/dog"))
    assert folder(path, num_classes=2).classes == ["a", "b"]
    assert len(folder(path, num_classes=2).splits["train"]["x"]) == 36


def test_captions_are_counted_and_not_used(tmp_path: Path) -> None:
    rows = ({"file_name": name, "text": "a cat" if i % 2 else "", "year": 7} for i, name in enumerate(NAMES))
    path = write(tmp_path, FLAT | {"metadata.jsonl": table(*rows)})
    with pytest.warns(
        UserWarning, match=r"jsonl: 10 captions \(data.captions=text uses them\) and the columns year are not used"
    ):
        assert set(folder(path).splits["train"]) == {"x"}


def test_a_table_that_is_a_link_is_not_followed_out_of_the_folder(tmp_path: Path) -> None:
    path = write(tmp_path / "mine", FLAT)
    (path / "dataset.json").symlink_to(write(tmp_path, {"secret.json": b"{"}) / "secret.json")
    assert folder(path).classes == []
    with pytest.raises(DataError, match=r"dataset.json cannot be read"):
        folder(path, allow_links=True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["01", "1", "00"], ["00", "01", "1"]),
        (["10", "2", "x"], ["10", "2", "x"]),
        (["b", "B", "é", "a"], ["B", "a", "b", "é"]),
        (["²", "1"], ["1", "²"]),
        ([], []),
    ],
)
def test_the_order_of_classes(names: list[str], expected: list[str]) -> None:
    assert ordered(names) == expected


@pytest.mark.parametrize(
    ("labels", "stated", "classes"),
    [
        ([2, 1, 3], None, [1, 2, 3]),
        ([2, 1, 3], 3, [1, 2, 3]),
        ([2, 1, 3], 4, [0, 1, 2, 3]),
        ([0, 5], None, [0, 5]),
        ([0, 5], 2, [0, 5]),
        ([0, 1], 10, list(range(10))),
        ([], None, []),
    ],
)
def test_labels_become_numbers_without_gaps(labels: list[int], stated: int | None, classes: list[int]) -> None:
    assert numbered(labels, stated) == classes
    assert [classes[place] for place in renumbered(torch.tensor(labels, dtype=torch.long), classes)] == labels
