"""What is not finite is caught before it is used: losses, gradients, samples and features."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_scripts import completed
from faulty import FaultyLoss, FaultyMLP
from lightning.pytorch import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from runs import points
from small_tasks import fit, parameters, records, small_task
from torch import Tensor

from inkdrop.callbacks import EMA, Every, LossByNoiseLevel, SamplePictures
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.checkpoints import find_checkpoint, read_checkpoint
from inkdrop.data.toys import Toy, moons
from inkdrop.errors import NonFiniteError, require_finite
from inkdrop.guidance import Clip
from inkdrop.losses import Example
from inkdrop.metrics import Evaluation, FrechetDistance
from inkdrop.metrics.extractors import Identity
from inkdrop.randomness import Generators
from inkdrop.tasks import DiffusionTask
from inkdrop.time_samplers import LossAware, Uniform
from inkdrop.weightings import Unit

NAN, INF = float("nan"), float("inf")


def faulty_task(calls: list[int], max_skipped_steps: int = 0, **fault: float) -> DiffusionTask:
    task = small_task()
    task.loss = FaultyLoss(Uniform(), Unit(), calls=calls, **fault)
    task.guard.max_skipped_steps = max_skipped_steps
    return task


def tensors(node: Any) -> Iterator[Tensor]:
    """All tensors and floats within a checkpoint."""
    if isinstance(node, Tensor | float):
        yield torch.as_tensor(node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from tensors(child)


def equal(left: Any, right: Any) -> bool:
    pairs = zip(tensors(left), tensors(right), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def finite(file: Path) -> bool:
    """Whether all that was learned is; the configuration may say NaN to break things, and the log may tell of it."""
    checkpoint = torch.load(file, weights_only=True)
    return all(
        bool(each.isfinite().all())
        for name in checkpoint
        if name not in ("config", "latest")
        for each in tensors(checkpoint[name])
    )


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"factor": NAN}, r"position 67 \(item \d+\): nan"),
        ({"term": INF}, r"position 67 \(item \d+\): inf"),  # the gradient of this loss is finite
        ({"term": -INF}, r"position 67 \(item \d+\): -inf"),
    ],
)
def test_a_loss_that_is_not_finite_ends_training_before_anything_moves(
    fault: dict[str, float], named: str, tmp_path: Path
) -> None:
    task, ema = faulty_task([5], **fault), EMA([0.9])
    saved = Checkpoint(Every(steps=1), str(tmp_path / "c"), keep=9)
    with pytest.raises(NonFiniteError, match=rf"optimizer step 5: .*{named}; it changed nothing: try a"):
        fit(task, 8, [ema, saved, LossByNoiseLevel(Every(steps=1))], tmp_path)
    other, other_ema = small_task(), EMA([0.9])
    (tmp_path / "other").mkdir()
    trainer = fit(other, 4, [other_ema], tmp_path / "other")
    assert equal(parameters(task), parameters(other))
    assert equal(ema.averages, other_ema.averages)
    assert [file.name for file in sorted((tmp_path / "c").glob("*.ckpt"))][-1] == "step-00000004.ckpt"
    assert all(finite(file) for file in (tmp_path / "c").glob("*.ckpt"))
    state = torch.load(tmp_path / "c" / "step-00000004.ckpt", weights_only=True)["optimizer_states"][0]
    assert equal(state, trainer.optimizers[0].state_dict())
    assert equal(task.optimizers().state_dict(), state)  # type: ignore[union-attr]


def test_the_item_is_that_of_the_position(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError) as error:
        fit(faulty_task([5], factor=NAN), 8, [], tmp_path)
    data = Toy(moons, 64, [2], 0, 16)
    loader = data.train_dataloader()
    item = next(
        number for number in range(64) if torch.equal(data.splits["train"]["x"][number], loader.batch(4)["x"][3])
    )
    assert f"position 67 (item {item}): nan" in str(error.value)


def test_all_micro_batches_of_a_step_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"optimizer step 2: .* position 35 .* position 51 ") as error:
        fit(faulty_task([3, 4], factor=NAN), 4, [], tmp_path, accumulate_grad_batches=2)
    assert "position 3 " not in str(error.value)


class BrokenGradient(Callback):
    """Puts a value into the gradient of one weight at one step."""

    def __init__(self, step: int, value: float, name: str = "pipeline.denoiser.network.output.1.bias"):
        self.step, self.value, self.name = step, value, name

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if trainer.global_step + 1 == self.step:
            dict(pl_module.named_parameters())[self.name].grad[0] = self.value


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_is_named(clip: float | None, tmp_path: Path) -> None:
    task = small_task()
    named = r"step 3: all losses are finite, but the gradient is not, in pipeline\.denoiser\.network\.output\.1\.bias;"
    with pytest.raises(NonFiniteError, match=named):
        fit(task, 5, [BrokenGradient(3, INF)], tmp_path, gradient_clip_val=clip)
    (tmp_path / "other").mkdir()
    other = small_task()
    fit(other, 2, [], tmp_path / "other", gradient_clip_val=clip)
    assert equal(parameters(task), parameters(other))


def test_a_norm_that_overflows_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 3: all losses and gradients are finite, but the norm"):
        fit(small_task(), 5, [BrokenGradient(3, 3e38), BrokenGradient(3, 3e38, _FIRST)], tmp_path)


_FIRST = "pipeline.denoiser.network.output.1.weight"


def test_gradients_are_clipped_by_the_one_norm(tmp_path: Path) -> None:
    """As Lightning does it by itself."""
    ours, theirs = small_task(), small_task()
    theirs.configure_gradient_clipping = (  # type: ignore[method-assign]
        lambda optimizer, gradient_clip_val, gradient_clip_algorithm: theirs.clip_gradients(
            optimizer, gradient_clip_val, gradient_clip_algorithm
        )
    )
    theirs.guard.finite = True
    for number, (algorithm, value) in enumerate((("norm", 1e-3), ("value", 1e-4), ("norm", 0.0))):
        for task in (ours, theirs):
            folder = tmp_path / f"{number}-{task is ours}"
            folder.mkdir()
            fit(task, 3, [], folder, gradient_clip_val=value, gradient_clip_algorithm=algorithm)
        assert equal(parameters(ours), parameters(theirs)), algorithm


def by_hand(steps: int, left_out: int) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """Weights, averages and learning rate after a run in which one step did nothing."""
    task, loader = small_task(), Toy(moons, 64, [2], 0, 16).train_dataloader()
    optimizer = task.optimizer(task.parameters())
    scheduler = task.scheduler(optimizer)
    averages, count = parameters(task), 0
    for number in range(steps):
        if number + 1 == left_out:
            continue
        batch = loader.batch(number)
        generators = Generators.from_positions(0, batch["position"].tolist()).at("train")
        optimizer.zero_grad()
        task.loss(task.pipeline.denoiser, Example(task.pipeline.codec.encode(batch)), generators).loss.mean().backward()
        optimizer.step()
        scheduler.step()
        count += 1
        share = 1 - min(0.9, (1 + count) / (10 + count))
        averages = {name: torch.lerp(averages[name], weight, share) for name, weight in parameters(task).items()}
    return parameters(task), averages, optimizer.param_groups[0]["lr"]


def test_a_step_that_is_skipped_changes_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task, ema = faulty_task([5], max_skipped_steps=1, factor=NAN), EMA([0.9])
    saved = Checkpoint(Every(steps=1), str(tmp_path / "c"), keep=9)
    trainer = fit(task, 8, [ema, saved], tmp_path)
    weights, averages, rate = by_hand(8, left_out=5)
    assert all(torch.allclose(value, weights[name], atol=1e-6) for name, value in parameters(task).items())
    assert all(torch.allclose(value, averages[name], atol=1e-6) for name, value in ema.averages["0.9"].items())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)
    files = [torch.load(tmp_path / "c" / f"step-0000000{step}.ckpt", weights_only=True) for step in (4, 5)]
    for part in ("state_dict", "ema", "optimizer_states", "lr_schedulers"):
        assert equal(files[0][part], files[1][part]), part
    assert [file["skipped_steps"] for file in files] == [0, 1]
    assert all(finite(file) for file in (tmp_path / "c").glob("*.ckpt"))
    assert records(tmp_path, "train/skipped_steps") == [(5, 1.0)]
    lines = [line for line in capfd.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 1
    assert "optimizer step 5" in lines[0]
    assert "position 67" in lines[0]


def test_a_spike_of_the_gradient_is_told_with_its_samples(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = faulty_task([5], max_skipped_steps=1, factor=1e4)
    task.guard.max_gradient_norm = 50.0
    fit(task, 8, [], tmp_path)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "skipped" in line]
    assert "optimizer step 5: the norm of the gradient is " in line
    assert "above 50; the largest losses are at position 67 (item " in line
    assert records(tmp_path, "train/skipped_steps") == [(5, 1.0)]
    assert all(norm <= 50 for _, norm in records(tmp_path, "train/gradient_norm"))
    task = faulty_task([5], factor=1e4)
    task.guard.max_gradient_norm = 50.0
    with pytest.raises(NonFiniteError, match=r"optimizer step 5: the norm of the gradient is .*, above 50"):
        fit(task, 8, [], tmp_path)
    fit(faulty_task([5], factor=1e4), 8, [], tmp_path)  # nobody asked


def test_skipped_steps_are_bounded_over_the_whole_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"optimizer step 6: .*position 83 .*after 2 skipped steps") as error:
        fit(faulty_task([2, 4, 6], max_skipped_steps=2, factor=NAN), 8, [], tmp_path)
    assert "position 51" not in str(error.value)
    task = faulty_task([2], max_skipped_steps=2, factor=NAN)
    task.on_load_checkpoint({"state_dict": task.state_dict(), "skipped_steps": 2})  # before an interruption
    with pytest.raises(NonFiniteError, match=r"optimizer step 2: .*after 2 skipped steps"):
        fit(task, 8, [], tmp_path)


def test_what_is_learned_of_times_leaves_a_skipped_step_out(tmp_path: Path) -> None:
    task = small_task()
    task.loss = FaultyLoss(LossAware(Uniform(), num_bins=4, num_losses=2), Unit(), calls=[2])
    network: Any = task.pipeline.denoiser.network
    network.register_forward_hook(lambda module, args, output: output * (NAN if task.loss.count == 1 else 1.0))
    task.guard.max_skipped_steps = 1
    fit(task, 4, [LossByNoiseLevel(Every(steps=4), num_bins=1)], tmp_path)
    assert [step for step, _ in records(tmp_path, "loss_by_t/0.00-1.00")] == [4]
    assert task.guard.skipped_steps == 1
    assert all(bool(value.isfinite().all()) for value in task.loss.state_dict().values())


class Scaler:
    """A GradScaler whose chosen steps find infinite gradients."""

    def __init__(self, infinite: list[int]):
        self.infinite, self.step_number, self.found = infinite, 0, False

    def scale(self, loss: Tensor) -> Tensor:
        return 1024 * loss

    def unscale_(self, optimizer: Any) -> None:
        self.step_number += 1
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad /= 1024
        if self.step_number in self.infinite:
            optimizer.param_groups[0]["params"][0].grad.fill_(INF)
        gradients = [p.grad for p in optimizer.param_groups[0]["params"]]
        self.found = not all(bool(each.isfinite().all()) for each in gradients)

    def step(self, optimizer: Any, **kwargs: Any) -> None:
        if not self.found:
            optimizer.step(**kwargs)

    def update(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}


class Scaled(MixedPrecision):
    """Mixed precision with that scaler, in float32."""

    def __init__(self, infinite: list[int]):
        super().__init__("16-mixed", "cpu", Scaler(infinite))  # type: ignore[arg-type]

    def forward_context(self) -> Any:
        return contextlib.nullcontext()


def test_a_step_that_the_scaler_leaves_out_moves_neither_averages_nor_rate(tmp_path: Path) -> None:
    task, ema = small_task(), EMA([0.9])
    trainer = fit(task, 8, [ema], tmp_path, plugins=[Scaled([5])])
    weights, averages, rate = by_hand(8, left_out=5)
    assert all(torch.allclose(value, weights[name], atol=1e-5) for name, value in parameters(task).items())
    assert all(torch.allclose(value, averages[name], atol=1e-5) for name, value in ema.averages["0.9"].items())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(rate)
    assert task.guard.skipped_steps == 0


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_gradients_of_a_fused_optimizer_are_judged_and_clipped_without_their_scale(
    clip: float | None, tmp_path: Path
) -> None:
    """A fused optimizer divides by the scale itself, after they were looked at."""

    def train(fused: bool) -> DiffusionTask:
        scaled = Scaled([])
        scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        task, optimizer = small_task(), partial(torch.optim.AdamW, lr=1e-2, eps=1.0, fused=fused, foreach=False)
        task.optimizer, task.guard.max_gradient_norm = optimizer, 50.0
        (tmp_path / str(fused)).mkdir()
        fit(task, 4, [], tmp_path / str(fused), plugins=[scaled], gradient_clip_val=clip)
        return task

    ours, theirs = (parameters(train(fused)) for fused in (True, False))
    assert all(torch.allclose(value, theirs[name], atol=1e-6) for name, value in ours.items())
    norms = [records(tmp_path / str(fused), "train/gradient_norm") for fused in (True, False)]
    assert norms[0] == [(step, pytest.approx(norm, rel=1e-5)) for step, norm in norms[1]]
    assert norms[0][0][1] > 0.5


@pytest.mark.slow
def test_the_scaler_goes_on_with_its_scale(tmp_path: Path) -> None:
    def train(folder: str, checkpoint: Path | None = None) -> dict[str, Any]:
        scaled = Scaled([])
        scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
        saved = Checkpoint(Every(steps=1), str(tmp_path / folder), keep=9)
        fit(small_task(), 8, [saved], tmp_path, checkpoint=checkpoint, plugins=[scaled])
        return read_checkpoint(tmp_path / folder / "step-00000008.ckpt")

    whole = train("whole")
    assert whole["Scaled"]["scale"] == 4096.0  # twice doubled
    for step in (2, 5, 7):
        again = train(str(step), tmp_path / "whole" / f"step-0000000{step}.ckpt")
        assert again["Scaled"] == whole["Scaled"]
        assert equal(again["state_dict"], whole["state_dict"])


def test_a_loss_that_is_not_finite_is_no_matter_of_the_scaler(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="position 67"):
        fit(faulty_task([5], factor=NAN), 8, [], tmp_path, plugins=[Scaled([])])


def test_weights_that_overflow_in_the_last_step_are_not_saved(tmp_path: Path) -> None:
    task = faulty_task([1], factor=1e6)
    task.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1e38)
    task.scheduler = lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    with pytest.raises(NonFiniteError, match=r"step 1: no checkpoint was written, because weights\.pipeline\."):
        fit(task, 1, [Checkpoint(Every(steps=1), str(tmp_path / "c"))], tmp_path)
    assert not list((tmp_path / "c").glob("*.ckpt"))


@pytest.mark.parametrize("guides", [{}, {"clip": Clip()}], ids=["plain", "clipped"])
def test_samples_that_are_not_finite_are_named_by_their_seeds(guides: dict[str, Any], tmp_path: Path) -> None:
    pipeline = small_task().pipeline
    pipeline.denoiser.network = FaultyMLP([2], 16, 1)
    pipeline.guidance = guides
    with pytest.raises(NonFiniteError, match=r"not finite: the samples with seeds 12$"):
        pipeline({}, [11, 12, 13])
    assert pipeline({}, [11, 12, 13]).isfinite().all()


def test_pictures_are_not_drawn_of_broken_samples(tmp_path: Path) -> None:
    task = small_task()
    task.pipeline.denoiser.network.register_forward_hook(  # type: ignore[union-attr]
        lambda module, args, output: output if module.training else output / 0
    )
    with pytest.raises(NonFiniteError, match="seeds 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"):
        fit(task, 2, [SamplePictures(Every(steps=2), str(tmp_path), 10)], tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_a_validation_that_is_not_finite_names_its_items(tmp_path: Path) -> None:
    task = small_task()
    numbers = itertools.count(1)  # of batches; a validation has four

    def broken(module: Any, args: Any, output: Tensor) -> Tensor:
        return output if module.training or next(numbers) != 6 else output.index_fill(0, torch.tensor([2]), INF)

    task.pipeline.denoiser.network.register_forward_hook(broken)  # type: ignore[union-attr]
    saved = Checkpoint(Every(steps=1), str(tmp_path / "c"), best="validation/loss")
    with pytest.raises(NonFiniteError, match=r"validation after optimizer step 4: .* at position 18: inf$"):
        fit(task, 8, [saved], tmp_path, val_check_interval=2)
    assert len(records(tmp_path, "validation/loss")) == 1  # after step 2
    assert sorted(file.name for file in (tmp_path / "c").glob("*.ckpt"))[-1] == "step-00000003.ckpt"


class Blind(Identity):
    """Features of the second row of every batch are not finite."""

    name = "blind"

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).index_fill(0, torch.tensor([1]), NAN)


def test_features_that_are_not_finite_name_metric_and_seeds() -> None:
    data = Toy(moons, 64, [2], 0, 16)
    evaluation = Evaluation(Blind(2), {"frechet": FrechetDistance()}, num_samples=10, batch_size=5, seed=40)
    with pytest.raises(NonFiniteError, match=r"blind: the features of samples with seeds 41$"):
        evaluation(small_task().pipeline, data)
    with pytest.raises(NonFiniteError, match=r"blind: the features of samples 1$"):
        evaluation.measure([torch.zeros(10, 2)], data)


def test_many_rows_are_named_shortly() -> None:
    require_finite(torch.zeros(2, 3), "rows", [0, 1])
    with pytest.raises(NonFiniteError, match=r"rows a, c$"):
        require_finite(torch.tensor([NAN, 0, INF]), "rows", ["a", "b", "c"])


TESTS = str(Path(__file__).parent)
MOONS = ["experiment=moons", "network.width=16", "network.num_blocks=1", "logger=none", "allow_targets=[faulty.]"]
FAULT = [
    "loss._target_=faulty.FaultyLoss",
    "+loss.calls=[5]",
    "+loss.factor=nan",
    "callbacks.checkpoint.every.steps=1",
]


def with_tests() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_ends_with_code_5_on_all_ranks(devices: int, tmp_path: Path) -> None:
    options = [
        *MOONS,
        *FAULT,
        "callbacks.checkpoint.every.steps=1",
        "data.batch_size=16",
        f"trainer.devices={devices}",
        f"+loss.rank={devices - 1}",
        f"output_dir={tmp_path / 'run'}",
    ]
    done = completed("train.py", *options, **with_tests())
    assert done.returncode == 5, done.stderr
    place = "rank 1, position 75" if devices == 2 else "position 67"
    assert done.stderr.count(f"error: optimizer step 5: the loss is not finite at {place} (item ") == devices
    assert "try a lower optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
    latest = find_checkpoint(tmp_path / "run")
    assert latest.name == "step-00000004.ckpt"
    assert finite(latest)
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_checkpoint_that_one_of_two_ranks_cannot_write_ends_both(tmp_path: Path) -> None:
    """Weights overflow in the last step, which the rank that writes is the only one to see; the other waits for it."""
    overflow = [
        "optimizer._target_=torch.optim.SGD",
        "~optimizer.betas",
        "optimizer.lr=1e38",
        "scheduler.warmup_steps=0",
    ]
    options = [
        *overflow,
        "trainer.gradient_clip_val=0",
        "trainer.max_steps=1",
        "~callbacks.evaluate",
        "~callbacks.pictures",
    ]
    fault = ["loss._target_=faulty.FaultyLoss", "+loss.calls=[1]", "+loss.factor=1e6", "data.batch_size=16"]
    done = completed(
        "train.py", *MOONS, *fault, *options, "trainer.devices=2", f"output_dir={tmp_path}", **with_tests()
    )
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("error: step 1: no checkpoint was written, because weights.pipeline.") == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_sampling_ends_with_code_5_and_writes_nothing(tmp_path: Path) -> None:
    points(tmp_path / "run", "trainer.max_steps=2")
    checkpoint = torch.load(find_checkpoint(tmp_path / "run"), weights_only=True)
    checkpoint["config"]["pipeline"]["denoiser"]["network"]["_target_"] = "faulty.FaultyMLP"
    torch.save(checkpoint, tmp_path / "faulty.ckpt")
    options = [f"checkpoint={tmp_path / 'faulty.ckpt'}", "seed=7", "num_samples=6", "allow_targets=[faulty.]"]
    done = completed("sample.py", *options, f"output_dir={tmp_path / 'out'}", **with_tests())
    assert done.returncode == 5, done.stderr
    assert "error: not finite: the samples with seeds 8; nothing was written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*.npz"))
    assert not list((tmp_path / "out").glob("*.png"))
