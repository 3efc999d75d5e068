"""MNIST, its extractor, and what happens where the files are not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from entry_scripts import completed
from torch import Tensor

from inkdrop.configuration import build
from inkdrop.data import MNIST, collect
from inkdrop.data.augmentations import flip
from inkdrop.errors import DataError
from inkdrop.metrics.fitting import recognised, shifted
from inkdrop.randomness import Generators

needs_data = pytest.mark.skipif(
    not (Path(os.environ.get("INKDROP_DATA_DIR", "data")) / "MNIST" / "raw").is_dir(),
    reason="MNIST is not in INKDROP_DATA_DIR",
)


@needs_data
def test_all_digits_are_there() -> None:
    splits = MNIST([1, 28, 28], 10, 64).splits
    sizes = {name: (tuple(split["x"].shape), len(split["label"])) for name, split in splits.items()}
    assert sizes == {"train": ((60_000, 1, 28, 28), 60_000), "validation": ((10_000, 1, 28, 28), 10_000)}
    # Counts per class as published with the data set.
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert collect(splits["train"])["label"].bincount().tolist() == published


@pytest.mark.slow
@needs_data
def test_smaller_digits_are_means_of_squares() -> None:
    items = torch.arange(100)
    whole = collect(MNIST([1, 28, 28], 10, 64).splits["validation"], items)
    for size in (14, 7):
        small = collect(MNIST([1, size, size], 10, 64).splits["validation"], items)
        squares = whole["x"].float().unflatten(2, (size, -1)).unflatten(4, (size, -1))
        assert torch.equal(small["x"], squares.mean((3, 5)).round().to(torch.uint8))
        assert torch.equal(small["label"], whole["label"])


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.shape=\[1, 8, 8\] must be \[1, 28, 28\], \[1, 14, 14\] or"):
        MNIST([1, 8, 8], 10, 64).verify()


@pytest.mark.slow
@needs_data
def test_the_extractor_knows_the_test_digits() -> None:
    from choices import composed

    split = collect(MNIST([1, 28, 28], 10, 64).splits["validation"], torch.arange(2000))
    model = build(composed(["experiment=mnist"])["extractor"])
    assert recognised(model, split["x"], split["label"]) > 0.99


@needs_data
@pytest.mark.parametrize("seed", [0, 1])
def test_two_ranks_train_on_the_batches_of_one(seed: int) -> None:
    data = MNIST([1, 28, 28], 10, 8, seed=seed)
    whole = data.train_dataloader().batch(3)
    ranks = []
    for rank in (0, 1):
        data._place = lambda rank=rank: (rank, 2)  # type: ignore[method-assign, misc]
        ranks.append(data.train_dataloader().batch(3))
    assert torch.equal(torch.cat([rank["x"] for rank in ranks]), whole["x"])
    assert torch.equal(torch.cat([rank["position"] for rank in ranks]), whole["position"])


@pytest.mark.slow
def test_absent_files_end_with_code_3_the_remedy_and_nothing_created(tmp_path: Path) -> None:
    done = completed("train.py", "experiment=mnist", f"data.root={tmp_path}", f"output_dir={tmp_path}/run")
    assert done.returncode == 3
    assert "INKDROP_DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in MNIST.FILES:
        (tmp_path / "MNIST" / "raw" / name).write_bytes(b"\x00\x00\x08\x03 not what it says")
    with pytest.raises(DataError, match="cannot be read"):
        _ = MNIST([1, 28, 28], 10, 64, root=str(tmp_path)).splits


def images(count: int) -> Tensor:
    return torch.arange(count * 6, dtype=torch.uint8).reshape(count, 1, 2, 3)


def test_a_flip_is_a_matter_of_the_position() -> None:
    batch = {"x": images(40), "label": torch.arange(40)}
    whole = flip(batch, Generators.from_positions(0, range(40)), probability=0.2)
    mirrored = (whole["x"] == batch["x"].flip(3)).flatten(1).all(1)
    kept = (whole["x"] == batch["x"]).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 2 < int(mirrored.sum()) < 15
    assert torch.equal(whole["label"], batch["label"])
    part = flip({"x": batch["x"][20:]}, Generators.from_positions(0, range(20, 40)), probability=0.2)
    assert torch.equal(part["x"], whole["x"][20:])


def test_shifts_move_by_whole_pixels_and_fill_with_0() -> None:
    moved = shifted(images(50) + 1, 1, Generators.from_seeds(range(50)))
    padded = torch.nn.functional.pad(images(50) + 1, (1, 1, 1, 1))
    candidates = torch.stack([padded[:, :, i : i + 2, j : j + 3] for i in range(3) for j in range(3)])
    matches = (candidates == moved).flatten(2).all(2)
    assert matches.any(0).all()
    assert matches.any(1).sum() == 9
    assert torch.equal(shifted(images(3), 0, Generators.from_seeds(range(3))), images(3))


@pytest.mark.slow
def test_an_extractor_is_fitted_by_one_command(tmp_path: Path) -> None:
    output = tmp_path / "new" / "mine.safetensors"
    command = ["-m", "inkdrop", "make-extractor", f"output={output}", "num_steps=150", "lr=5e-3"]
    done = completed(*command)
    assert done.returncode == 0, done.stderr
    assert output.is_file()
    accuracy = float(re.search(r": accuracy ([0-9.]+)%", done.stdout)[1])  # type: ignore[index]
    assert accuracy > 80
    wrong = completed(*command, "+batchsize=3")
    assert wrong.returncode == 2
    assert "batchsize" in wrong.stderr
