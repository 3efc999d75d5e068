"""What every view of data promises, and what is written of the conditions of samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded, is_text

NOTHING: Mapping[str, Tensor] = MappingProxyType({})
_MOST = 64  # numbers of one condition that are written


class View(ABC):
    """How data of one kind are looked at and written; raw data are (B, *), and pictures are uint8 arrays (H, W, C).

    `kind` names the data that the view shows, for messages.
    """

    kind: str = "data of any kind"

    def fits(self, data: Tensor) -> bool:
        """Returns whether this view shows raw data (B, *) of this type and shape."""
        return True

    def check(self, data: Tensor) -> None:
        """Raises `ValueError` if this view does not show raw data (B, *) of this type and shape."""
        if not self.fits(data):
            shown = f"{list(data.shape[1:])} in {str(data.dtype).removeprefix('torch.')}"
            raise ValueError(
                f"view={harmless(type(self).__name__).lower()} shows {self.kind}, but the data are of shape {shown}: "
                "choose another view, or leave the option out"
            )

    @abstractmethod
    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        """Returns a picture (H, W, C) of raw data (B, *) under the raw conditions of `batch`.

        A view that shows each sample by itself puts `columns` of them in a row; None chooses a number.
        """

    def rows(self, groups: Sequence[Tensor]) -> np.ndarray | None:
        """Returns a picture (H, W, C) with a row for each group of raw data, such as a class or a trajectory.

        It is None for a view that does not show each sample by itself.
        """
        return None

    def frames(self, states: Sequence[Tensor], batch: Mapping[str, Tensor] = NOTHING) -> list[np.ndarray]:
        """Returns a picture (H, W, C) of each state (B, *) of a batch that is denoised, all of one size."""
        return [self.sheet(state, batch) for state in states]

    def array(self, data: Tensor) -> np.ndarray:
        """Returns raw data (B, *) as the array that `samples.npz` stores, which `data=arrays` reads."""
        return data.cpu().numpy()

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        """Returns the names of the files that `write` makes in its folder; `data` may be one example (1, *)."""
        return []

    @abstractmethod
    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        """Writes samples with their seeds and conditions in files of their kind.

        - `folder`: the folder of the files.
        - `data`: raw samples (B, *).
        - `batch`: raw conditions by name, each (B, *).
        - `seeds`: seed of each sample.
        - `classes`: names of the classes in the order of `label`; nothing if they are only numbers.
        """


def conditions_of(batch: Mapping[str, Tensor], classes: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Returns the conditions of each sample as plain values by name.

    Classes with names are these names, texts are strings, and unknown numbers are None. Conditions of many
    numbers, such as images, are left out.
    """
    plain: dict[str, list[Any]] = {}
    for name, values in batch.items():
        if is_text(values):
            plain[name] = decoded(values)
        elif values.dim() <= 2 and values[:1].numel() <= _MOST:
            plain[name] = _without_nan(values.tolist())
    if "label" in plain and classes and batch["label"].dim() == 1:
        plain["label"] = [classes[number] if 0 <= number < len(classes) else number for number in plain["label"]]
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return value if math.isfinite(value) else None
