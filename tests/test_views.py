"""Views: what is drawn of data of each kind, what is written of them, and where a run gets its view."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from entry_scripts import Script
from image_files import folder
from PIL import Image
from runs import POINTS, SHORT
from torch import Tensor

import inkdrop
from inkdrop.commands.check_data.inspection import check_data
from inkdrop.data.loaders import collect
from inkdrop.files.texts import encoded
from inkdrop.pictures import Automatic, Images, Points, Series, View
from inkdrop.pictures.sheets import scatter

LEGEND = 28  # pixels above the panels
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)  # of the first two channels
CHOSEN: dict[str, tuple[Tensor, View]] = {
    "images": (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), Images()),
    "real images": (torch.rand(2, 3, 4, 4), Points()),
    "images of five channels": (torch.zeros(2, 5, 4, 4, dtype=torch.uint8), Points()),
    "points": (torch.rand(2, 2), Points()),
    "levels": (torch.zeros(2, 5, dtype=torch.uint8), Points()),
    "series": (torch.rand(2, 3, 5), Series()),
}


@pytest.mark.parametrize(("data", "view"), CHOSEN.values(), ids=CHOSEN.keys())
def test_type_and_shape_choose_the_view(data: Tensor, view: View) -> None:
    assert np.array_equal(Automatic().sheet(data), view.sheet(data))
    assert np.array_equal(Automatic().frames([data, data])[1], view.frames([data, data])[1])
    assert np.array_equal(Automatic().array(data), view.array(data))
    assert Automatic().files(data, {}, range(2)) == view.files(data, {}, range(2))
    rows, expected = Automatic().rows([data, data[:1]]), view.rows([data, data[:1]])
    assert (rows is None) == (expected is None) == isinstance(view, Points)
    assert expected is None or np.array_equal(rows, expected)


def test_each_group_of_images_has_a_row_of_its_own() -> None:
    images = torch.arange(6, dtype=torch.uint8).mul(10).reshape(6, 1, 1, 1).expand(6, 1, 48, 48)
    picture = Images().rows([images[1::2][:2], images[::2][:2]])
    assert picture[2 + 25 :: 50, 2 + 25 :: 50, 0].tolist() == [[10, 30], [0, 20]]
    uneven = Images().rows([images[1:2], images[:3:2]])
    assert uneven[2 + 25 :: 50, 2 + 25 :: 50, 0].tolist() == [[10, 255], [0, 20]]


def test_points_are_the_plot_of_before() -> None:
    points = torch.rand(50, 2)
    assert np.array_equal(Points().sheet(points), scatter(points))


def curve(picture: np.ndarray, colour: tuple[int, int, int], panels: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Columns and heights of the pixels of a colour in each of the panels beside each other, below the legend."""
    inked = (np.abs(picture.astype(int) - colour).max(2) < 60)[LEGEND:]
    parts = np.array_split(inked, panels, 1)
    return [(np.nonzero(part)[1], -np.nonzero(part)[0]) for part in parts]


def height(points: tuple[np.ndarray, np.ndarray]) -> int:
    return int(np.ptp(points[1]))


def test_a_series_is_a_curve_over_its_steps() -> None:
    """One channel rises to half the range and another one falls through all of it."""
    steps = torch.linspace(0, 1, 30)
    picture = Series().sheet(torch.stack([steps / 2, 1 - steps])[None])
    (rising,), (falling,) = curve(picture, BLUE), curve(picture, ORANGE)
    for (x, y), slope in ((rising, 1), (falling, -1)):
        assert np.corrcoef(x, y)[0, 1] * slope > 0.99
        assert np.ptp(x) > 0.7 * picture.shape[1]
    assert height(rising) == pytest.approx(height(falling) / 2, abs=4)
    point = Series().sheet(torch.tensor([[[0.0]], [[1.0]]]))
    assert all(5 < len(x) < 100 for x, _ in curve(point, BLUE, 2))  # a dot each


def test_all_panels_and_frames_have_one_axis() -> None:
    waves = torch.sin(torch.arange(40.0)).repeat(2, 1, 1)
    waves[1] *= 0.1
    large, small = map(height, curve(Series().sheet(waves, columns=2), BLUE, 2))
    assert small == pytest.approx(0.1 * large, abs=4)
    frames = Series().frames([waves[1:], waves[:1]])
    assert frames[0].shape == frames[1].shape
    small, large = (height(curve(frame, BLUE)[0]) for frame in frames)
    assert small == pytest.approx(0.1 * large, abs=4)


def test_channels_of_unlike_ranges_are_all_seen() -> None:
    wave = torch.sin(torch.arange(40.0))
    unlike, like = (
        Series().sheet(torch.stack([scale * wave, wave.roll(3)]).repeat(3, 1, 1), columns=3) for scale in (5000, 5)
    )
    (large,), (small,) = curve(unlike, BLUE), curve(unlike, ORANGE)
    assert height(small) == pytest.approx(height(large), abs=8)
    assert height(curve(like, ORANGE)[0]) < 0.3 * height(curve(like, BLUE)[0])


def test_a_series_that_is_missing_from_its_row_leaves_its_place_empty() -> None:
    waves = torch.sin(torch.arange(40.0)).repeat(4, 1, 1)
    picture = Series().rows([waves[:3], waves[3:]])
    inked = (np.abs(picture.astype(int) - BLUE).max(2) < 60)[LEGEND:]
    third = inked.shape[1] // 3
    there = [
        [bool(row[:, n * third + third // 3 :][:, : third // 2].any()) for n in range(3)]
        for row in np.array_split(inked, 2)
    ]
    assert there == [[True, True, True], [True, False, False]]


BATCH = {
    "label": torch.tensor([1, 0]),
    "size": torch.tensor([[0.5, math.nan], [1.0, 2.0]]),
    "image": torch.ones(2, 1, 9, 9),
}


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_points_and_series_are_written_as_a_table(tmp_path: Path) -> None:
    Points().write(tmp_path / "points", torch.tensor([[1.5, 2.0, 3.0], [-4.0, 5.0, 6.0]]), BATCH, [7, 8], ["a", "=b"])
    assert table(tmp_path / "points" / "samples.csv") == [
        ["seed", "label", "size_0", "size_1", "x_0", "x_1", "x_2"],
        ["7", "'=b", "0.5", "", "1.5", "2.0", "3.0"],  # a text that no spreadsheet computes
        ["8", "a", "1.0", "2.0", "-4.0", "5.0", "6.0"],
    ]
    Series().write(tmp_path, torch.arange(8).reshape(2, 2, 2), {}, [7, 8])
    assert table(tmp_path / "samples.csv") == [
        ["seed", "step", "channel_0", "channel_1"],
        *[["7", "0", "0", "2"], ["7", "1", "1", "3"], ["8", "0", "4", "6"], ["8", "1", "5", "7"]],
    ]
    assert Series().files(torch.zeros(2, 2, 2), {}, [7, 8]) == ["samples.csv"]


def test_images_are_written_with_a_table_and_read_again_as_data(tmp_path: Path) -> None:
    images, labels = torch.randint(0, 255, (20, 3, 8, 8), dtype=torch.uint8), torch.arange(20) % 2
    batch = {"label": labels, "size": torch.arange(20) / 4, "image": torch.ones(20, 1, 9, 9)}
    batch["origin"] = encoded(["a", '"é"'] * 10)
    Images().write(tmp_path, images, batch, range(3, 23), ["cat", "polar bear"])
    written = Images().files(images[:1], batch, range(3, 23), ["cat", "polar bear"])
    assert {tmp_path / name for name in written} == {*(tmp_path / "images").iterdir()}
    lines = [json.loads(line) for line in (tmp_path / "images" / "metadata.jsonl").read_text().splitlines()]
    assert lines[1] == {
        "file_name": "000004-polar_bear.png",
        "seed": 4,
        "label": "polar bear",
        "size": 0.25,
        "origin": '"é"',
    }
    data = folder(tmp_path / "images", shape=[3, 8, 8])
    with pytest.warns(UserWarning, match="the columns seed, size, origin are not used"):
        train = collect(data.splits["train"])
    assert data.classes == ["cat", "polar bear"]
    for image, label in zip(train["x"], train["label"], strict=True):
        (same,) = (images == image).all((1, 2, 3)).nonzero()
        assert labels[same].item() == label


@pytest.mark.parametrize(("view", "data"), [(Images(), torch.rand(2, 2)), (Series(), CHOSEN["images"][0])])
def test_a_view_that_does_not_show_the_data_says_so(view: View, data: Tensor) -> None:
    name = type(view).__name__.lower()
    words = rf"view={name} shows .*\(C, .*but the data are of shape \[.*choose another view, or leave the option out"
    with pytest.raises(ValueError, match=words):
        view.check(data)
    for each in (Automatic(), Points()):
        each.check(data)


def test_a_view_that_does_not_suit_the_run_is_refused_before_its_folder_exists(script: Script) -> None:
    ended = script("train.py", *POINTS, "view=images", "output_dir=run")
    assert ended.code == 2
    assert (
        "view=images shows uint8 images (C, H, W) of one or three channels, but the data are of shape [2]" in ended.err
    )
    assert not (Path("run") / "config.yaml").exists()


NETWORK = ["network=unet_1d", "network.base_channels=8", "network.norm_groups=4", "network.channel_multipliers=[1,2]"]
SERIES = [
    *("data=arrays", "data.path=series.npz", "+data.fields.label=kind", "codec=standardize_channels", *NETWORK),
    *("network.num_blocks=1", "guidance=none", "prediction=v", "data.batch_size=16", "logger=none"),
    *("callbacks.pictures.num_samples=4", "time_grid.num_steps=3", "trainer.max_steps=2", "scheduler.num_steps=2"),
    *("callbacks.evaluate=null", "extractor=identity", "extractor.dim=32", "output_dir=run"),
]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def write_series() -> None:
    waves = np.random.default_rng(0).normal(size=(60, 2, 16)).cumsum(2)
    np.savez("series.npz", x=waves, kind=np.arange(60) % 3)


@pytest.mark.slow
def test_a_run_on_series_draws_curves_everywhere(script: Script) -> None:
    """Pictures in training, the grid, the trajectory, the GIF, the table, and data again."""
    write_series()
    ended = script("train.py", *SERIES)
    assert ended.code == 0, ended.err
    pipeline = inkdrop.load("run")
    seeds, drawn = range(4), picture(Path("run/pictures/samples-00000002.png"))
    batch = pipeline.request(seeds)
    assert np.array_equal(drawn, Series().sheet(pipeline(batch, seeds), batch, columns=10))
    wanted = [f"save_{name}=true" for name in ("images", "gif", "trajectory")]
    ended = script("sample.py", "checkpoint=run", "num_samples=6", "batch_size=4", *wanted, "output_dir=out")
    assert ended.code == 0, ended.err
    with np.load("out/samples.npz") as file:
        x, label = torch.from_numpy(file["x"]), file["label"].tolist()
    assert x.shape == (6, 2, 16)
    rows = Series().rows([x[[i for i in range(6) if label[i] == each]] for each in range(3)])
    assert np.array_equal(picture(Path("out/grid.png")), rows)
    with Image.open("out/denoising.gif") as gif:
        assert gif.n_frames == 3  # type: ignore[attr-defined]
    assert picture(Path("out/trajectory.png")).ndim == 3
    assert len(table(Path("out/samples.csv"))) == 1 + 6 * 16
    again = [option for option in SERIES if option not in ("data.path=series.npz", "+data.fields.label=kind")]
    short = ["data.path=out/samples.npz", "+data.fields.label=label", "data.batch_size=4", "output_dir=again"]
    ended = script("train.py", *again, *short)
    assert ended.code == 0, ended.err


@pytest.mark.slow
def test_a_run_keeps_its_view_and_its_samples_may_have_another(script: Script) -> None:
    write_series()
    ended = script("train.py", *SERIES, "view=points")
    assert ended.code == 0, ended.err
    content = torch.load(next(Path("run/checkpoints").glob("*.ckpt")), weights_only=True)
    assert content["config"]["pipeline"]["view"] == {"_target_": "inkdrop.pictures.Points"}
    seeds = range(6)
    x = inkdrop.load("run")(inkdrop.load("run").request(seeds), seeds)
    sizes = {}
    for name, options in {"kept": [], "chosen": ["view=series"]}.items():
        ended = script("sample.py", "checkpoint=run", "num_samples=6", f"output_dir={name}", *options)
        assert ended.code == 0, ended.err
        sizes[name] = picture(Path(name) / "grid.png").shape
    assert sizes["kept"] == scatter(x).shape != sizes["chosen"]
    ended = script("sample.py", "checkpoint=run", "num_samples=6", "output_dir=wrong", "view=images")
    assert ended.code == 2
    assert "but the data are of shape [2, 16] in float32" in ended.err
    ended = script("train.py", *SERIES, "view=series", "trainer.max_steps=3", "resume_allow=[trainer.max_steps]")
    assert ended.code == 0, ended.err  # what is shown may change


@pytest.mark.slow
def test_samples_of_images_are_data(script: Script) -> None:
    """samples.npz as it is, with its labels."""
    small = ["network.base_channels=4", "network.norm_groups=2", "network.num_blocks=1", "time_grid.num_steps=1"]
    off = ["callbacks.pictures=null", "callbacks.evaluate=null", "logger=none", "guidance=none"]
    ended = script("train.py", *small, *off, *SHORT, "data.batch_size=16", "output_dir=run")
    assert ended.code == 0, ended.err
    ended = script("sample.py", "checkpoint=run", "num_samples=20", "output_dir=out")
    assert ended.code == 0, ended.err
    made = ["data=arrays", "data.path=out/samples.npz", "+data.fields.label=label", "data.batch_size=4"]
    ended = script("train.py", *small, *off, *SHORT, *made, "output_dir=again")
    assert ended.code == 0, ended.err
    assert inkdrop.load("again").shape == (1, 8, 8)


@pytest.mark.slow
def test_check_data_draws_by_the_view(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(60, 2, 16)))
    data = ["data=arrays", f"data.path={tmp_path / 'x.npz'}", "data.batch_size=8"]
    check_data(data, tmp_path / "found")
    check_data([*data, "view=points"], tmp_path / "named")
    found, named = (picture(tmp_path / name / "samples.png") for name in ("found", "named"))
    assert named.shape == scatter(torch.rand(2, 2)).shape != found.shape
    with pytest.raises(ValueError, match="view=images shows"):
        check_data([*data, "view=images"], tmp_path / "wrong")
