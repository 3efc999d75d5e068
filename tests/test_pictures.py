"""Pictures show what they are given, where they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inkdrop.pictures.sheets import grid, save_gif, save_png, scatter


def test_a_grid_shows_each_image_in_its_place_enlarged_by_a_whole_factor() -> None:
    images = torch.randint(0, 255, (5, 3, 8, 8), dtype=torch.uint8)
    sheet = grid(images, columns=3)
    assert sheet.shape == (2 * 50 + 2, 3 * 50 + 2, 3)
    for i in range(5):
        top, left = 2 + i // 3 * 50, 2 + i % 3 * 50
        enlarged = images[i].permute(1, 2, 0).numpy().repeat(6, 0).repeat(6, 1)
        assert (sheet[top : top + 48, left : left + 48] == enlarged).all()
    assert (sheet[52:, 102:] == 255).all()  # no sixth image


def test_large_images_are_not_enlarged() -> None:
    assert grid(torch.zeros(1, 1, 64, 80, dtype=torch.uint8)).shape == (68, 84, 1)


def test_a_scatter_plot_has_ink_where_the_points_are() -> None:
    corner, spread = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.rand(3000, 2)
    few, many = (255 - scatter(points).astype(int).min(2) for points in (corner, spread))
    assert (many > 100).mean() > 3 * (few > 100).mean()


def test_columns_of_unlike_units_fill_the_plot() -> None:
    points = torch.rand(500, 2) * torch.tensor([1e-3, 80.0])
    ink = (255 - scatter(points).astype(int).min(2))[60:440, 60:440] > 60
    assert ink.any(1).mean() > 0.8
    assert ink.any(0).mean() > 0.8


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    picture = np.arange(0, 192, dtype=np.uint8).reshape(8, 8, 3)
    save_png(picture, tmp_path / "new" / "a.png")
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert (np.asarray(image) == picture).all()
    frames = [np.full((8, 8, 1), level, np.uint8) for level in (0, 100, 200)]
    save_gif(frames, tmp_path / "a.gif", seconds=3)
    with Image.open(tmp_path / "a.gif") as image:
        durations = []
        for i in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(i)
            assert np.asarray(image.convert("L")).mean() == pytest.approx(100 * i, abs=2)
            durations.append(image.info["duration"])
    assert durations == [1000, 1000, 1000]
