"""The handwritten digits of MNIST."""

from __future__ import annotations

from torch import Tensor

from inkdrop.data.published import Published


class MNIST(Published):
    """MNIST: 70,000 grey digits of 28 x 28 pixels, 60,000 for training and 10,000 held out.

    Source: LeCun et al. 1998, Proceedings of the IEEE 86 (11).
    """

    SHAPE = (1, 28, 28)
    NAME = "MNIST"
    FOLDER = "MNIST/raw"
    FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        import torchvision

        part = torchvision.datasets.MNIST(self.root, train=train, download=self.download)
        return part.data[:, None], part.targets
