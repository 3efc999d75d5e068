"""Changes of training batches, keyed by the position of each sample in the run."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le

from inkdrop.data.loaders import Batch
from inkdrop.randomness import Generators


def flip(batch: Batch, generators: Generators, probability: Annotated[float, Ge(0), Le(1)] = 0.5) -> Batch:
    """Images (B, C, H, W) mirrored left to right with this probability."""
    mirrored = generators.at("flip").uniform() < probability
    return {**batch, "x": torch.where(mirrored[:, None, None, None], batch["x"].flip(3), batch["x"])}
