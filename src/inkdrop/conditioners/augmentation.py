"""The conditioner of augmentations that were applied to a training sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition


class Augmentation(Conditioner):
    """A linear map without bias of `augmentation` (B, num_labels) to a vector (B, dim), 0 without augmentation.

    A batch without labels, as in validation and sampling, has zeros, so that samples are not augmented. The condition
    has no name: guidance cannot empty it, and a user cannot request it. Source: Karras et al. 2022, arXiv 2206.00364,
    appendix F.2.
    """

    def __init__(self, num_labels: Annotated[int, Ge(1)], dim: Annotated[int, Ge(1)]):
        super().__init__()
        self.num_labels, self.dim = num_labels, dim
        self.map = nn.Linear(num_labels, dim, bias=False)

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        size = len(next(iter(batch.values())))
        labels = batch.get("augmentation", torch.zeros(size, self.num_labels)).to(self.map.weight)
        return {"vector": self.map(labels)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns zeros, which stand for data that are not augmented."""
        self.require_known(condition)
        return {"augmentation": torch.zeros(len(seeds), self.num_labels)}
