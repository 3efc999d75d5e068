"""What a run of a recipe costs by estimate, where none is recorded."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from inkdrop.commands.reproduce.recipe import Recipe
from inkdrop.configuration import USER_TARGETS, build
from inkdrop.configuration.compose import composed_in, resolved


def operations(recipe: Recipe) -> float | None:
    """Returns the operations of training one seed: those of the network, forwards and backwards, on all samples.

    The network runs on one sample without memory, on torch's meta device. None for one that cannot run there, and for
    one with further inputs than a vector.
    """
    config = composed_in(str(recipe.folder), "train", [f"experiment={recipe.name}", "output_dir=nowhere"])
    plain: Any = resolved(config)
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    trainer, dim = plain["trainer"], getattr(build(plain["conditioner"], allowed), "dim", 0)
    samples = trainer["max_steps"] * trainer.get("accumulate_grad_batches", 1) * plain["data"]["batch_size"]
    try:
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            network = build(plain["network"], allowed)
            vector = {"vector": torch.zeros(1, dim)} if dim else {}
            network(torch.zeros(1, *plain["pipeline"]["shape"]), torch.zeros(1), **vector).sum().backward()
    except (AttributeError, TypeError, ValueError, RuntimeError):  # of whatever network a recipe of the user names
        return None
    return float(samples * counter.get_total_flops())
