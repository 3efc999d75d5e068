"""The logger of TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class TensorBoard(TensorBoardLogger):
    """Writes metrics and pictures as event files to `folder`; raises `ValueError` if TensorBoard is not installed."""

    def __init__(self, folder: str):
        try:
            super().__init__(folder, name="", version="")
        except ModuleNotFoundError:
            raise ValueError("logger=tensorboard requires TensorBoard: pip install 'inkdrop[tensorboard]'") from None

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Logs pictures (H, W, C) under a name."""
        for number, picture in enumerate(images):
            name = key if len(images) == 1 else f"{key}/{number}"
            self.experiment.add_image(name, picture, step, dataformats="HWC")
