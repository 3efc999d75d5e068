"""The base class of data sets that torchvision reads and downloads."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import Augment, Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files.locations import Fetches, Location, data_dir


class Published(DataModule):
    """A published data set: its training part as `train` and its test part as `validation`, in memory, with labels.

    It is read from `root/FOLDER` in the layout of torchvision; `root` null is `INKDROP_DATA_DIR`, or `data`. With
    `download` missing files are downloaded. Raises `DataError` if one of `FILES` is missing or damaged.
    """

    NAME: str
    FOLDER: str
    FILES: tuple[str, ...]

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        root: Location | None = None,
        download: Fetches = False,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(shape, num_classes, batch_size, seed, augment, derive=derive)
        self.root, self.download = data_dir(root), download

    @abstractmethod
    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Returns the images (N, C, H, W), uint8, and the labels (N) of one part."""

    def verify(self) -> None:
        super().verify()
        folder = self.root / self.FOLDER
        missing = [name for name in self.FILES if not any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))]
        if missing and not self.download:
            raise DataError(
                f"{folder / missing[0]} is missing: set data.root or INKDROP_DATA_DIR to the folder that holds "
                f"{self.FOLDER.split('/')[0]}/, or set data.download=true to download it"
            )

    def load(self) -> dict[str, Split]:
        self.verify()
        splits: dict[str, Split] = {}
        for name in ("train", "validation"):
            try:
                x, labels = self.read(name == "train")
            except (RuntimeError, OSError, ValueError) as error:
                raise DataError(f"{self.NAME} in {self.root} cannot be read or downloaded: {error}") from None
            splits[name] = {"x": x, "label": labels}
        return splits
