"""The view of points and of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from inkdrop.pictures.base import NOTHING, View
from inkdrop.pictures.sheets import scatter
from inkdrop.pictures.tables import described, write_table

_TABLE = "samples.csv"


class Points(View):
    """Points of any number of coordinates, of which the first two are plotted; a table has a row for each point."""

    kind = "numbers of any shape"

    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        return scatter(data)

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        return [_TABLE]

    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        """Writes `samples.csv`: seed, conditions and coordinates x_0, x_1, ... of a point in each line."""
        names, rows = described(batch, seeds, classes)
        flat = data.flatten(1)
        names = [*names, *(f"x_{number}" for number in range(flat.shape[1]))]
        write_table(folder / _TABLE, names, (row + x for row, x in zip(rows, flat.tolist(), strict=True)))
