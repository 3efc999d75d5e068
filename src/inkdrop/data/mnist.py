"""The handwritten digits of MNIST."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from inkdrop.data.module import Augment, DataError, DataModule, Split, data_dir


class MNIST(DataModule):
    """70,000 digits, 28 x 28, uint8, with labels: 60,000 `train`, 10,000 `validation` (its test part).

    Read from `root/MNIST/raw` as torchvision lays it out; `root` null is `INKDROP_DATA_DIR`, or `data`. `DataError` if
    the files are absent, unless `download`. Source: LeCun et al. 1998, Proceedings of the IEEE 86 (11).
    """

    FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

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
        folder = self.root / "MNIST" / "raw"
        missing = [name for name in self.FILES if not any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))]
        if missing and not self.download:
            raise DataError(
                f"{folder / missing[0]} is missing: set data.root or INKDROP_DATA_DIR to the folder that holds MNIST/, "
                "or data.download=true to fetch it"
            )

    def load(self) -> dict[str, Split]:
        import torchvision

        self.verify()
        try:
            parts = {
                "train": torchvision.datasets.MNIST(self.root, train=True, download=self.download),
                "validation": torchvision.datasets.MNIST(self.root, train=False, download=self.download),
            }
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"MNIST in {self.root} cannot be read or fetched: {error}") from None
        return {name: {"x": part.data[:, None], "label": part.targets} for name, part in parts.items()}
