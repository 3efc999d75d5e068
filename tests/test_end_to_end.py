"""train.py and sample.py as a user runs them, small."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import ROOT, Script, completed
from peers import diffusers_small
from PIL import Image
from runs import TINY, arrays_of, points, sampled, trained

import inkdrop
from inkdrop.checkpoints import find_checkpoint
from inkdrop.commands.describe.facts import describe
from inkdrop.data import Digits
from inkdrop.errors import CheckpointError
from inkdrop.networks import UNet
from inkdrop.networks.diffusers_format import to_diffusers

# train.py where W&B is not installed; inkdrop is not imported yet.
WITHOUT_WANDB = """
import runpy, sys
assert not any(name.startswith("inkdrop") for name in sys.modules)
for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
    del sys.modules[name]
sys.modules["wandb"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run within the process of the tests."""
    folder = tmp_path_factory.mktemp("within") / "run"
    trained(folder)
    return folder


@pytest.mark.slow
def test_a_run_leaves_what_is_promised_and_tells_what_to_try(tmp_path: Path) -> None:
    """train.py itself, with W&B but without a key; afresh, as what is said at the start is tested."""
    run = tmp_path / "run"
    done = completed("train.py", *TINY, f"output_dir={run}", fresh=True, WANDB_MODE=None, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 6
    assert result["seed"] == 0
    assert {"fd_digits_20", "fd_digits_20_floor", "validation/loss", "train/loss"} <= set(result["metrics"])
    assert result["metrics"]["fd_digits_20"] > result["metrics"]["fd_digits_20_floor"] > 0
    assert result["versions"]["torch"] == torch.__version__.split("+")[0]
    assert Path(result["checkpoint"]).is_file()
    assert result["seconds"] > 0
    assert result["flops"] > 1e5
    assert result["flops"] % (6 * 16) == 0  # steps of so many samples
    assert "git_commit" in result
    assert picture(run / "pictures" / "samples-00000006.png").shape == (2 * 50 + 2, 10 * 50 + 2)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "validation/loss", "train/gradient_norm", "train/samples_per_second", "fd_digits_20"} <= {
        name for line in lines for name in line
    }
    assert "loss_by_t/0.00-0.10" not in (run / "config.yaml").read_text()
    assert "num_timesteps: 1000" in (run / "config.yaml").read_text()
    terminal = done.stdout + done.stderr
    assert f"python sample.py checkpoint={run}" in terminal
    assert terminal.count("W&B: logging offline without an API key") == 1
    assert "Warning" not in terminal
    assert "litlogger" not in terminal
    assert "Traceback" not in terminal
    assert list(run.glob("wandb/offline-run-*"))


@pytest.mark.slow
def test_sample_script_follows_its_contract(run: Path, tmp_path: Path) -> None:
    done = completed(
        "sample.py",
        f"checkpoint={run}",
        "num_samples=10",
        "batch_size=4",
        "seed=3",
        "condition.label=7",
        "sampler=ddim",
        "time_grid.num_steps=5",
        "save_images=true",
        "save_gif=true",
        f"output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    arrays = arrays_of(tmp_path / "out")
    assert arrays["x"].shape == (10, 8, 8, 1)
    assert arrays["x"].dtype == np.uint8
    assert arrays["seeds"].tolist() == list(range(3, 13))
    assert arrays["label"].tolist() == [7] * 10
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["network_calls"] == 5
    assert result["samples_per_second"] > 0
    assert picture(tmp_path / "out" / "grid.png").shape == (3 * 50 + 2, 4 * 50 + 2)
    first = picture(tmp_path / "out" / "images" / "000003.png")
    assert (first == arrays["x"][0, :, :, 0]).all()
    with Image.open(tmp_path / "out" / "denoising.gif") as gif:
        assert gif.n_frames == 5  # type: ignore[attr-defined]


@pytest.mark.slow
def test_images_of_an_unfinished_run_are_replaced_and_others_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = [f"checkpoint={run}", "num_samples=2", "time_grid.num_steps=2", "save_images=true", f"output_dir={out}"]
    (out / "images").mkdir(parents=True)
    (out / "images" / "000001.png").write_text("half")
    done = completed("sample.py", *options)
    assert done.returncode == 0, done.stderr
    assert picture(out / "images" / "000001.png").shape == (8, 8)
    (out / "result.json").unlink()
    done = completed("sample.py", *options, "seed=1")
    assert done.returncode == 2
    assert "000000.png is not one of these samples: choose a new folder" in done.stderr
    assert sorted(file.name for file in (out / "images").iterdir()) == ["000000.png", "000001.png", "metadata.jsonl"]


def test_pictures_show_samples_beside_what_they_come_from(run: Path, tmp_path: Path) -> None:
    wanted = [f"save_{name}=true" for name in ("trajectory", "neighbours", "features")]
    done = completed("sample.py", f"checkpoint={run}", *wanted, f"output_dir={tmp_path / 'refused'}")
    assert done.returncode == 2
    assert "save_neighbours has no effect without an evaluation: set evaluate=true" in done.stderr
    arrays, _ = sampled(run, tmp_path / "out", "num_samples=12", "time_grid.num_steps=3", "evaluate=true", *wanted)
    shown = [each.repeat(6, 0).repeat(6, 1) for each in arrays["x"][:8, :, :, 0]]
    trajectory, neighbours = (picture(tmp_path / "out" / f"{name}.png") for name in ("trajectory", "neighbours"))
    assert trajectory.shape == (8 * 50 + 2, 3 * 50 + 2)
    assert neighbours.shape == (8 * 50 + 2, 5 * 50 + 2)
    for row, image in enumerate(shown):
        top = 2 + 50 * row
        assert (trajectory[top : top + 48, 102:150] == image).all()  # the last state is the sample
        assert (neighbours[top : top + 48, 2:50] == image).all()
    assert (tmp_path / "out" / "features.png").exists()
    labels = arrays["label"]
    assert picture(tmp_path / "out" / "grid.png").shape[0] == len(set(labels.tolist())) * 50 + 2  # a row for each class


@pytest.mark.slow
def test_samples_depend_on_seed_and_condition_alone(run: Path, tmp_path: Path) -> None:
    for sampler in ("ddim", "ancestral", "heun"):
        options = [f"sampler={sampler}", "time_grid.num_steps=4", "num_samples=8"]
        whole, _ = sampled(run, tmp_path / f"{sampler}-8", *options, "batch_size=8")
        parts, _ = sampled(run, tmp_path / f"{sampler}-3", *options, "batch_size=3")
        later, _ = sampled(run, tmp_path / f"{sampler}-later", *options, "seed=4", "num_samples=4")
        assert np.abs(whole["x"].astype(int) - parts["x"]).max() <= 1
        assert np.abs(whole["x"][4:].astype(int) - later["x"]).max() <= 1
        assert whole["label"].tolist() == list(range(8))


@pytest.mark.slow
def test_notebooks_get_the_same_pipeline(run: Path, tmp_path: Path) -> None:
    arrays, _ = sampled(run, tmp_path / "s", "num_samples=3", "condition.label=2", "time_grid.num_steps=4")
    pipeline = inkdrop.load(run)
    images = pipeline(pipeline.request(range(3), label=2), range(3))
    assert (images.permute(0, 2, 3, 1).numpy() == arrays["x"]).all()
    raw = inkdrop.load(run, weights="raw")
    name = "denoiser.network.conv_in.weight"
    assert not torch.equal(raw.state_dict()[name], pipeline.state_dict()[name])
    assert torch.equal(inkdrop.load(run, weights="0.997").state_dict()[name], pipeline.state_dict()[name])


@pytest.mark.slow
def test_sampling_is_as_in_the_run_unless_it_is_said(run: Path, tmp_path: Path) -> None:
    own = torch.load(find_checkpoint(run), weights_only=True)["config"]["sampler"]
    _, result = sampled(run, tmp_path / "own", "num_samples=1")
    assert result["sampler"] == own
    _, result = sampled(run, tmp_path / "steps", "num_samples=1", "time_grid.num_steps=3")
    assert result["sampler"] == {**own, "time_grid": {**own["time_grid"], "num_steps": 3}}
    _, result = sampled(run, tmp_path / "heun", "num_samples=1", "sampler=heun")
    assert result["sampler"] == {"_target_": "inkdrop.samplers.heun", "time_grid": own["time_grid"], "up_noise": 1.0}
    _, result = sampled(run, tmp_path / "grid", "num_samples=1", "time_grid=linspace", "time_grid.num_steps=5")
    grid = {"_target_": "inkdrop.time_grids.Linspace", "num_steps": 5}
    assert result["sampler"] == {**own, "time_grid": grid}


def test_a_time_grid_that_does_not_fit_the_run_is_refused_before_anything_exists(run: Path, tmp_path: Path) -> None:
    done = completed("sample.py", f"checkpoint={run}", "time_grid.num_steps=1001", f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 2
    assert "exceeds the number of steps of the schedule in this range" in done.stderr
    assert not (tmp_path / "out").exists()


def test_evaluation_at_sampling_time_equals_that_of_training(run: Path, tmp_path: Path) -> None:
    trained_metrics = json.loads((run / "result.json").read_text())["metrics"]
    _, result = sampled(run, tmp_path / "s", "num_samples=20", "evaluate=true", "time_grid.num_steps=4")
    for name in ("fd_digits_20", "fd_digits_20_floor"):
        assert result["metrics"][name] == pytest.approx(trained_metrics[name], rel=1e-3)


@pytest.mark.slow
def test_repeats_have_seeds_of_their_own_and_tell_mean_interval_and_lowest(run: Path, tmp_path: Path) -> None:
    options = ["num_samples=20", "evaluate=true", "time_grid.num_steps=2"]
    arrays, both = sampled(run, tmp_path / "both", *options, "repeats=2")
    assert arrays["seeds"].tolist() == list(range(40))
    each = [
        sampled(run, tmp_path / str(seed), *options, f"seed={seed}")[1]["metrics"]["fd_digits_20"] for seed in (0, 20)
    ]
    metrics = both["metrics"]
    assert metrics["fd_digits_20"] == pytest.approx(sum(each) / 2, rel=1e-3)
    assert metrics["fd_digits_20_min"] == pytest.approx(min(each), rel=1e-3)
    half = 12.7062 * abs(each[0] - each[1]) / 2  # Student's t of one degree of freedom
    assert metrics["fd_digits_20_high"] - metrics["fd_digits_20"] == pytest.approx(half, rel=0.02)


@pytest.mark.slow
def test_trials_of_a_sweep_share_model_data_and_what_is_known_of_them(
    run: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: (made.append(name), original(*a, **k))[1])

    counted(importlib.import_module("inkdrop.commands.sample.stages"), "restored")
    counted(Digits, "load")
    counted(inkdrop.metrics.panel, "real")
    counted(inkdrop.metrics.evaluation, "trivial_items")
    options = ["num_samples=20", "evaluate=true", "time_grid.num_steps=2,3", "output_dir=sweep"]
    ended = script("sample.py", "-m", f"checkpoint={run}", *options)
    assert ended.code == 0, ended.err
    results = [json.loads(Path(f"sweep/{trial}/result.json").read_text())["metrics"] for trial in range(2)]
    assert made.count("restored") == made.count("load") == made.count("trivial_items") == 1
    assert made.count("real") == 2  # training and held-out items
    for name in ("fd_digits_20_floor", "fd_digits_20_baseline"):
        assert results[0][name] == results[1][name]


@pytest.mark.slow
def test_data_that_are_not_those_of_the_run_are_noticed(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = find_checkpoint(run)
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["data_fingerprint"] == Digits([1, 8, 8], 10, 1).fingerprint
    options = ["num_samples=2", "evaluate=true", "time_grid.num_steps=2"]
    sampled(file, tmp_path / "same", *options)
    assert "fingerprints differ" not in capfd.readouterr().err
    torch.save({**checkpoint, "data_fingerprint": "another"}, tmp_path / "other.ckpt")
    sampled(tmp_path / "other.ckpt", tmp_path / "other", *options)
    assert "fingerprints differ" in capfd.readouterr().err


LEARNED = ["sampler=ancestral", "sampler.deviation._target_=inkdrop.deviations.learned"]
INNER = ["network.network.base_channels=8", "network.network.norm_groups=4"]


@pytest.mark.many
@pytest.mark.parametrize(
    ("overrides", "logged"),
    [
        (["loss=hybrid", "network=learned_variance", *INNER, "prediction=noise", *LEARNED], "fd_digits_20"),
        (["loss=variational", "time_sampler=loss_aware", "time_sampler@time_sampler.law=discrete"], "fd_digits_20"),
        (["loss=learned_uncertainty", "weighting=min_snr", "time_sampler=stratified"], "fd_digits_20"),
        (["denoiser=self_conditioned", "noise=offset", "schedule=zero_terminal_snr"], "fd_digits_20"),
        (
            ["schedule=shifted", "coupling=minibatch_ot", "likelihood=variational", "likelihood.bound.num_steps=5"],
            "bits_per_dim_bound_10_decoder",
        ),
        (
            ["experiment=digits_edm", "prediction=karras", "sampler=heun", "likelihood=ode"],
            "bits_per_dim_ode_10_dequantized",
        ),
        (["data=mixture", "data.weights={digits: 2.0}"], "fd_digits_20"),
        (["network=dit", "denoiser=self_conditioned", "trainer.precision=bf16-mixed"], "fd_digits_20"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_parts_train_and_are_measured_from_the_command_line(overrides: list[str], logged: str, tmp_path: Path) -> None:
    another = any(option.startswith("network=") for option in overrides)
    kept = [option for option in TINY if not (another and option.startswith("network."))]
    folder = tmp_path / "run"
    metrics = trained(folder, "evaluation.num_items=10", *overrides, options=kept)["metrics"]
    assert np.isfinite(metrics[logged])
    _, result = sampled(folder, tmp_path / "samples", "num_samples=3", "time_grid.num_steps=3")
    assert result["num_samples"] == 3


@pytest.mark.slow
def test_several_devices_train_and_sample_as_one(tmp_path: Path) -> None:
    """Training afresh, as Lightning begins the other rank, and as both end."""
    folder, whole = tmp_path / "two", "++trainer.limit_val_batches=1.0"  # else the devices validate on other items
    options = [*TINY, whole, "trainer.devices=2", "logger=none", f"output_dir={folder}"]
    done = completed("train.py", *options, fresh=True)
    assert done.returncode == 0, done.stderr
    trained(tmp_path / "one", whole)
    two, one = (json.loads((tmp_path / each / "result.json").read_text())["metrics"] for each in ("two", "one"))
    for name in ("train/loss", "validation/loss", "fd_digits_20", "fd_digits_20_floor"):
        assert two[name] == pytest.approx(one[name], rel=1e-3), name
    options = ["num_samples=9", "batch_size=2", "time_grid.num_steps=3"]
    further = ["trainer.devices=2", f"output_dir={tmp_path / 's2'}"]
    done = completed("sample.py", f"checkpoint={folder}", *options, *further)
    assert done.returncode == 0, done.stderr
    alone, _ = sampled(folder, tmp_path / "s1", *options)
    assert np.abs(arrays_of(tmp_path / "s2")["x"].astype(int) - alone["x"]).max() <= 1


@pytest.mark.slow
def test_accumulation_gives_the_gradient_of_the_large_batch(tmp_path: Path) -> None:
    large = trained(tmp_path / "large", "data.batch_size=32", "trainer.max_steps=3")
    small = trained(tmp_path / "small", "data.batch_size=8", "trainer.max_steps=3", "trainer.accumulate_grad_batches=4")
    weights = [
        torch.load(result["checkpoint"], weights_only=True)["state_dict"]["pipeline.denoiser.network.conv_in.weight"]
        for result in (large, small)
    ]
    assert torch.allclose(*weights, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_trains_and_samples_nearly_the_same(tmp_path: Path) -> None:
    full, half = points(tmp_path / "full"), points(tmp_path / "half", "trainer.precision=bf16-mixed")
    assert half["validation/loss"] != full["validation/loss"]
    assert half["validation/loss"] == pytest.approx(full["validation/loss"], rel=0.02)
    whole, _ = sampled(tmp_path / "full", tmp_path / "s32", "num_samples=50")
    low, _ = sampled(tmp_path / "full", tmp_path / "s16", "num_samples=50", "trainer.precision=bf16-mixed")
    assert low["x"].dtype == np.float32
    assert 0 < np.abs(low["x"] - whole["x"]).mean() < 0.02


@pytest.mark.parametrize("channels_last", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_convolutions_are_in_the_order_of_memory_that_is_asked_for(
    channels_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, orders = UNet.forward, list[bool]()

    def watched(network: UNet, *arguments: Any, **options: Any) -> Any:
        weights = [weight for weight in network.parameters() if weight.dim() == 4]
        orders.append(all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights))
        return forward(network, *arguments, **options)

    monkeypatch.setattr(UNet, "forward", watched)
    option = f"channels_last={str(channels_last).lower()}"
    few = [*TINY, option, "callbacks.evaluate=null", "callbacks.pictures=null", "trainer.max_steps=1"]
    trained(tmp_path / "run", options=few)
    assert set(orders) == {channels_last}
    describe([*TINY, option], seconds=0)
    assert orders[-1] is channels_last


@pytest.mark.slow
def test_compiled_networks_train_and_sample_the_same(tmp_path: Path) -> None:
    few = ["callbacks.evaluate=null", "callbacks.pictures=null"]  # each compiles the network for its number of samples
    plain, compiled = points(tmp_path / "plain", *few), points(tmp_path / "compiled", *few, "compile=true")
    assert compiled["validation/loss"] == pytest.approx(plain["validation/loss"], rel=1e-4)
    one, _ = sampled(tmp_path / "compiled", tmp_path / "s", "num_samples=4")
    two, _ = sampled(tmp_path / "plain", tmp_path / "c", "num_samples=4", "compile=true")
    assert np.allclose(one["x"], two["x"], atol=1e-3)


@pytest.mark.slow
def test_other_loggers_and_missing_packages(tmp_path: Path) -> None:
    (tmp_path / "without.py").write_text(WITHOUT_WANDB)
    folder = tmp_path / "run"
    options = [*TINY, "logger=[tensorboard,csv]", f"output_dir={folder}"]
    done = completed(str(tmp_path / "without.py"), str(ROOT / "train.py"), *options)
    assert done.returncode == 0, done.stderr
    assert "validation/loss" in next((folder / "csv").glob("metrics.csv")).read_text()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert "samples" in events.Tags()["images"]
    assert "fd_digits_20" in events.Tags()["scalars"]


@pytest.mark.slow
def test_tracking_that_fails_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("the disk of the tracker is full")

    monkeypatch.setattr(wandb, "init", broken)
    with pytest.warns(UserWarning, match="W&B logging has stopped, and the run continues"):
        result = trained(tmp_path / "run", logger="wandb")
    assert result["steps"] == 6


def test_a_server_that_does_not_answer_means_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from inkdrop.loggers.wandb import WandB

    class Wandb:
        @staticmethod
        def login(**kwargs: Any) -> bool:
            return True

        class Settings:
            base_url = "http://127.0.0.1:9"

    assert WandB(str(tmp_path), "project")._mode(Wandb) == "offline"


@pytest.mark.slow
def test_warm_start_begins_with_the_averaged_weights(run: Path, tmp_path: Path) -> None:
    result = trained(tmp_path / "warm", f"init_from={run}", "optimizer.lr=0.0")
    weights = inkdrop.load(run).state_dict()
    for name, value in inkdrop.load(result["checkpoint"], "raw").state_dict().items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.slow
def test_a_published_network_is_where_training_begins(tmp_path: Path) -> None:
    published = diffusers_small(sample_size=8, in_channels=1, out_channels=1)
    published.save_pretrained(tmp_path / "published")
    result = trained(
        tmp_path / "run",
        f"init_from={tmp_path / 'published'}",
        "conditioner=none",
        "network.channel_multipliers=[1,2]",
        "network.scale_shift=false",
        "network.head_dim=8",
        "optimizer.lr=0.0",
    )
    weights = to_diffusers(inkdrop.load(result["checkpoint"]).denoiser.network)  # type: ignore[union-attr]
    for name, value in published.state_dict().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.slow
def test_a_measurement_of_too_few_samples_is_refused_before_training(tmp_path: Path) -> None:
    done = completed("train.py", "evaluation.num_samples=64", "logger=none", f"output_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "64 samples are too few for metric frechet, which needs at least 65" in done.stderr
    assert not list((tmp_path / "run").glob("*.yaml"))


def test_a_finished_run_is_not_overwritten(run: Path) -> None:
    before = (run / "result.json").read_bytes()
    done = completed("train.py", f"output_dir={run}")
    assert done.returncode == 2
    assert "this run was started with another configuration" in done.stderr
    assert (run / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["condition.label=11"], "0 to 9"),
        (["weights=0.5"], "raw, 0.997"),
        (["evaluate=true", "condition.label=1", "num_samples=20"], "remove condition.label"),
        (["evaluate=true", "num_samples=20", "metric=kernel"], "needs at least 1000"),
        (["metric=kernel"], "set evaluate=true"),
        (["evaluate=true", "num_samples=20", "extractor=identity", "extractor.dim=3"], "set extractor.dim=64"),
        (["evaluate=true", "num_samples=1000", "metric=kernel"], "set metric.kernel.subset_size=350"),
        (
            ["evaluate=true", "num_samples=20", "extractor=identity", "extractor.dim=64", "metric=inception_score"],
            "has no classes",
        ),
    ],
)
def test_impossible_requests_are_refused(
    overrides: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sampled(run, tmp_path / "s", *overrides)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_users_own_part_in_a_checkpoint_needs_the_users_word(run: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(next((run / "checkpoints").glob("*.ckpt")), weights_only=True)
    checkpoint["config"]["pipeline"]["codec"] = {"_target_": "analytic.Plain"}
    torch.save(checkpoint, tmp_path / "own.ckpt")
    with pytest.raises(CheckpointError, match="not allowed"):
        inkdrop.load(tmp_path / "own.ckpt")
    options = ["num_samples=2", "time_grid.num_steps=2", "allow_targets=[analytic.]"]
    arrays, _ = sampled(tmp_path / "own.ckpt", tmp_path / "s", *options)
    assert arrays["x"].dtype == np.float32
