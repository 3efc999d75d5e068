"""The photographs of CIFAR-10."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from inkdrop.data.published import Published


class CIFAR10(Published):
    """CIFAR-10: 60,000 RGB photographs of 32 x 32 pixels, 50,000 for training and 10,000 held out.

    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    SHAPE = (3, 32, 32)
    NAME = "CIFAR-10"
    FOLDER = "cifar-10-batches-py"
    CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return list(self.CLASSES)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        import torchvision

        part = torchvision.datasets.CIFAR10(self.root, train=train, download=self.download)
        return torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)
