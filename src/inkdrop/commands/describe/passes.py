"""A pass of a task over random data: the inputs and the output of its network, and the operations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from inkdrop.models import Model
from inkdrop.tasks.base import Task

Inputs: TypeAlias = tuple[tuple[Tensor, ...], dict[str, Tensor]]


def loss_of(task: Task, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the loss of a raw batch in training."""
    with warnings.catch_warnings(action="ignore"):  # there is no trainer to log to
        return task.training_step(dict(batch), 0)["loss"]


def random_batch(pipeline: Model, count: int) -> dict[str, Tensor]:
    """Returns a raw batch of noise with any valid condition."""
    device = next(pipeline.parameters()).device
    batch = {**pipeline.example(count), "position": torch.arange(count)}
    batch = {name: value.to(device) for name, value in batch.items()}
    return {"x": pipeline.codec.decode(torch.randn(count, *pipeline.shape, device=device), batch), **batch}


def inputs(task: Task, batch: Mapping[str, Tensor]) -> Inputs:
    """Returns the inputs of the network in training on a raw batch: x, c_noise, and conditions by name."""
    recorded: list[Inputs] = []
    handle = task.pipeline.network.register_forward_pre_hook(
        lambda network, args, conditions: recorded.append((args, conditions)), with_kwargs=True
    )
    with torch.no_grad():
        loss_of(task, batch)
    handle.remove()
    return recorded[-1]


@torch.no_grad()
def output(task: Task, given: Inputs) -> Any:
    """Returns the output of the network for these inputs: F, or F and a dict of further outputs."""
    args, conditions = given
    return task.pipeline.network(*args, **conditions)


class Pass(NamedTuple):
    """The last call of the network in training on one sample, and operations of matrix products and convolutions.

    `call` of the operations is a forward pass of the network, and `training` is the loss with its backward pass. A
    multiply-add is two operations.
    """

    inputs: Inputs
    output: Any
    operations: dict[str, int]


def training_pass(task: Task) -> Pass:
    """Returns what a pass forward and backward over one sample shows.

    `training` is absent for a loss that takes gradients itself, whose operations torch cannot count.
    """
    batch, calls = random_batch(task.pipeline, 1), list[Pass]()
    counter, before = FlopCounterMode(display=False), [0]

    def enter(*_: Any) -> None:
        before[0] = counter.get_total_flops()

    def leave(network: nn.Module, args: tuple[Tensor, ...], conditions: dict[str, Tensor], result: Any) -> None:
        given = tree_map_only(Tensor, Tensor.detach, ((args, conditions), result))
        calls.append(Pass(given[0], given[1], {"call": counter.get_total_flops() - before[0]}))

    network = task.pipeline.network
    hooks = [network.register_forward_pre_hook(enter), network.register_forward_hook(leave, with_kwargs=True)]
    try:
        with counter:
            loss_of(task, batch).backward()
    except RuntimeError:
        given = inputs(task, batch)
        with counter:
            output(task, given)
        return calls[-1]
    finally:
        for hook in hooks:
            hook.remove()
        task.zero_grad()
    return calls[-1]._replace(operations={**calls[-1].operations, "training": counter.get_total_flops()})
