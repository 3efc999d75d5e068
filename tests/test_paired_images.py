"""Images of a second folder by the names of those of the first: found whatever their suffix, and counted if broken."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import Script
from image_files import SIDE, encoded, folder, pixels, write

from inkdrop.commands.check_data.inspection import inspect
from inkdrop.data import ImageFolder
from inkdrop.data.augmentations import flip
from inkdrop.data.paired import Paired
from inkdrop.errors import DataError

COUNT = 20


def pairs(root: Path, below: str = "", count: int = COUNT) -> Path:
    """Random colours below `clean`, and below `worse` a quarter of their red channel in half as many rows."""
    for number in range(count):
        image = pixels(number, SIDE, SIDE, 3)
        image[:, :, 0] = image[:, :, 0] // 4 * 4
        name = f"{below}{number:02}"
        write(root / "clean", {f"{name}.png": encoded(image)})
        write(root / "worse", {f"{name}.bmp": encoded(np.ascontiguousarray(image[::2, ::2, 0] // 4), "BMP")})
    return root


def data(root: Path, paired: Paired | None = None, **options: Any) -> ImageFolder:
    paired = paired or Paired(str(root / "worse"), [1, SIDE // 2, SIDE // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return folder(root / "clean", paired={"image": paired}, num_classes=0, **options)


def check(split: Any, count: int) -> None:
    """Asserts that each image has its own counterpart."""
    everything = torch.arange(count)
    x, image = split["x"][everything], split["image"][everything]
    assert image.shape == (count, 1, SIDE // 2, SIDE // 2)
    assert torch.equal(image, x[:, :1, ::2, ::2] // 4)


@pytest.mark.parametrize("limit", [2.0, 0.0])
def test_each_image_has_the_counterpart_of_its_name(limit: float, tmp_path: Path) -> None:
    made = data(pairs(tmp_path), memory_limit=limit)
    check(made.splits["train"], 18)
    check(made.splits["validation"], 2)
    batch = made.train_dataloader().batch(3)
    assert torch.equal(batch["image"], batch["x"][:, :1, ::2, ::2] // 4)
    assert isinstance(made.splits["train"]["image"], torch.Tensor) == (limit > 0)
    assert made.fingerprint != folder(tmp_path / "clean", num_classes=0).fingerprint


def test_splits_and_a_separate_validation_have_counterparts_of_their_own(tmp_path: Path) -> None:
    for split, count in (("train/", 8), ("val/", 4)):
        pairs(tmp_path, split, count)
    made = data(tmp_path)
    check(made.splits["train"], 8)
    check(made.splits["validation"], 4)
    shape = [1, SIDE // 2, SIDE // 2]
    both = Paired(str(tmp_path / "worse/train"), shape, str(tmp_path / "worse/val"))
    root, validation = tmp_path / "clean/train", str(tmp_path / "clean/val")
    apart = folder(root, paired={"image": both}, num_classes=0, validation=validation)
    check(apart.splits["validation"], 4)
    alone = Paired(str(tmp_path / "worse/train"), shape)
    with pytest.raises(DataError, match=r"data\.paired\.image\.validation is missing"):
        folder(root, paired={"image": alone}, num_classes=0, validation=validation).load()
    with pytest.raises(DataError, match="has no folder train, which image needs"):
        data(tmp_path, Paired(str(tmp_path / "worse/val"))).load()


@pytest.mark.parametrize("limit", [2.0, 0.0])
def test_missing_and_unreadable_counterparts_are_named_counted_and_left_out(limit: float, tmp_path: Path) -> None:
    pairs(tmp_path)
    (tmp_path / "worse/03.bmp").unlink()
    (tmp_path / "worse/05.bmp").write_bytes(b"nothing")
    write(tmp_path / "worse", {"07.png": (tmp_path / "worse/07.bmp").read_bytes()})
    (tmp_path / "worse/07.png").rename(tmp_path / "worse/07.gif")
    (tmp_path / "clean/09.png").write_bytes(b"nothing")
    found = data(tmp_path).examine()
    assert {path.rpartition("/")[2]: reason for path, reason in found.broken.items()} == {
        "03.png": "is missing, the counterpart of 03.png",
        "05.bmp": "not an image of the formats PNG, JPEG, WEBP, BMP, GIF",
        "07.png": "has several counterparts: 07.bmp, 07.gif",
        "09.png": "not an image of the formats PNG, JPEG, WEBP, BMP, GIF",
    }
    with pytest.raises(DataError, match=r"4 of 20 files in .* are not valid images:\n .*worse/03.png: is missing"):
        data(tmp_path).load()
    with pytest.warns(UserWarning, match="of 20 files in .*: 4 broken and left out"):
        splits = folder(
            tmp_path / "clean",
            paired={"image": Paired(str(tmp_path / "worse"), [1, SIDE // 2, SIDE // 2])},
            num_classes=0,
            max_broken=0.2,
            memory_limit=limit,
        ).splits
    counts = {name: len(split["x"]) for name, split in splits.items()}
    assert sum(counts.values()) == 16
    for name, count in counts.items():
        check(splits[name], count)


def test_an_augmentation_that_would_part_them_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.augment would change x and not the fields of data\.paired"):
        data(pairs(tmp_path), augment=flip)
    with pytest.raises(ValueError, match=r"data\.paired\.label would replace a field"):
        folder(tmp_path / "clean", paired={"label": Paired("worse")}, num_classes=0)
    with pytest.raises(ValueError, match=r"must be \[1 or 3, height, width\]"):
        data(tmp_path, Paired("worse", [2, 8, 8]))


def test_check_data_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path)
    (tmp_path / "worse/03.bmp").unlink()
    assert not inspect(data(tmp_path), tmp_path)
    out = capsys.readouterr().out
    assert "worse/03.png: is missing, the counterpart of 03.png" in out


@pytest.mark.slow
def test_a_run_on_pairs_is_measured_from_its_checkpoint(tmp_path: Path, script: Script) -> None:
    pairs(tmp_path)
    node = f"{{_target_:inkdrop.data.paired.Paired,path:{tmp_path}/worse,shape:[1,16,16]}}"
    options = ["data=image_folder", f"data.path={tmp_path}/clean", "data.num_classes=0", "data.shape=[3,32,32]"]
    options += [f"+data.paired={{image:{node}}}".removeprefix("+"), "data.batch_size=4", "conditioner=image"]
    options += ["guidance=none", "extractor=none", "metric=rmse", "trainer.max_steps=1", "logger=none"]
    options += ["network.base_channels=8", "network.norm_groups=4", "time_grid.num_steps=2", "prediction=v"]
    ended = script("train.py", *options, f"output_dir={tmp_path}/run", "~callbacks.pictures")
    assert ended.code == 0, ended.err
    again = ["num_samples=2", "evaluate=true", f"output_dir={tmp_path}/samples"]
    refused = script("sample.py", f"checkpoint={tmp_path}/run", *again, f"data_folders=[{tmp_path}/clean]")
    assert refused.code != 0
    assert f"{tmp_path}/worse" in refused.err
    ended = script("sample.py", f"checkpoint={tmp_path}/run", *again, f"data_folders=[{tmp_path}]")
    assert ended.code == 0, ended.err
    assert "rmse_2" in ended.out
