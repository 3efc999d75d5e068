"""cascade in sample.py: models that take the samples of the one before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import run, sampled, trained

import inkdrop

SMALL = ["callbacks.pictures=null", "callbacks.evaluate=null"]
TO_8 = [
    "data.derive={image:{_target_:inkdrop.data.degradations.Downscale,factor:2}}",
    "conditioner=image",
    "conditioner.concat_channels=3",
    "conditioner.noise=0.5",
    "guidance=none",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of few steps: `small` draws digits of 4 x 4 from arrays, and `large` enlarges them to 8 x 8."""
    folder = tmp_path_factory.mktemp("cascade")
    trained(folder / "large", *SMALL, *TO_8)
    from inkdrop.data import Digits

    splits = Digits(shape=[1, 8, 8], num_classes=10, batch_size=8).splits
    means = torch.nn.functional.avg_pool2d(splits["train"]["x"][:300].float(), 2).round().to(torch.uint8)
    np.savez(folder / "small.npz", x=means.numpy(), label=splits["train"]["label"][:300].numpy())
    own = ["data=arrays", f"data.path={folder / 'small.npz'}", "data.shape=[1,4,4]", "data.num_classes=10"]
    trained(folder / "small", *SMALL, *own, "+data.fields.label=label", "network.channel_multipliers=[1]")
    return folder


def cascade(folder: Path, *more: str, **options: object) -> list[str]:
    given = "".join(f",{name}:{value}" for name, value in options.items())
    return [f"cascade=[{{checkpoint:{folder / 'large'}{given}}}]", "num_samples=5", "batch_size=2", *more]


@pytest.mark.slow
def test_a_later_stage_takes_the_samples_before_it(runs: Path, tmp_path: Path) -> None:
    both, result = sampled(runs / "small", tmp_path / "both", *cascade(runs, "save_stages=true"))
    first, _ = sampled(runs / "small", tmp_path / "first", "num_samples=5")
    with np.load(tmp_path / "both" / "stages" / "1" / "samples.npz") as file:
        assert np.array_equal(file["x"], first["x"])
        assert np.array_equal(file["label"], first["label"])
    assert both["x"].shape == (5, 8, 8, 1)
    assert (tmp_path / "both" / "stages" / "2" / "grid.png").exists()
    assert result["cascade"][0]["checkpoint"].startswith(str(runs / "large"))
    assert result["network_calls"] == 8
    pipeline = inkdrop.load(runs / "large")
    image = torch.from_numpy(first["x"]).permute(0, 3, 1, 2)
    alone = pipeline(pipeline.request(range(5), image=image), range(5))
    assert not np.array_equal(alone.permute(0, 2, 3, 1).numpy(), both["x"])  # the noise of a later stage is another one
    again, _ = sampled(runs / "small", tmp_path / "again", *cascade(runs, "batch_size=5", batch_size=3))
    assert np.abs(again["x"].astype(int) - both["x"]).max() <= 1


@pytest.mark.slow
def test_stages_have_their_own_options(runs: Path, tmp_path: Path) -> None:
    same, _ = sampled(runs / "small", tmp_path / "same", *cascade(runs))
    noisy, result = sampled(runs / "small", tmp_path / "noisy", *cascade(runs, condition="{image_noise:0.4}"))
    assert not np.array_equal(same["x"], noisy["x"])
    assert result["cascade"][0]["condition"]["image_noise"] == 0.4
    options = {"sampler": "heun", "time_grid": "{num_steps:3}"}
    _, result = sampled(runs / "small", tmp_path / "heun", *cascade(runs, **options))
    assert result["cascade"][0]["sampler"]["time_grid"]["num_steps"] == 3
    assert result["network_calls"] == 4 + 5


@pytest.mark.slow
def test_the_last_stage_is_measured(runs: Path, tmp_path: Path) -> None:
    ways = ["evaluate=true", "metric=rmse", "extractor=none", "num_samples=20"]
    _, alone = sampled(runs / "large", tmp_path / "alone", *ways)
    _, both = sampled(runs / "small", tmp_path / "both", *cascade(runs, *ways))
    assert both["metrics"]["rmse_20"] != alone["metrics"]["rmse_20"]
    assert both["protocol"]["metrics"]["rmse_20"]["hash"] == alone["protocol"]["metrics"]["rmse_20"]["hash"]
    stages = both["protocol"]["sampling"]["cascade"]
    assert len(stages) == 2
    assert all(len(stage["checkpoint"]) == 64 for stage in stages)


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "an option": ({"seed": 3}, "cascade: stage 1 has no option seed (available: checkpoint, weights"),
    "a condition": ({"condition": "{colour:1}"}, "condition.colour is unknown"),
    "a level": ({"condition": "{image_noise:0.9}"}, "condition.image_noise=0.9 must be from 0 to 0.5"),
    "a sampler": ({"sampler": "nothing"}, "Could not find 'sampler/nothing'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_work_is_refused_before_the_folder_exists(name: str, runs: Path, tmp_path: Path) -> None:
    options, words = WRONG[name]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        inkdrop.sample(f"checkpoint={runs / 'small'}", f"output_dir={tmp_path / 'out'}", *cascade(runs, **options))
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_stage_needs_an_image_of_the_size_before_it(runs: Path, tmp_path: Path) -> None:
    first = [f"checkpoint={runs / 'large'}", f"condition.image={tmp_path / 'a.npy'}", f"output_dir={tmp_path / 'out'}"]
    np.save(tmp_path / "a.npy", np.zeros((1, 1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="takes 0 images from the stage before"):
        inkdrop.sample(*first, f"cascade=[{{checkpoint:{runs / 'small'}}}]")
    with pytest.raises(ValueError, match="stage 1 has no checkpoint"):
        inkdrop.sample(*first, "cascade=[{sampler:heun}]")


@pytest.mark.slow
def test_a_text_is_passed_on_to_a_later_stage_that_takes_one(tmp_path: Path) -> None:
    small = [*SMALL, "logger=none", "trainer.max_steps=2", "data.num_scenes=80", "data.num_held_out=16"]
    small += ["network.base_channels=8"]
    run(tmp_path / "first", model=["experiment=imagen", *small])
    run(tmp_path / "second", model=["experiment=imagen_enlarging", *small])
    pipeline = inkdrop.load(tmp_path / "second")
    heard: list[list[str]] = []
    request = type(pipeline).request
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(pipeline),
            "request",
            lambda self, seeds, **given: heard.append(sorted(given)) or request(self, seeds, **given),
        )
        chain = f"cascade=[{{checkpoint:{tmp_path / 'second'}}}]"
        drawn, _ = sampled(
            tmp_path / "first",
            tmp_path / "out",
            chain,
            "num_samples=3",
            "condition.caption=[a red circle,a blue cross]",
        )
    assert drawn["caption"].tolist() == ["a red circle", "a blue cross", "a red circle"]
    assert drawn["x"].shape == (3, 16, 16, 3)
    assert ["caption", "image"] in heard
