"""What training a task costs in operations, memory and time, measured on random data."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from inkdrop.callbacks.step import AfterStep
from inkdrop.machine import SILENT
from inkdrop.pipeline import Pipeline, compile_network
from inkdrop.tasks import DiffusionTask

_WARM_UP = 2  # steps


def random_batch(pipeline: Pipeline, count: int) -> dict[str, Tensor]:
    """A raw batch of noise, under the conditions of the first seeds; `ValueError` if only the user can say these."""
    device = next(pipeline.denoiser.parameters()).device
    request = pipeline.conditioner.request(range(count))
    x = pipeline.codec.decode(torch.randn(count, *pipeline.shape, device=device))
    batch = {"x": x, **request, "position": torch.arange(count)}
    return {name: value.to(device) for name, value in batch.items()}


def parameters(task: DiffusionTask) -> dict[str, Any]:
    """Numbers of parameters: of each child of the network, of each part, and of all that is trained."""
    network: Any = task.pipeline.denoiser.network
    children = {name: _count(child) for name, child in network.named_children()}
    parts = {"network": network, "conditioner": task.pipeline.conditioner, "codec": task.pipeline.codec}
    return {
        "children": {name: count for name, count in children.items() if count},
        **{name: _count(part) for name, part in parts.items()},
        "loss": _count(task.loss),
        "trained": sum(each.numel() for each in task.parameters() if each.requires_grad),
    }


def operations(task: DiffusionTask) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions for one sample, two for a product and its sum.

    `call` is one of the denoiser, `training` the loss with its backward pass.
    """
    with FlopCounterMode(display=False) as call:
        _call(task.pipeline, random_batch(task.pipeline, 1))
    with FlopCounterMode(display=False) as training:
        _loss(task, random_batch(task.pipeline, 1)).backward()
    task.zero_grad()
    return {"call": call.get_total_flops(), "training": training.get_total_flops()}


def memory(task: DiffusionTask, num_averages: int, batch_size: int, precision: str) -> dict[str, int]:
    """Bytes on each device that training holds at the end of a forward pass over this many samples.

    `activations` are what the backward pass has found kept, for one and for two samples, on a straight line.
    """
    trained = [each for each in task.parameters() if each.requires_grad]
    one, two = (_kept(task, count, precision) for count in (1, 2))
    return {
        "weights": sum(_bytes(each) for each in itertools.chain(task.parameters(), task.buffers())),
        "gradients": sum(_bytes(each) for each in trained),
        "optimizer": _optimizer_state(task, trained),
        "averages": 4 * num_averages * sum(each.numel() for each in trained),
        "activations": one + (batch_size - 1) * (two - one),
    }


def speed(
    task: DiffusionTask, options: Mapping[str, Any], batch_size: int, seconds: float, compiled: bool
) -> dict[str, float]:
    """Training steps and forward passes a second on one device, from a few steps that take about `seconds`.

    The steps are those of `task` under the options of its trainer, without averages, pictures and evaluation. Where one
    on `batch_size` samples takes long, it is made on fewer (`measured_on`) and scaled.
    """
    watch, devices = _Stopwatch(seconds / 2), options.get("devices")
    alone = {"devices": devices[:1] if isinstance(devices, list) else 1, "num_nodes": 1, "strategy": "auto"}
    endless = {"max_steps": -1, "max_epochs": -1, "accumulate_grad_batches": 1, "check_val_every_n_epoch": None}
    trainer = Trainer(**{**options, **SILENT, **alone, **endless}, callbacks=[watch], num_sanity_val_steps=0)
    task.max_gradient_norm = math.inf  # of noise it says nothing
    task.to(trainer.strategy.root_device)
    count = 1
    with trainer.precision_plugin.forward_context():
        while count < batch_size and _seconds(task, count) < seconds / 6:
            count = min(2 * count, batch_size)
    if compiled:
        compile_network(task.pipeline)
    batch = random_batch(task.pipeline, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a validation without data
        trainer.fit(task, itertools.repeat({name: value.cpu() for name, value in batch.items()}))
    task.to(trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        _call(task.pipeline, batch)
        start = time.monotonic()
        _call(task.pipeline, batch)
        called = time.monotonic() - start
    scale = count / batch_size
    return {
        "steps_per_second": watch.rate * scale / options.get("accumulate_grad_batches", 1),
        "calls_per_second": scale / called,
        "measured_on": count,
    }


class _Stopwatch(AfterStep):
    """Ends training after some seconds and at least one step beyond the first few."""

    def __init__(self, seconds: float):
        self.seconds, self.rate, self._start = seconds, 0.0, 0.0

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        if trainer.global_step == _WARM_UP:
            self._start = now
        elif trainer.global_step > _WARM_UP and now - self._start >= self.seconds:
            self.rate = (trainer.global_step - _WARM_UP) / (now - self._start)
            trainer.should_stop = True


@torch.no_grad()
def _call(pipeline: Pipeline, batch: Mapping[str, Tensor]) -> None:
    denoiser, point = pipeline.denoiser.begin(), pipeline.denoiser.schedule.points([1.0])[0]
    x = torch.randn(len(batch["x"]), *pipeline.shape, device=batch["x"].device)
    float(denoiser(x, point, pipeline.conditioner(batch)).x_0.sum())  # waits for the device


def _loss(task: DiffusionTask, batch: Mapping[str, Tensor]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no trainer to log to
        return task.training_step(dict(batch), 0)["loss"]


def _seconds(task: DiffusionTask, count: int) -> float:
    batch = random_batch(task.pipeline, count)
    start = time.monotonic()
    loss = _loss(task, batch)
    loss.backward()
    float(loss.detach())  # waits for the device
    task.zero_grad()
    return time.monotonic() - start


def _kept(task: DiffusionTask, count: int, precision: str) -> int:
    own = {each.untyped_storage().data_ptr() for each in task.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = _loss(task, random_batch(task.pipeline, count))
    del loss  # only here may its tensors' memory be used again
    return sum(size for place, size in kept.items() if place not in own)


def _optimizer_state(task: DiffusionTask, trained: list[nn.Parameter]) -> int:
    """Bytes that the optimizer keeps after a step, tried on parameters of the same shapes one by one."""
    sizes: dict[tuple[Any, ...], int] = {}
    for each in trained:
        if (key := (each.shape, each.dtype)) not in sizes:
            alike = nn.Parameter(torch.zeros(each.shape, dtype=each.dtype))
            alike.grad = torch.zeros_like(alike)
            optimizer = task.optimizer([alike])
            optimizer.step()
            sizes[key] = sum(_bytes(value) for value in optimizer.state[alike].values() if isinstance(value, Tensor))
    return sum(sizes[each.shape, each.dtype] for each in trained)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())
