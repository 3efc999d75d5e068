"""The handwritten digits of MNIST."""

from __future__ import annotations

from torch import Tensor, nn

from inkdrop.data.published import Published


class MNIST(Published):
    """MNIST: 70,000 grey digits of 28 x 28 pixels, 60,000 for training and 10,000 held out.

    With the shape [1, 14, 14] or [1, 7, 7] pixels are means of squares of 2 x 2 or 4 x 4, for the stages of a cascade.

    Raises `ValueError` for another shape. Source: LeCun et al. 1998, Proceedings of the IEEE 86 (11).
    """

    SIZES = (28, 14, 7)
    NAME = "MNIST"
    FOLDER = "MNIST/raw"
    FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

    def verify(self) -> None:
        super().verify()
        if self.shape not in ([1, size, size] for size in self.SIZES):
            raise ValueError(f"data.shape={self.shape} must be [1, 28, 28], [1, 14, 14] or [1, 7, 7] for MNIST")

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        import torchvision

        part = torchvision.datasets.MNIST(self.root, train=train, download=self.download)
        images, factor = part.data[:, None], self.SIZES[0] // self.shape[-1]
        if factor == 1:
            return images, part.targets
        return nn.functional.avg_pool2d(images.float(), factor).round().to(images.dtype), part.targets
