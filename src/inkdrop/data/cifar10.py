"""The photographs of CIFAR-10."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge

from inkdrop.data.module import Augment, DataError, DataModule, Split, data_dir


class CIFAR10(DataModule):
    """60,000 photographs, 32 x 32, uint8 RGB, with labels: 50,000 `train`, 10,000 `validation` (its test part).

    Read from `root/cifar-10-batches-py` as torchvision lays it out; `root` null is `INKDROP_DATA_DIR`, or `data`.
    `DataError` if the files are absent, unless `download`, or damaged.
    Source: Krizhevsky 2009, Learning multiple layers of features from tiny images.
    """

    FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        root: str | None = None,
        download: bool = False,
    ):
        super().__init__(shape, num_classes, batch_size, seed, augment)
        self.root, self.download = data_dir(root), download

    def verify(self) -> None:
        folder = self.root / "cifar-10-batches-py"
        missing = [name for name in self.FILES if not (folder / name).is_file()]
        if missing and not self.download:
            raise DataError(
                f"{folder / missing[0]} is missing: set data.root or INKDROP_DATA_DIR to the folder that holds "
                "cifar-10-batches-py/, or data.download=true to fetch it"
            )

    def load(self) -> dict[str, Split]:
        import torchvision

        self.verify()
        try:
            parts = {
                "train": torchvision.datasets.CIFAR10(self.root, train=True, download=self.download),
                "validation": torchvision.datasets.CIFAR10(self.root, train=False, download=self.download),
            }
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"CIFAR-10 in {self.root} cannot be read or fetched: {error}") from None
        return {
            name: {
                "x": torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
                "label": torch.tensor(part.targets),
            }
            for name, part in parts.items()
        }
