"""What sample.py writes: arrays that are data again, and pictures of the way from noise to samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from inkdrop.commands.sample.files import Features, write_neighbours, write_samples, write_trajectory
from inkdrop.data import Arrays
from inkdrop.pictures import Images, Points, Series, View


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def again(folder: Path, **options: str) -> Tensor:
    """The samples in a folder as `data=arrays` reads them."""
    data = Arrays(folder / "samples.npz", {"x": "x"}, None, 0, 2, held_out=0.5, **options)  # type: ignore[arg-type]
    items = torch.cat([split["x"][torch.arange(len(split["x"]))] for split in data.splits.values()])
    assert list(items.shape[1:]) == data.shape
    return items


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize(
    ("view", "samples"),
    [
        (Series(), torch.arange(6 * 3 * 20.0).reshape(6, 3, 20)),
        (Points(), torch.arange(6 * 2.0).reshape(6, 2)),
        (Points(), torch.arange(6 * 2 * 4 * 5.0).reshape(6, 2, 4, 5)),
        (Images(), torch.arange(6 * 3 * 4 * 5).reshape(6, 3, 4, 5).remainder(256).to(torch.uint8)),
    ],
    ids=["series", "points", "grids", "images"],
)
def test_samples_are_data_again_whatever_the_place_of_channels(
    view: View, samples: Tensor, channels: str, tmp_path: Path
) -> None:
    write_samples(tmp_path, view, samples, {}, range(6))
    found = again(tmp_path, channels=channels)
    assert found.dtype == samples.dtype
    assert torch.equal(found.flatten(1).sort(0).values, samples.flatten(1).sort(0).values)


def test_an_array_of_a_user_called_channels_says_nothing(tmp_path: Path) -> None:
    for stated in (np.array("upside down"), np.array(3), np.array(["last"] * 4)):
        np.savez(tmp_path / "samples.npz", x=np.zeros((4, 3, 20), np.float32), channels=stated)
        assert again(tmp_path).shape == (4, 3, 20)
        assert again(tmp_path, channels="last").shape == (4, 20, 3)
    np.savez(tmp_path / "samples.npz", x=np.zeros((4, 3, 20), np.float32), channels=np.array("last"))
    assert again(tmp_path).shape == (4, 20, 3)


@pytest.mark.slow
def test_a_trajectory_of_points_is_a_picture_of_all_for_each_state(tmp_path: Path) -> None:
    states = [torch.randn(12, 2, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    write_trajectory(tmp_path, Points(), states, {}, gif=False, trajectory=True)
    found, (height, width, _) = picture(tmp_path / "trajectory.png"), Points().sheet(states[0]).shape
    assert found.shape[:2] == (2 * height, 5 * width)
    assert np.array_equal(found[:height, :width], Points().sheet(states[0]))
    assert np.array_equal(found[height:, 2 * width : 3 * width], Points().sheet(states[7]))
    assert (found[height:, 3 * width :] == 255).all()


def test_neighbours_of_points_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = torch.randn(9, 2)
    write_neighbours(tmp_path, Points(), samples, Features(samples, samples, samples), samples)
    assert "warning: neighbours.png is not written, because the view" in capsys.readouterr().err
    assert not (tmp_path / "neighbours.png").exists()
