"""TensorBoard, with pictures."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class TensorBoard(TensorBoardLogger):
    """Writes event files to `folder`; `ValueError` if TensorBoard is not installed."""

    def __init__(self, folder: str):
        try:
            super().__init__(folder, name="", version="")
        except ModuleNotFoundError:
            raise ValueError("logger=tensorboard needs TensorBoard: pip install 'inkdrop[tensorboard]'") from None

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Pictures (H, W, C) under a name."""
        for number, picture in enumerate(images):
            name = key if len(images) == 1 else f"{key}/{number}"
            self.experiment.add_image(name, picture, step, dataformats="HWC")
