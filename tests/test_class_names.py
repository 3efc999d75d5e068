"""Names of classes, from the data through the checkpoint to requests and to what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import Script
from image_files import encoded, write

import inkdrop
from inkdrop.checkpoints import find_checkpoint
from inkdrop.conditioners.label import class_numbers, is_named
from inkdrop.data import CIFAR10, DataModule, Mixture
from inkdrop.data.arrays import Arrays
from inkdrop.data.loaders import Split, collect
from inkdrop.errors import DataError
from inkdrop.files.showing import file_name
from inkdrop.pictures.images import image_names

TINY = [
    *("data=image_folder", "data.path=photos", "data.shape=[3,8,8]", "data.batch_size=4", "network.base_channels=8"),
    *("network.norm_groups=4", "network.num_blocks=1", "trainer.max_steps=2", "logger=none", "callbacks.pictures=null"),
    *("callbacks.evaluate=null", "callbacks.loss_by_noise_level=null", "trainer.enable_progress_bar=false"),
]
COLOURS = {"1": 10, "2": 90, "10": 200, "ca fé": 150}


def photos(folder: Path, *names: str) -> Path:
    """Twelve images of one colour in each class."""
    images = {name: encoded(np.full((8, 8, 3), COLOURS[name], np.uint8)) for name in names}
    return write(folder, {f"{name}/{n}.png": content for name, content in images.items() for n in range(12)})


def altered(run: Path, **content: Any) -> None:
    """Other content in the checkpoint of a run; None is none, as older checkpoints have it."""
    file = find_checkpoint(run)
    changed = {**torch.load(file, weights_only=True), **content}
    torch.save({name: value for name, value in changed.items() if value is not None}, file)
    (file.parent / "index.json").unlink(missing_ok=True)


@pytest.mark.slow
def test_names_go_from_folders_to_samples(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path))
    photos(tmp_path / "photos", "1", "10", "2", "ca fé")
    run = tmp_path / "run"
    done = script("train.py", *TINY, f"output_dir={run}")
    assert done.code == 0, done.err
    assert "classes: 1, 10, 2, ca fé\n" in done.out  # not all are numbers
    short = [f"checkpoint={run}", "time_grid.num_steps=2", "num_samples=4", "guidance=none"]
    done = script("sample.py", *short, "condition.label=['ca fé',10]", "save_images=true", f"output_dir={tmp_path}/a")
    assert done.code == 0, done.err
    assert "per class, as in the rows of grid.png: 10 2, ca fé 2\n" in done.out
    with np.load(tmp_path / "a" / "samples.npz") as file:
        assert file["classes"][file["label"]].tolist() == ["ca fé", "10"] * 2
    assert json.loads((tmp_path / "a" / "result.json").read_text())["classes"] == {"10": 2, "ca fé": 2}
    names = sorted(file.name for file in (tmp_path / "a" / "images").iterdir())
    assert names == ["000000-ca_fé.png", "000001-10.png", "000002-ca_fé.png", "000003-10.png", "metadata.jsonl"]
    lines = (tmp_path / "a" / "images" / "metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[2]) == {"file_name": "000002-ca_fé.png", "seed": 2, "label": "ca fé"}
    (tmp_path / "a" / "result.json").unlink()  # as if it had been killed
    done = script("sample.py", *short, "condition.label=2", "save_images=true", f"output_dir={tmp_path}/a")
    assert done.code == 2
    assert "000000-ca_fé.png is not one of these samples" in done.err
    done = script("sample.py", *short, "condition.label=ca fe", f"output_dir={tmp_path}/b")
    assert done.code == 2
    assert "condition.label=ca fe is not one of the classes of this model: did you mean ca fé?" in done.err
    pipeline = inkdrop.load(run)
    assert pipeline.request(range(3), label="2")["label"].tolist() == [2, 2, 2]
    assert pipeline.request(range(2), label=["10", 3])["label"].tolist() == [1, 3]


@pytest.mark.slow
def test_the_order_of_a_run_holds(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path))
    photos(tmp_path / "photos", "1", "10", "2")
    run = tmp_path / "run"
    done = script("train.py", *TINY, f"output_dir={run}")
    assert done.code == 0, done.err
    assert "classes: 1, 2, 10\n" in done.out
    longer = "resume_allow=[trainer.max_steps,scheduler.num_steps]"
    done = script("train.py", *TINY, f"output_dir={run}", "trainer.max_steps=3", longer)
    assert "resumed from step 2" in done.out
    assert "the classes were" not in done.out
    altered(run, classes=["1", "2", "x\x1b[31m"])
    done = script("train.py", *TINY, f"output_dir={run}", "trainer.max_steps=4", longer)
    assert "warning: the classes were called 1, 2, x\\x1b[31m, and are now 1, 2, 10" in done.out
    measured = [f"checkpoint={run}", "evaluate=true", "num_samples=3", "time_grid.num_steps=1", "guidance=none"]
    metrics = ["metric=[frechet]", "metric.frechet.min_samples=2", "extractor=identity", "extractor.dim=192"]
    done = script("sample.py", *measured, *metrics, f"output_dir={tmp_path}/a")
    assert done.code == 0, done.err
    assert "their fingerprints differ" not in done.err
    assert "per class, as in the rows of grid.png: 1 1, 2 1, 10 1\n" in done.out
    # Before there were names, classes stood in the order of their bytes: such data are told to be others.
    monkeypatch.setattr("inkdrop.data.layout.ordered", lambda names: sorted(names))
    done = script("sample.py", *measured, *metrics, f"output_dir={tmp_path}/b")
    assert "warning: the data are not those of the run: their fingerprints differ" in done.err


@pytest.mark.slow
def test_checkpoints_without_names_take_numbers(script: Script, tmp_path: Path) -> None:
    photos(tmp_path / "photos", "1", "2")
    run, path = tmp_path / "run", f"data.path={tmp_path}/photos"
    assert script("train.py", *TINY, path, f"output_dir={run}").code == 0
    altered(run, classes=None)
    pipeline = inkdrop.load(run)
    assert pipeline.request(range(2), label=1)["label"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="label=cat must be a class from 0 to 1 or a list of them"):
        pipeline.request([0], label="cat")
    done = script(
        "sample.py", f"checkpoint={run}", "time_grid.num_steps=1", "save_images=true", f"output_dir={tmp_path}/a"
    )
    assert done.code == 0, done.err
    assert (tmp_path / "a" / "images" / "000000.png").is_file()
    altered(run, classes=[1, 2])
    done = script("sample.py", f"checkpoint={run}", f"output_dir={tmp_path}/b")
    assert done.code == 4
    assert "is not an inkdrop checkpoint: " in done.err


NAMES, NUMBERS = ["cat", "dog", "10", "true"], ["1", "2", "10"]


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        ("dog", NAMES, 1),
        (["dog", "cat", 0], NAMES, [1, 0, 0]),
        (10, NAMES, 2),
        (3, NAMES, 3),
        (99, NAMES, 99),  # which the conditioner refuses
        (True, NAMES, 3),
        (1, NUMBERS, 0),
        (10, NUMBERS, 2),
        ("2", NUMBERS, 1),
        (7, list(map(str, range(10))), 7),
    ],
)
def test_names_are_sought_before_numbers(wanted: Any, names: list[str], expected: Any) -> None:
    assert class_numbers(wanted, names) == expected


@pytest.mark.parametrize(
    ("wanted", "names", "words"),
    [
        ("dgo", NAMES, "condition.label=dgo is not one of the classes of this model: did you mean dog?"),
        ("x\x1b[31m", NUMBERS, r"label=x\\x1b\[31m is not one of the classes of this model: available: 1, 2, 10"),
        (0, NUMBERS, "label=0 is not one of the classes of this model: did you mean 10?"),
        (3, NUMBERS, "label=3 is not one of"),
        (1.5, NAMES, "label=1.5 is not one of"),
        (["cat", None], NAMES, "label=None is not one of"),
        ({"a": 1}, NAMES, "is not one of"),
        ("x", [f"class {n}" for n in range(1000)], "and 980 more"),
    ],
)
def test_other_names_are_refused(wanted: Any, names: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        class_numbers(wanted, names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("a\n=HYPERLINK()", "a__HYPERLINK__"),
        ("Käfer", "Käfer"),
        ("\udcff", "_"),
        ("漢" * 100, "漢" * 26),
    ],
)
def test_names_in_the_names_of_files(name: str, expected: str) -> None:
    assert file_name(name) == expected
    assert image_names([3], [1], ["a", name]) == [f"000003-{expected}.png"]


def test_plain_numbers_name_no_file() -> None:
    assert not is_named(["0", "1"])
    assert image_names([3]) == image_names([3], [1]) == ["000003.png"]


def labelled(folder: Path, labels: Any, num_classes: int | None, **options: Any) -> Arrays:
    np.savez(folder / "data.npz", x=np.arange(len(labels), dtype=np.float32)[:, None], label=labels)
    fields = {"x": "x", "label": "label"}
    return Arrays(str(folder / "data.npz"), fields, [1], num_classes, 2, **options)


# id: (labels, stated, names, labels as trained on)
GAPS: dict[str, tuple[list[int], int | None, list[str], list[int]]] = {
    "from 0": ([0, 1, 2] * 10, None, ["0", "1", "2"], [0, 1, 2] * 10),
    "from 1": ([1, 2, 3] * 10, None, ["1", "2", "3"], [0, 1, 2] * 10),
    "from 1, stated": ([1, 2, 3] * 10, 3, ["1", "2", "3"], [0, 1, 2] * 10),
    "gaps": ([9, 2, 700] * 10, None, ["2", "9", "700"], [1, 0, 2] * 10),
    "one": ([5] * 10, None, ["5"], [0] * 10),
}


@pytest.mark.parametrize(("labels", "stated", "names", "expected"), GAPS.values(), ids=GAPS)
def test_labels_with_gaps_make_no_empty_class(
    labels: list[int], stated: int | None, names: list[str], expected: list[int], tmp_path: Path
) -> None:
    data = labelled(tmp_path, labels, stated)
    assert data.num_classes == len(names)
    found = [collect(split) for split in data.splits.values()]
    order = torch.cat([each["x"][:, 0] for each in found]).argsort()
    assert torch.cat([each["label"] for each in found])[order].tolist() == expected
    assert data.classes == names


def test_a_class_without_items_is_told(tmp_path: Path) -> None:
    data = labelled(tmp_path, [1, 2, 3] * 10, 5)
    with pytest.warns(UserWarning, match="no training item has the class 0, 4, so that samples"):
        _ = data.splits
    assert data.classes == ["0", "1", "2", "3", "4"]
    with pytest.raises(DataError, match="num_classes=2, but train has the label 3, and there are 3 different labels"):
        _ = labelled(tmp_path, [1, 2, 3] * 10, 2).splits


class Named(DataModule):
    """Data whose classes have these names."""

    def __init__(self, *names: str):
        super().__init__([1], len(names), 1)
        self.names = names

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        return list(self.names)

    def load(self) -> dict[str, Split]:
        split = {"x": torch.zeros(len(self.names), 1), "label": torch.arange(len(self.names))}
        return {"train": split, "validation": split}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("cat", "dog"), ("0", "1", "2"), ["cat", "dog", "2"]),
        (("0", "1"), ("cat", "dog", "bird"), ["cat", "dog", "bird"]),
        (("cat", "dog"), ("cat",), ["cat", "dog"]),
        (("cat", "dog"), ("dog", "cat"), None),
        (("2", "1"), ("0", "1"), ["2", "1"]),
    ],
)
def test_sources_of_a_mixture_agree(first: tuple[str, ...], second: tuple[str, ...], expected: Any) -> None:
    data = Mixture({"a": Named(*first), "b": Named(*second)}, [1], None, 1, False)
    if expected is None:
        with pytest.raises(DataError, match=r"class 0 is dog in data.sources.b, but cat in an earlier source"):
            _ = data.splits
    else:
        assert data.classes == expected


def test_classes_of_cifar10_have_their_names() -> None:
    assert CIFAR10([3, 32, 32], 10, 1).classes[3] == "cat"
