"""Data of one's own: everything that does not fit is told by the first command, and what it advises trains."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from entry_scripts import Script
from PIL import Image

COMMAND = "these options fit: "
SHORT = ["trainer.max_steps=1", "callbacks.pictures=null", "time_grid.num_steps=2", "logger=none"]


def photos(folder: Path) -> list[str]:
    folder /= "my photos=1"
    folder.mkdir()
    for number in range(40):
        Image.new("RGB", (24, 16), (number, 100, 5 * number)).save(folder / f"{number}.png")
    return ["data=image_folder", f"data.path='{folder}'", "data.num_classes=0"]


def array(folder: Path, *shape: int, labels: bool = False) -> list[str]:
    x = np.random.default_rng(0).normal(size=shape)
    np.savez(folder / "x.npz", x=x, label=np.arange(len(x)) % 3)
    return ["data=arrays", f"data.path={folder}/x.npz", *(["+data.fields.label=label"] if labels else [])]


# How the data are made and named, and the words of all that does not fit.
KINDS = {
    "photos": (photos, ["conditioner.num_classes=0", "extractor.weights=digits.safetensors"]),
    "photos of a mlp": (
        lambda folder: [*photos(folder), "network=mlp"],
        ["network.shape=[3, 16, 24]", "conditioner.num_classes=0", "extractor.weights=digits.safetensors"],
    ),
    "series": (
        lambda folder: array(folder, 300, 2, 50),
        ["conditioner.num_classes=0", "codec=standardize_channels", "extractor.shape=[2, 50]"],
    ),
    "series without evaluation": (
        lambda folder: [*array(folder, 300, 2, 50), "metric=none", "extractor=none"],
        ["conditioner.num_classes=0", "codec=standardize_channels", "metric=none extractor=none"],
    ),
    "table without metrics": (
        lambda folder: [*array(folder, 200, 8), "metric=none"],
        ["network.shape=[8]", "codec=standardize_channels", "extractor.shape=[8]", " extractor=none"],
    ),
    "few labelled points": (
        lambda folder: array(folder, 50, 4, labels=True),
        ["network.shape=[4]", "codec=standardize_channels", "extractor.shape=[4]"],
    ),
    "voxels": (
        lambda folder: array(folder, 150, 1, 4, 4, 4),
        ["conditioner.num_classes=0", "codec=standardize_channels", "extractor.shape=[1, 4, 4, 4]"],
    ),
}


@pytest.mark.many
@pytest.mark.parametrize("kind", KINDS)
def test_all_that_does_not_fit_is_told_with_options_that_train(kind: str, tmp_path: Path, script: Script) -> None:
    make, words = KINDS[kind]
    first = script("train.py", *make(tmp_path), f"output_dir={tmp_path}/run", *SHORT)
    assert first.code == 2
    assert not (tmp_path / "run").exists()
    for word in words:
        assert word in first.err
    advice = next(line for line in first.err.splitlines() if line.startswith(COMMAND))
    second = script("train.py", *shlex.split(advice.removeprefix(COMMAND))[2:])
    assert second.code in (0, None), second.err
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(
    "typed", [["network.base_channels=-1"], ["data.shape=[1,9,9]"], ["experiment=moons", "network.width=0"]]
)
def test_a_value_that_was_typed_is_told_alone(typed: list[str], script: Script) -> None:
    ended = script("train.py", *typed)
    assert ended.code == 2
    assert COMMAND not in ended.err
    assert "also" not in ended.err


def test_data_that_are_absent_are_told_alone(script: Script) -> None:
    ended = script("train.py", "data=arrays", "data.path=nowhere.npy")
    assert (ended.code, ended.err) == (
        3,
        "error: nowhere.npy is missing: set data.path to a file or folder that exists\n",
    )


def test_no_steps_say_what_was_not_looked_at(script: Script) -> None:
    ended = script("train.py", "trainer.max_steps=0")
    assert ended.code in (0, None)
    assert "the data are not read" in ended.err
