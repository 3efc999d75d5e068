"""Data sets of image files: labels, order, the split, columns in memory and out of it, and `check-data`."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import re
import shlex
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from entry_scripts import ROOT, completed
from image_files import SHAPE, SIDE, encoded, folder, pixels, sound, write
from PIL import Image
from runs import IN_PROCESS, configuration

from inkdrop.__main__ import main
from inkdrop.commands.check_data.inspection import inspect
from inkdrop.configuration import build, check
from inkdrop.configuration.compose import resolved
from inkdrop.data import CIFAR10, Digits, ImageFolder
from inkdrop.data.image_folder import held_out
from inkdrop.data.images import Images
from inkdrop.errors import ConfigurationError, DataError
from inkdrop.files.locations import data_dir

pytestmark = pytest.mark.filterwarnings("ignore:all images of .* are in one folder")


def zipped(root: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(root.rglob("*.png"), reverse=True):
            file.write(each, inside + str(each.relative_to(root)))
    return path


def test_labels_follow_the_folders_and_order_the_names(tmp_path: Path) -> None:
    files = sound("zebra", "Ant", "bee", count=3)
    write(tmp_path, files)
    data = folder(tmp_path, validation=str(tmp_path))
    assert data.num_classes == 3
    assert data.classes == ["Ant", "bee", "zebra"]  # capitals come first among bytes
    split = data.splits["train"]
    assert isinstance(split["label"], torch.Tensor)
    assert split["label"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    first = pixels(1000 + 100, SIDE, SIDE, 3)  # "Ant" is the second of the folders as they were made
    assert (split["x"][torch.tensor([0])][0].permute(1, 2, 0).numpy() == first).all()


def test_a_zip_archive_gives_what_the_folder_gives(tmp_path: Path) -> None:
    write(tmp_path / "images", sound("a", "b"))
    whole = folder(tmp_path / "images")
    assert folder(zipped(tmp_path / "images", tmp_path / "images.zip")).fingerprint == whole.fingerprint
    within = zipped(tmp_path / "images", tmp_path / "within.zip", "deep/train/")
    with pytest.raises(
        DataError, match=r"all files of .*within.zip are in its folder deep/train, .*/deep/train to make these"
    ):
        folder(within)
    assert folder(within / "deep" / "train").fingerprint == whole.fingerprint
    with pytest.raises(DataError, match="no images in"):
        folder(within / "elsewhere").verify()


def test_without_folders_there_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path, {name.replace("/", ""): content for name, content in sound("a").items()})
    data = folder(tmp_path)
    assert data.num_classes == 0
    assert set(data.splits["train"]) == {"x"}
    write(tmp_path, sound("b", count=1))
    with pytest.raises(DataError, match="10 of 11 files"):  # these lie beside the folder of a class
        folder(tmp_path, batch_size=1).load()
    assert set(folder(tmp_path, num_classes=0).splits["train"]) == {"x"}
    assert len(folder(tmp_path, num_classes=0).splits["train"]["x"]) == 10


def test_the_split_is_a_function_of_the_names_within_each_class() -> None:
    names = [f"{label}/{number}.png" for label in "ab" for number in range(50)]
    labels = [int(name[0] == "b") for name in names]
    chosen = {names[item] for item in held_out(names, labels, 0.1)}
    assert sorted(name[0] for name in chosen) == ["a"] * 5 + ["b"] * 5
    assert held_out(names, labels, 0.1) == [3, 14, 22, 35, 45, 51, 52, 60, 94, 96]  # another split changes every figure
    order = np.random.default_rng(0).permutation(len(names))
    shuffled = [names[i] for i in order]
    assert {shuffled[item] for item in held_out(shuffled, [labels[i] for i in order], 0.1)} == chosen
    more = [*names, *(f"a/{number}.png" for number in range(50, 60))]
    grown = {more[item] for item in held_out(more, [*labels, *[0] * 10], 0.1)}
    assert {name for name in grown if name[0] == "b"} == {name for name in chosen if name[0] == "b"}
    assert grown & set(names) <= chosen  # new files may take a place, and change nothing else


def test_a_validation_set_must_have_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "train", sound("a", "b"))
    write(tmp_path / "test", sound("b", count=2))
    data = folder(tmp_path / "train", validation=str(tmp_path / "test"))
    assert isinstance(label := data.splits["validation"]["label"], torch.Tensor)
    assert label.tolist() == [1, 1]
    write(tmp_path / "test", sound("c", count=2))
    with pytest.raises(DataError, match=r"test/c/00.png: is not in the folder of any class"):
        _ = folder(tmp_path / "train", validation=str(tmp_path / "test")).splits


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_decoded_when_asked_equals_what_is_kept(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "images", sound("a", "b"))
    if kind == "zip":
        path = zipped(path, tmp_path / "images.zip")
    kept = folder(path)
    assert isinstance(kept.splits["train"]["x"], torch.Tensor)
    expected = [*itertools.islice(kept.train_dataloader(), 5), *kept.val_dataloader()]
    for num_workers in (0, 2):
        lazy = folder(path, memory_limit=0.0, num_workers=num_workers)
        x = lazy.splits["train"]["x"]
        assert isinstance(x, Images)
        assert (tuple(x.shape), x.dtype, len(x)) == ((18, *SHAPE), torch.uint8, 18)
        _ = x[torch.tensor([0])]  # the archive is open here when the processes start
        batches = [*itertools.islice(lazy.train_dataloader(), 5), *lazy.val_dataloader()]
        assert len(batches) == len(expected)
        for ours, theirs in zip(batches, expected, strict=True):
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        again = pickle.loads(pickle.dumps(x))
        assert torch.equal(again[torch.tensor([3, 1])], x[torch.tensor([3, 1])])
        assert x[torch.empty(0, dtype=torch.long)].shape == (0, *SHAPE)


@pytest.mark.slow
def test_scanning_in_processes_gives_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, sound("a", count=300) | {"a/100x.png": b"broken"})
    found = [folder(path, num_workers=count).examine() for count in (0, 2)]
    assert found[0].broken == found[1].broken
    assert len(found[0].broken) == 1
    for split in ("train", "validation"):
        assert found[0].paths[split] == found[1].paths[split]
        assert torch.equal(*(each.splits[split]["x"][torch.arange(30)] for each in found))


def test_the_digest_follows_content_and_decoding(tmp_path: Path) -> None:
    write(tmp_path, sound("a"))
    digest = folder(tmp_path, memory_limit=0.0).fingerprint
    os.utime(tmp_path / "a" / "03.png")
    assert folder(tmp_path, memory_limit=0.0).fingerprint == digest
    assert folder(tmp_path, memory_limit=0.0, shape=[1, SIDE, SIDE]).fingerprint != digest
    (tmp_path / "a" / "03.png").rename(tmp_path / "a" / "3.png")
    assert folder(tmp_path, memory_limit=0.0).fingerprint != digest


def test_a_relative_path_is_sought_here_and_then_among_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data" / "mine", sound("a"))
    (tmp_path / "here").mkdir()
    monkeypatch.delenv("INKDROP_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(
        DataError, match=r"mine is neither in the working directory nor in data: set data.path.* or INKDROP_DATA_DIR"
    ):
        folder("mine")
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path / "data"))
    assert folder("mine")._places["train"].source.root == tmp_path / "data" / "mine"
    write(tmp_path / "here" / "mine", sound("a"))
    assert folder("mine")._places["train"].source.root == Path("mine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": [2, 8, 8]}, r"data.shape=\[2, 8, 8\] must be"),
        ({"shape": [32, 32]}, "data.shape"),
    ],
)
def test_impossible_shapes_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        folder(tmp_path, num_classes=0, **options)


def composed(*overrides: str) -> dict[str, Any]:
    return resolved(configuration("train", "data=image_folder", "output_dir=nowhere", *overrides))


def test_the_number_of_classes_is_found_before_others_refer_to_it(tmp_path: Path) -> None:
    write(tmp_path, sound("a", "b", "c"))
    plain = composed(f"data.path={tmp_path}")
    assert plain["data"]["num_classes"] == plain["conditioner"]["num_classes"] == 3
    assert plain["pipeline"]["conditioner"]["num_classes"] == 3
    assert composed(f"data.path={tmp_path}", "data.num_classes=0")["data"]["num_classes"] == 0
    with pytest.raises(DataError, match="neither in the working directory nor in"):
        composed(f"data.path={tmp_path}/nothing")
    with pytest.raises(ConfigurationError, match=r"os.system is not allowed"):
        composed(f"data.path={tmp_path}", "data._target_=os.system")
    with pytest.raises(ConfigurationError, match=r"data.held_out=1.5"):
        composed(f"data.path={tmp_path}", "data.held_out=1.5")


@pytest.mark.parametrize("name", ["image_folder", "webdataset"])
def test_the_yaml_states_the_defaults_of_the_decoder(name: str) -> None:
    node = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())["decoder"]
    stated = vars(build({**node, "shape": SHAPE}))
    assert stated == vars(ImageFolder("nowhere", SHAPE, 2, 4).decoder)


@pytest.mark.slow
def test_training_and_a_sweep_find_the_number_of_classes(tmp_path: Path) -> None:
    for name, classes in (("two", "ab"), ("three", "abc")):
        write(tmp_path / name, sound(*classes))
    small = ["data=image_folder", "data.shape=[3,8,8]", "data.batch_size=4", "logger=none", "trainer.max_steps=1"]
    options = [*small, "~callbacks.evaluate", f"output_dir={tmp_path}/runs"]
    done = completed("train.py", "-m", *IN_PROCESS, f"data.path={tmp_path}/two,{tmp_path}/three", *options)
    assert done.returncode == 0, done.stderr
    for number, classes in ((0, 2), (1, 3)):
        config = json.loads((tmp_path / "runs" / str(number) / "run.json").read_text())["config"]
        assert config["pipeline"]["conditioner"]["num_classes"] == config["data"]["num_classes"] == classes


@pytest.mark.slow
def test_command_lines_of_the_page_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "images", sound("a", "b"))
    for name in ("photos", "train", "test"):
        zipped(tmp_path / "images", tmp_path / f"{name}.zip")
    for name in ("PHOTOS", "clean", "damaged", "CAPTIONED"):
        write(tmp_path / name, sound("a", "b"))
    rows = ({"file_name": name, "text": "a picture"} for name in sound("a", "b"))
    (tmp_path / "CAPTIONED" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.savez(tmp_path / "series.npz", x=np.zeros((9, 16, 3), np.float32))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "data.md").read_text().replace("\\\n", "")
    lines = re.findall(r"^python train\.py (.*)$", page, re.M)
    assert len(lines) == 15
    for line in (each for each in lines if "hydra.searchpath" not in each):
        plain = resolved(configuration("train", "output_dir=nowhere", *shlex.split(line)))
        check(plain)
        build(plain["pipeline"])


def test_check_data_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    black, white = encoded(np.zeros((SIDE, SIDE, 3), np.uint8)), encoded(np.full((SIDE, SIDE, 3), 255, np.uint8))
    write(tmp_path / "train", {f"{label}/{n}.png": black for label in ("cat", "dog") for n in range(3)})
    write(tmp_path / "train", {"dog/4.png": white, "dog/5.png": white, "dog/readme.txt": b""})
    write(tmp_path / "test", {"cat/1.png": white})
    data = folder(tmp_path / "train", validation=str(tmp_path / "test"))
    assert inspect(data, tmp_path / "out")
    told = capsys.readouterr().out
    assert (
        "train                8 items of shape (3, 32, 32), torch.uint8\n  mean               63.75, 63.75, 63.75"
        in told
    )
    assert "standard deviation 110.42, 110.42, 110.42" in told  # 255 sqrt(1/4 3/4)
    assert "per class          cat 3, dog 5" in told
    assert "twins              6 within train" in told
    assert "twins              0 within validation, 1 with splits above" in told
    assert "skipped files        1\n" in told
    assert f"{tmp_path}/train/dog/readme.txt: text or metadata next to images" in told
    assert (tmp_path / "out" / "samples.png").is_file()
    write(tmp_path / "train", {"dog/6.png": b"broken", "dog/7.png": b"broken"})
    assert not inspect(folder(tmp_path / "train", held_out=0.4), tmp_path / "out")
    assert "6.png and 1 more: not an image of the formats" in capsys.readouterr().out


def test_check_data_of_data_that_are_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(Digits([1, 8, 8], 10, 128), tmp_path)
    told = capsys.readouterr().out
    assert "train                1097 items of shape (1, 8, 8)" in told
    assert "broken" not in told


def test_check_data_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check_data(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["inkdrop", "check-data", *arguments])
        try:
            main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return code, told.out, told.err

    write(tmp_path / "images", sound("a"))
    out, options = f"{tmp_path}/out", ["data=image_folder", f"data.path={tmp_path}/images"]
    code, told, _ = check_data(*options, f"--output={out}", "data.batch_size=4")
    assert code == 0
    assert f"{out}/samples.png" in told
    assert check_data("--output", out, *options)[0] == 3  # fewer than a batch, and reported all the same
    write(tmp_path / "images", {"a/x.png": b"broken"})
    code, told, _ = check_data(*options, "data.batch_size=4", "--output", out)
    assert code == 3
    assert "a/x.png: not an image of the formats" in told
    assert Path(out, "items.txt").read_text().startswith(f"broken\t{tmp_path}/images/a/x.png\t")
    for wrong, message in (
        ([*options, "+data.bach_size=4"], "did you mean batch_size"),
        (["data=nothing"], "Could not find 'data/nothing'"),
        (["data=image_folder"], "data.path is needed and has no default: add data.path=..."),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ):
        code, _, error = check_data(*wrong)
        assert code == 2
        assert message in error
    monkeypatch.setenv("INKDROP_DATA_DIR", str(tmp_path))
    code, _, error = check_data("data=mnist")
    assert code == 3
    assert error.startswith("error: ")


@pytest.mark.slow
@pytest.mark.skipif(
    not (data_dir() / "cifar10-jpeg-train.zip").is_file(), reason="INKDROP_DATA_DIR has no CIFAR-10-JPEG"
)
def test_cifar10_as_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All names, and every 25th image of each class."""
    for split, count in (("train", 5000), ("test", 1000)):
        with zipfile.ZipFile(data_dir() / f"cifar10-jpeg-{split}.zip") as whole:
            names = [name for name in whole.namelist() if name.endswith(".jpg")]
            assert sorted(Counter(Path(name).parent for name in names).values()) == [count] * 10
            with zipfile.ZipFile(tmp_path / f"cifar10-jpeg-{split}.zip", "w") as few:
                for name in names[::25]:
                    few.writestr(name, whole.read(name))
    monkeypatch.chdir(tmp_path)
    data = build(resolved(configuration("train", "data=cifar10_jpeg", "output_dir=nowhere"))["data"])
    data.verify()
    assert data._places["train"].source.folders()[::9] == ["airplane", "truck"]
    for split, count in (("train", 200), ("validation", 40)):
        assert data.splits[split]["x"].shape == (10 * count, 3, 32, 32)
        assert data.splits[split]["label"].bincount().tolist() == [count] * 10
    mean = data.splits["train"]["x"].double().mean((0, 2, 3)).tolist()
    assert mean == pytest.approx([125.31, 122.95, 113.87], abs=4.0)  # of the originals; the standard error is 1.2
    batch = data.train_dataloader().batch(0)
    raw = data.splits["train"]["x"][data.train_dataloader().order(range(128))]
    mirrored = (batch["x"] != raw).flatten(1).any(1)
    assert torch.equal(batch["x"][mirrored], raw[mirrored].flip(3))
    assert 40 < mirrored.sum() < 90


def test_cifar10_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1 is missing: set data.root or INKDROP_DATA_DIR .* data.download"):
        CIFAR10([3, 32, 32], 10, 128, root=str(tmp_path)).verify()
    CIFAR10([3, 32, 32], 10, 128, root=str(tmp_path), download=True).verify()
    write(tmp_path / "cifar-10-batches-py", dict.fromkeys(CIFAR10.FILES, b"damaged"))
    with pytest.raises(DataError, match=r"CIFAR-10 in .* cannot be read or downloaded"):
        _ = CIFAR10([3, 32, 32], 10, 128, root=str(tmp_path)).splits


def test_cifar10_is_put_into_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    class Fake:
        def __init__(self, root: Path, train: bool, download: bool):
            self.data, self.targets = pixels(int(train), 20 if train else 10, 32, 32, 3), [9, *range(9)] * (1 + train)

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    splits = CIFAR10([3, 32, 32], 10, 4, root=str(tmp_path), download=True).splits
    x = splits["train"]["x"]
    assert (x[torch.arange(20)].permute(0, 2, 3, 1).numpy() == pixels(1, 20, 32, 32, 3)).all()
    assert splits["validation"]["label"][torch.arange(3)].tolist() == [9, 0, 1]


@pytest.mark.parametrize(
    ("sizes", "mode", "shape"),
    [
        ([(96, 64)] * 3, "RGB", [3, 64, 96]),  # as they are
        ([(24, 16)] * 3, "RGB", [3, 16, 24]),
        ([(400, 300)] * 3, "RGB", [3, 72, 96]),
        ([(300, 400), (301, 399), (1000, 900)], "L", [1, 96, 72]),
        ([(100, 75), (75, 100), (90, 90)], "RGB", [3, 96, 96]),
        ([(33, 9)] * 2, "RGB", [3, 8, 32]),
    ],
)
def test_a_shape_of_null_suits_the_images(
    tmp_path: Path, sizes: list[tuple[int, int]], mode: str, shape: list[int]
) -> None:
    for number, size in enumerate(sizes):
        Image.new(mode, size).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert ImageFolder(str(tmp_path), None, 0, 1).shape == shape


def test_a_shape_of_null_sees_photos_as_exif_turns_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (48, 32)).save(tmp_path / "a.jpg", exif=exif)
    assert ImageFolder(str(tmp_path), None, 0, 1).shape == [3, 48, 32]


def test_a_shape_of_null_without_a_sound_image_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"data\.shape"):
        ImageFolder(str(tmp_path), None, 0, 1)
