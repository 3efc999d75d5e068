"""Snapshots of averages: what they hold, how they survive, and the averages that are made of them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import flip
from entry_scripts import completed
from faulty import FaultyLoss
from lightning.pytorch import Callback
from runs import arrays_of, differing, interrupted, run, sampled
from small_tasks import History, fit, parameters, small_task
from torch import Tensor

import inkdrop
from inkdrop.averaging import gamma_of
from inkdrop.callbacks import EMA, Every
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.checkpoints import CheckpointFolder, read_checkpoint, reconstructed
from inkdrop.checkpoints.content import tensors
from inkdrop.checkpoints.snapshots import MAX_RESIDUAL, find_snapshots
from inkdrop.commands.sample.options import check_average
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit

LENGTHS = "callbacks.ema.lengths=[0.05,0.1]"


def every(steps: int) -> str:
    return f"callbacks.ema.snapshots={{_target_:inkdrop.callbacks.Every,steps:{steps}}}"


def snapshots(folder: Path) -> dict[str, dict[str, Any]]:
    """The content of each snapshot in the index by name; no other file is there."""
    index = json.loads((folder / "snapshots" / "index.json").read_text())["files"]
    names = [entry["name"] for entry in index]
    assert sorted(file.name for file in (folder / "snapshots").iterdir()) == ["index.json", *names]
    return {name: read_checkpoint(folder / "snapshots" / name) for name in names}


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 22 steps on points of the plane, with snapshots after each 4."""
    folder = tmp_path_factory.mktemp("points") / "run"
    run(folder, LENGTHS, every(4), "callbacks.checkpoint.every.steps=11")
    return folder


def profile_sum(history: list[dict[str, Tensor]], length: float) -> dict[str, Tensor]:
    """The average of recorded weights by the integral of the profile over each update."""
    ends = np.arange(len(history) + 1) / len(history)
    shares = np.diff(ends ** (gamma_of(length) + 1))
    return {name: sum(s * w[name].double() for s, w in zip(shares, history, strict=True)) for name in history[0]}  # type: ignore[misc]


@pytest.mark.parametrize(("accumulate", "every_steps"), [(1, 1), (2, 1), (1, 3)])
def test_the_average_of_a_length_is_the_sum_over_all_updates(accumulate: int, every_steps: int, tmp_path: Path) -> None:
    task, history, ema = small_task(), History(), EMA([], every_steps, [0.05, 0.25])
    fit(task, 13, [history, ema], tmp_path, accumulate_grad_batches=accumulate)
    seen = history.weights[every_steps - 1 :: every_steps]
    assert ema.num_updates == len(seen)
    for length in (0.05, 0.25):
        for name, value in profile_sum(seen, length).items():
            assert torch.allclose(ema.averages[f"length:{length}"][name].double(), value, atol=1e-6), name


def test_a_step_that_is_left_out_is_no_update(tmp_path: Path) -> None:
    task, history, ema = small_task(), History(), EMA([0.9], 1, [0.1])
    task.loss, task.guard.max_skipped_steps = FaultyLoss(Uniform(), Unit(), calls=[5], factor=float("nan")), 1
    fit(task, 8, [history, ema], tmp_path)
    assert ema.num_updates == 7
    for name, value in profile_sum(history.weights[:4] + history.weights[5:], 0.1).items():
        assert torch.allclose(ema.averages["length:0.1"][name].double(), value, atol=1e-6), name


def test_the_first_average_of_all_is_sampled(tmp_path: Path) -> None:
    for number, (ema, name) in enumerate([(EMA([0.9], 1, [0.1]), "0.9"), (EMA([], 1, [0.1, 0.05]), "length:0.1")]):
        task, files = small_task(), tmp_path / str(number)
        fit(task, 4, [ema, Checkpoint(Every(steps=4), str(files))], tmp_path)
        with ema.averaged(task):
            assert all(torch.equal(value, ema.averages[name][key]) for key, value in parameters(task).items())
        assert next(iter(read_checkpoint(files / "step-00000004.ckpt")["ema"])) == name


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decays=\[\] and no lengths"):
        EMA([])
    with pytest.raises(ValueError, match=r"set callbacks\.ema\.lengths"):
        EMA([0.9], snapshots=Every(steps=1))


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_snapshots_hold_the_averages_of_their_step_and_all_stay(kind: Any, tmp_path: Path) -> None:
    task, seen = small_task(), {}

    class Watch(History):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            super().on_train_batch_end(trainer, *args)
            seen[trainer.global_step] = {name: value.clone() for name, value in ema.averages["length:0.1"].items()}

    ema = EMA([0.9], 2, [0.1], Every(steps=3), str(tmp_path / "snapshots"), kind)
    fit(task, 11, [ema, Watch()], tmp_path)
    found = snapshots(tmp_path)
    assert list(found) == [f"step-{step:08d}.ckpt" for step in (3, 6, 9, 11)]  # the last at the end
    assert [entry["metrics"]["num_updates"] for entry in find_snapshots(tmp_path)] == [1, 3, 4, 5]
    for content in found.values():
        step = content["global_step"]
        assert list(content["ema"]) == ["length:0.1"]
        for name, value in content["ema"]["length:0.1"].items():
            assert torch.equal(value, seen[step][name].to(getattr(torch, kind))), (step, name)
        counter = content["state_dict"]["pipeline.denoiser.network.counter"]  # a buffer, as it was then
        assert counter == (step - 1 if step < 11 else 11)
        assert not set(content["state_dict"]) & set(content["ema"]["length:0.1"])


def test_nothing_is_stored_before_the_first_update(tmp_path: Path) -> None:
    fit(small_task(), 4, [EMA([], 3, [0.1], Every(steps=1), str(tmp_path / "snapshots"))], tmp_path)
    assert [entry["step"] for entry in find_snapshots(tmp_path)] == [3, 4]


def test_a_checkpoint_is_written_after_the_snapshots_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a run that goes on from it might lack one."""
    written: list[str] = []
    write = CheckpointFolder._write

    def slow(self: CheckpointFolder, content: Any, step: int) -> None:
        if self.path.name == "snapshots":
            time.sleep(0.2)
        write(self, content, step)
        written.append(f"{self.path.name} {step}")

    monkeypatch.setattr(CheckpointFolder, "_write", slow)
    ema = EMA([], 1, [0.1], Every(steps=2), str(tmp_path / "snapshots"))
    fit(small_task(), 4, [ema, Checkpoint(Every(steps=2), str(tmp_path / "checkpoints"))], tmp_path)
    assert written == ["snapshots 2", "checkpoints 2", "snapshots 4", "checkpoints 4"]


@pytest.mark.slow
def test_a_run_with_snapshots_goes_on_to_the_bit(tmp_path: Path) -> None:
    options = [LENGTHS, every(4), "callbacks.ema.every_steps=2"]
    whole = run(tmp_path / "whole", *options)
    assert list(whole["ema"]) == ["0.9", "0.99", "length:0.05", "length:0.1"]
    expected = snapshots(tmp_path / "whole")
    assert len(expected) == 6
    for step in (1, 4, 9, 20):
        folder = interrupted(tmp_path / "whole", step, tmp_path / str(step))
        shutil.copytree(tmp_path / "whole" / "snapshots", folder / "snapshots")  # those after the step too
        assert differing(run(folder, *options), whole) == [], step
        found = snapshots(folder)
        assert found.keys() == expected.keys()
        for name in expected:
            one, other = (dict(tensors([each[name]["state_dict"], each[name]["ema"]])) for each in (found, expected))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one), (step, name)
            assert found[name]["metrics"] == expected[name]["metrics"]


@pytest.mark.slow
def test_snapshots_of_a_future_that_was_left_are_gone(tmp_path: Path) -> None:
    run(tmp_path / "whole", LENGTHS, every(4))
    folder = interrupted(tmp_path / "whole", 9, tmp_path / "9")
    shutil.copytree(tmp_path / "whole" / "snapshots", folder / "snapshots")
    before = (folder / "snapshots" / "step-00000008.ckpt").read_bytes()
    changed = [LENGTHS, every(6), "optimizer.lr=0.0", "trainer.max_steps=13", "scheduler.num_steps=22"]
    run(folder, *changed, "resume_allow=[optimizer.lr,trainer.max_steps,callbacks.ema.snapshots]")
    assert list(snapshots(folder)) == [f"step-{step:08d}.ckpt" for step in (4, 8, 12, 13)]
    assert (folder / "snapshots" / "step-00000008.ckpt").read_bytes() == before


def test_snapshots_of_another_future_are_gone_at_once(tmp_path: Path) -> None:
    """Not only when the next one is written: until then the run may be sampled, or end."""
    fit(small_task(), 4, [EMA([], 1, [0.1], Every(steps=1), str(tmp_path / "snapshots"))], tmp_path)

    class Killed(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fit(small_task(), 9, [EMA([], 1, [0.1], Every(steps=9), str(tmp_path / "snapshots")), Killed()], tmp_path)
    with pytest.raises(CheckpointError, match="is not a run folder with snapshots"):
        find_snapshots(tmp_path)


@pytest.mark.slow
def test_snapshots_without_their_index_are_not_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "whole", LENGTHS, every(4))
    folder = interrupted(tmp_path / "whole", 9, tmp_path / "9")
    shutil.copytree(tmp_path / "whole" / "snapshots", folder / "snapshots")
    (folder / "snapshots" / "index.json").write_text("{")
    with pytest.raises(SystemExit) as stopped:
        run(folder, LENGTHS, every(4))
    assert stopped.value.code == 4
    assert f"{folder / 'snapshots' / 'index.json'} is missing or damaged" in capsys.readouterr().err
    assert len(list((folder / "snapshots").glob("*.ckpt"))) == 6


@pytest.mark.slow
def test_a_length_cannot_join_a_run_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "whole", "callbacks.ema.lengths=[0.1]")
    folder = interrupted(tmp_path / "whole", 9, tmp_path / "9")
    with pytest.raises(SystemExit) as stopped:
        run(folder, LENGTHS, "resume_allow=[callbacks.ema.lengths]")
    assert stopped.value.code == 4
    assert "no average length:0.05" in capsys.readouterr().err


@pytest.mark.slow
def test_a_length_out_of_the_snapshots_is_near_the_one_that_was_kept(tmp_path: Path) -> None:
    """Kept online in another run of the same seed, so that no snapshot has it."""
    errors = {}
    kept = run(tmp_path / "kept", "callbacks.ema.lengths=[0.15,0.05,0.1]")
    raw = kept["state_dict"]
    for spacing in (11, 4, 2):
        run(tmp_path / str(spacing), LENGTHS, every(spacing))
        (average,) = reconstructed(tmp_path / str(spacing), 0.15)["ema"].values()
        average, online = (dict(sorted(each.items())) for each in (average, kept["ema"]["length:0.15"]))
        made, expected, last = (
            torch.cat([values[name].flatten() for name in online]) for values in (average, online, raw)
        )
        errors[spacing] = float((made - expected).norm() / (last - expected).norm())
    assert errors[11] > errors[4] > errors[2]
    assert errors[11] < 0.2
    assert errors[2] < 0.01


@pytest.mark.slow
def test_a_length_that_was_stored_comes_back_as_it_was(points: Path) -> None:
    content = reconstructed(points, 0.1, 12)
    small = pytest.approx(0, abs=1e-6)
    assert content["reconstruction"] == {"length": 0.1, "step": 12, "num_snapshots": 3, "residual": small}
    stored = snapshots(points)["step-00000012.ckpt"]
    for name, value in stored["ema"]["length:0.1"].items():
        assert torch.allclose(content["ema"]["length:0.1"][name], value, atol=1e-6)
    assert content["global_step"] == 12


def test_a_pipeline_of_any_length_is_loaded(points: Path) -> None:
    stored = inkdrop.load(points, weights="length:0.05").state_dict()
    for name, value in inkdrop.load(points, length=0.05).state_dict().items():
        assert torch.allclose(value, stored[name], atol=1e-6), name
    other = inkdrop.load(points, length=0.2, step=12)
    name = "denoiser.network.input.weight"
    assert not torch.allclose(other.state_dict()[name], stored[name], atol=1e-3)
    file = points / "snapshots" / "step-00000012.ckpt"  # a snapshot is a checkpoint without raw weights
    assert torch.equal(
        inkdrop.load(file, "length:0.1").state_dict()[name],
        read_checkpoint(file)["ema"]["length:0.1"][f"pipeline.{name}"],
    )
    with pytest.raises(ValueError, match="exclude each other"):
        inkdrop.load(points, "raw", length=0.1)


def test_a_residual_that_is_large_is_told(points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reconstructed(points, 0.1)["reconstruction"]["residual"] < MAX_RESIDUAL
    assert not capsys.readouterr().err
    residual = reconstructed(points, 0.01)["reconstruction"]["residual"]
    assert residual > MAX_RESIDUAL
    message = capsys.readouterr().err
    assert f"deviates from its profile by {residual:.1%}" in message
    assert "callbacks.ema.snapshots" in message


def test_a_damaged_snapshot_is_refused_by_name(points: Path, tmp_path: Path) -> None:
    shutil.copytree(points / "snapshots", tmp_path / "snapshots")
    file = tmp_path / "snapshots" / "step-00000008.ckpt"
    flip(file, 2000)
    with pytest.raises(CheckpointError, match=r"step-00000008.ckpt is damaged"):
        reconstructed(tmp_path, 0.1)
    assert reconstructed(tmp_path, 0.1, 4)["reconstruction"]["num_snapshots"] == 1  # it is not needed there
    file.unlink()
    with pytest.raises(CheckpointError, match=r"step-00000008.ckpt does not exist"):
        reconstructed(tmp_path, 0.1)


def test_without_snapshots_the_options_that_make_them_are_named(points: Path, tmp_path: Path) -> None:
    for path in (tmp_path, points / "checkpoints" / "step-00000022.ckpt"):
        with pytest.raises(CheckpointError, match=r"train with callbacks.ema.lengths=\[0.05,0.1\]"):
            reconstructed(path, 0.1)
    with pytest.raises(ValueError, match="no snapshot of step 13: the nearest of 6 is of step 12"):
        reconstructed(points, 0.1, 13)
    with pytest.raises(ValueError, match=r"at most 0\.2887"):
        reconstructed(points, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "raw"}, "ema.length=0.1 selects its own weights: remove weights=raw"),
        ({"ema": {"length": None, "step": 4}}, "ema.step=4 has no effect without ema.length: set ema.length too"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str, points: Path) -> None:
    plain = {"checkpoint": str(points), "weights": "ema", "ema": {"length": 0.1, "step": None}}
    with pytest.raises(ConfigurationError, match=message):
        check_average({**plain, **options})


@pytest.mark.slow
def test_sampling_at_a_length_from_the_command_line(points: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out", ["num_samples=9", "time_grid.num_steps=4"]
    done = completed(
        "sample.py", f"checkpoint={points}", "ema.length=0.07", "ema.step=20", *options, f"output_dir={out}"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    facts = reconstructed(points, 0.07, 20)["reconstruction"]
    assert result["weights"] == facts
    assert facts["num_snapshots"] == 5
    pipeline = inkdrop.load(points, length=0.07, step=20)
    pipeline.sampler.time_grid.num_steps = 4  # type: ignore[attr-defined]
    expected = pipeline(pipeline.request(range(9)), range(9)).numpy()
    assert np.allclose(arrays_of(out)["x"], expected, atol=1e-5)
    usual, _ = sampled(points, tmp_path / "usual", *options)
    assert not np.allclose(usual["x"], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["ema.length=0.3"], 2, "ema.length=0.3: input should be less than or equal to 0.288"),
        (["ema.length=0.1", "ema.step=3"], 2, "the nearest of 6 is of step 4"),
        (["ema.length=0.1", "weights=raw"], 2, "ema.length=0.1 selects its own weights: remove weights=raw"),
        (["+ema.size=3"], 2, "input should be 'length' or 'step'"),
    ],
)
def test_a_length_that_cannot_be_had_is_refused_before_anything_exists(
    options: list[str], code: int, message: str, points: Path, tmp_path: Path
) -> None:
    done = completed("sample.py", f"checkpoint={points}", *options, f"output_dir={tmp_path / 'out'}")
    assert done.returncode == code
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
