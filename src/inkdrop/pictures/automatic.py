"""The view that the type and shape of the data choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from inkdrop.pictures.base import NOTHING, View
from inkdrop.pictures.images import Images
from inkdrop.pictures.points import Points
from inkdrop.pictures.series import Series

# The first view that fits the data shows them. A further kind of data, such as text, video, voxels, boxes, proteins or
# crystals, is a module of this package. It has its place here if type and shape tell it from the others; otherwise the
# experiments with such data name it, as in `view=text`.
_VIEWS: tuple[View, ...] = (Images(), Series(), Points())


class Automatic(View):
    """The view that fits the data: images, series or points."""

    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        return _fitting(data).sheet(data, batch, columns)

    def rows(self, groups: Sequence[Tensor]) -> np.ndarray | None:
        return _fitting(groups[0]).rows(groups)

    def frames(self, states: Sequence[Tensor], batch: Mapping[str, Tensor] = NOTHING) -> list[np.ndarray]:
        return _fitting(states[0]).frames(states, batch)

    def array(self, data: Tensor) -> np.ndarray:
        return _fitting(data).array(data)

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        return _fitting(data).files(data, batch, seeds, classes)

    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        _fitting(data).write(folder, data, batch, seeds, classes)


def _fitting(data: Tensor) -> View:
    return next(view for view in _VIEWS if view.fits(data))
