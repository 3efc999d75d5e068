"""Activations that are recomputed in the backward pass instead of being kept, which saves memory and costs time."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_activations(network: nn.Module) -> None:
    """Makes each block keep only its inputs and run again in the backward pass, with the same dropout.

    Blocks are the elements of every `nn.ModuleList` that contains no other one. The network is changed in place, and
    the names of its weights stay the same; a block must not change its buffers. Raises `ValueError` if there are no
    such lists. Source: Chen et al. 2016, arXiv 1604.06174.
    """
    lists = [each for each in network.modules() if isinstance(each, nn.ModuleList)]
    innermost = [each for each in lists if not any(isinstance(below, nn.ModuleList) for below in [*each.modules()][1:])]
    blocks = dict.fromkeys(block for each in innermost for block in each)  # a block that occurs twice is wrapped once
    if not blocks:
        raise ValueError(
            f"{type(network).__name__} has no nn.ModuleList of blocks to recompute: set checkpoint_activations=false, "
            "or put its blocks in one"
        )
    for block in blocks:
        block.forward = partial(_run, block.forward)


def _run(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():  # sampling keeps no activations
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
