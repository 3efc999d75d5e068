"""The cost of training a task in operations, memory and time, measured on random data."""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from inkdrop.callbacks.step import AfterStep
from inkdrop.commands.describe.passes import Inputs, inputs, loss_of, output, random_batch
from inkdrop.pipeline import compile_network
from inkdrop.runs.machine import SILENT
from inkdrop.tasks.base import Task

_WARM_UP = 2  # steps
_LONG, _LARGE = 86400.0, 0.5  # seconds, and share of a device's memory, above which a run warns before it starts
_SMALL = 3e8  # operations, or fewer, of a network that is run on one sample
_EFFICIENCY = 0.5  # of a network, relative to a product of two matrices that fill the device


def parameters(task: Task) -> dict[str, Any]:
    """Returns numbers of parameters: of each child of the network, of each part, and of all trained ones."""
    network: nn.Module = task.pipeline.network
    children = {name: _count(child) for name, child in network.named_children()}
    parts = {**dict(task.pipeline.named_children()), "network": network, "loss": task.loss}
    return {
        "children": {name: count for name, count in children.items() if count},
        **{name: _count(part) for name, part in parts.items()},
        "trained": sum(each.numel() for each in task.parameters() if each.requires_grad),
    }


def memory(task: Task, num_averages: int, batch_size: int, precision: str) -> dict[str, int]:
    """Returns the bytes on each device in training at the end of a forward pass over this many samples.

    `activations` are the tensors saved for the backward pass, extrapolated linearly from one and two samples.
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


def speed(task: Task, options: Mapping[str, Any], batch_size: int, seconds: float, compiled: bool) -> dict[str, float]:
    """Measures training steps and forward passes per second on one device.

    Steps on `batch_size` samples that would take long are measured on fewer samples (`measured_on`) and scaled.

    - `task`: the task.
    - `options`: options of its trainer; averages, pictures and evaluation are left out.
    - `batch_size`: samples on one device.
    - `seconds`: approximate duration of the measurement.
    - `compiled`: whether the network is compiled.
    """
    watch, devices = _Stopwatch(seconds / 2), options.get("devices")
    alone = {"devices": devices[:1] if isinstance(devices, list) else 1, "num_nodes": 1, "strategy": "auto"}
    endless = {"max_steps": -1, "max_epochs": -1, "accumulate_grad_batches": 1, "check_val_every_n_epoch": None}
    trainer = Trainer(**{**options, **SILENT, **alone, **endless}, callbacks=[watch], num_sanity_val_steps=0)
    task.guard.max_gradient_norm = math.inf  # it means nothing on noise
    task.to(trainer.strategy.root_device)
    count = 1
    with trainer.precision_plugin.forward_context():
        while count < batch_size and _seconds(task, count) < seconds / 6:
            count = min(2 * count, batch_size)
    batch = random_batch(task.pipeline, count)
    given = inputs(task, batch)
    if compiled:
        compile_network(task.pipeline)
    with warnings.catch_warnings(action="ignore"):  # about a validation without data
        trainer.fit(task, itertools.repeat({name: value.cpu() for name, value in batch.items()}))
    task.to(trainer.strategy.root_device)
    with trainer.precision_plugin.forward_context():
        _finished(task, given)
        start = time.monotonic()
        _finished(task, given)
        called = time.monotonic() - start
    scale = count / batch_size
    return {
        "steps_per_second": watch.rate * scale / options.get("accumulate_grad_batches", 1),
        "calls_per_second": scale / called,
        "measured_on": count,
    }


def foreseen(task: Task, plain: Mapping[str, Any], device: torch.device, world_size: int) -> tuple[list[str], int]:
    """Returns warnings about a run that needs most of a device's memory, or days, and operations of a training sample.

    One product of matrices is computed, and a small network on one sample: a larger one runs without numbers, on
    torch's meta device. A network that cannot run there gives no warnings, and 0.
    """
    trainer, batch_size = plain["trainer"], plain["data"]["batch_size"] // world_size
    samples = trainer["max_steps"] * trainer.get("accumulate_grad_batches", 1) * batch_size
    try:
        with torch.random.fork_rng(devices=[]):  # draws here must not change those of training
            flops, kept = _followed(task)
    except (ValueError, RuntimeError, NotImplementedError):
        return [], 0
    kept = kept if trainer.get("precision", "32-true") == "32-true" else kept // 2
    fixed = 4 * sum(_bytes(each) for each in task.parameters())  # weights, gradients, two averages of the optimizer
    remarks = []
    if fixed + batch_size * kept > _LARGE * (memory := _memory(device)):
        fits = max(1, int((_LARGE * memory - fixed) // kept))
        accumulated = trainer.get("accumulate_grad_batches", 1) * -(-plain["data"]["batch_size"] // fits)
        remarks.append(
            f"training needs at least {(fixed + batch_size * kept) / 1e9:.3g} GB of the {memory / 1e9:.3g} GB of this "
            f"{device.type}: lower it by data.batch_size={fits} trainer.accumulate_grad_batches={accumulated}, "
            "checkpoint_activations=true, or a smaller data.shape or network.base_channels"
        )
    if (seconds := samples * flops / _rate(device)) > _LONG:
        remarks.append(
            f"training takes about {seconds / _LONG:.2g} days on this {device.type}: half of data.shape takes about a "
            "quarter of it, half of network.base_channels not much more, and a GPU is faster"
        )
    return remarks, flops


def _followed(task: Task) -> tuple[int, int]:
    """Returns operations of training on one sample, and bytes saved for its backward pass, which depend on shapes."""

    class Called(Exception):
        pass

    def stop(network: nn.Module, args: Any, conditions: Any) -> None:
        raise Called(args, conditions)

    network = task.pipeline.network
    handle = network.register_forward_pre_hook(stop, with_kwargs=True, prepend=True)
    try:
        loss_of(task, random_batch(task.pipeline, 1))
    except Called as call:
        device = "cpu" if 2 * _count(network) * call.args[0][0].numel() < _SMALL else "meta"  # slower for few numbers
        args, conditions = tree_map_only(Tensor, lambda each: each.detach().to(device), call.args)
    finally:
        handle.remove()
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {n: each.detach().to(device, copy=True).requires_grad_(each.requires_grad) for n, each in own.items()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda each: each)
    with FlopCounterMode(display=False) as counter, saved, sdpa_kernel(SDPBackend.MATH):  # as on the meta device
        given = torch.func.functional_call(network, shapes, args, conditions)
        sum(each.sum() for each in tree_leaves(given)).backward()
    for each in shapes.values():
        kept.pop(each.untyped_storage()._cdata, None)
    return counter.get_total_flops(), sum(kept.values())


def _memory(device: torch.device) -> int:
    """Returns the memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _rate(device: torch.device) -> float:
    """Estimates the operations per second of a network on a device, from a product of two matrices."""
    size, best = 1024, math.inf
    x = torch.ones(size, size, device=device)
    for _ in range(3):
        start = time.monotonic()
        float((x @ x)[0, 0])  # waits for the device
        best = min(best, time.monotonic() - start)
    return _EFFICIENCY * 2 * size**3 / best


class _Stopwatch(AfterStep):
    """A callback that ends training after some seconds and at least one step after the first few."""

    def __init__(self, seconds: float):
        self.seconds, self.rate, self._start = seconds, 0.0, 0.0

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = time.monotonic()
        if trainer.global_step == _WARM_UP:
            self._start = now
        elif trainer.global_step > _WARM_UP and now - self._start >= self.seconds:
            self.rate = (trainer.global_step - _WARM_UP) / (now - self._start)
            trainer.should_stop = True


def _finished(task: Task, given: Inputs) -> None:
    float(output(task, given)[0].sum())  # waits for the device


def _seconds(task: Task, count: int) -> float:
    batch = random_batch(task.pipeline, count)
    start = time.monotonic()
    loss = loss_of(task, batch)
    loss.backward()
    float(loss.detach())  # waits for the device
    task.zero_grad()
    return time.monotonic() - start


def _kept(task: Task, count: int, precision: str) -> int:
    own = {each.untyped_storage()._cdata for each in task.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()  # wrapped tensors have no data
        return tensor

    with (
        torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        loss = loss_of(task, random_batch(task.pipeline, count))
    del loss  # its tensors' memory may be reused from here on
    return sum(size for place, size in kept.items() if place not in own)


def _optimizer_state(task: Task, trained: list[nn.Parameter]) -> int:
    """Returns the bytes of the optimizer's state after a step, measured on parameters of the same shapes."""
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
