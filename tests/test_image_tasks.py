"""The experiments of image tasks from the command line, each with few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from runs import sampled

import inkdrop
from inkdrop.commands.sample.files import write_inputs
from inkdrop.pictures import Automatic

SHORT = [
    *("trainer.max_steps=3", "scheduler.num_steps=3", "network.base_channels=8", "network.norm_groups=4"),
    *("callbacks.pictures=null", "callbacks.evaluate=null", "logger=none", "data.batch_size=8"),
]
SCENES = ["data.num_scenes=40", "data.num_held_out=6"]
TASKS: dict[str, tuple[list[str], list[str]]] = {
    "inpainting": ([], ["metric=psnr", "metric.psnr.mask_field=mask"]),
    "super_resolution": (SCENES, ["metric=consistency"]),
    "colourization": (SCENES, ["metric=psnr"]),
    "edges": (SCENES, []),
    "jpeg": (SCENES, ["metric=psnr"]),
    "segmentation": (SCENES, ["metric=iou"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_samples_and_is_measured(name: str, tmp_path: Path) -> None:
    options, measured = TASKS[name]
    inkdrop.train(f"experiment={name}", *SHORT, *options, f"output_dir={tmp_path / 'run'}")
    few = ["evaluate=true", "extractor=none", "time_grid.num_steps=2", "per_item=2", "num_samples=12"]
    found, result = sampled(tmp_path / "run", tmp_path / "samples", *few, *measured)
    (metric,) = {key for key in result["metrics"] if "_best_12" in key and "baseline" not in key} or {"consistency_12"}
    assert np.isfinite(result["metrics"][metric])
    assert result["protocol"]["measurement"]["per_item"] == 2
    with PIL.Image.open(tmp_path / "samples" / "inputs.png") as picture:
        assert picture.size[1] > picture.size[0]  # eight rows of an image and its sample
    assert len(found["x"]) == 12
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 3


def test_a_field_that_does_not_suit_the_conditioner_is_an_error(tmp_path: Path) -> None:
    options = [*SHORT, *SCENES, f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ValueError, match=r"image has the shape \[1, 16, 16\], but must have 3 channels"):
        inkdrop.train("experiment=segmentation", "conditioner.concat_channels=4", *options)


@pytest.mark.slow
def test_the_judge_of_scenes_has_the_style_of_the_data(tmp_path: Path) -> None:
    inkdrop.train("experiment=colourization", "data.style=pastel", *SHORT, *SCENES, f"output_dir={tmp_path / 'run'}")
    few = ["evaluate=true", "extractor=none", "metric=scene_judge", "time_grid.num_steps=2", "num_samples=6"]
    for options, style in (([], "pastel"), (["metric.scene_judge.style=bright"], "bright")):
        _, result = sampled(tmp_path / "run", tmp_path / style, *few, *options)
        assert result["protocol"]["metrics"]["scene_all_6"]["style"] == style


def test_inputs_are_shown_at_the_size_of_their_samples(tmp_path: Path) -> None:
    samples = torch.full((3, 3, 4, 4), 200, dtype=torch.uint8)
    grey, small = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.ones(3, 3, 2, 2)  # 0, and 255 as a float
    write_inputs(tmp_path, Automatic(), samples, {"grey": grey, "small": small})
    with PIL.Image.open(tmp_path / "inputs.png") as picture:
        pixels = np.asarray(picture)
    assert {0, 200, 255} <= set(np.unique(pixels))
    (tmp_path / "inputs.png").unlink()
    write_inputs(tmp_path, Automatic(), samples, {})
    write_inputs(tmp_path, Automatic(), samples.float(), {"grey": grey})
    assert not (tmp_path / "inputs.png").exists()


def test_several_samples_of_an_item_need_an_evaluation(tmp_path: Path) -> None:
    inkdrop.train(
        "experiment=moons",
        "trainer.max_steps=1",
        "scheduler.num_steps=1",
        *SHORT[4:7],
        f"output_dir={tmp_path / 'run'}",
    )
    with pytest.raises(ValueError, match="per_item has no effect without an evaluation"):
        inkdrop.sample(f"checkpoint={tmp_path / 'run'}", "per_item=2", f"output_dir={tmp_path / 'out'}")
