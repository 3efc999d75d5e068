"""Series from a table of the user: a CSV or numpy file with a column for each series."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import Derive
from inkdrop.data.numbers import SUFFIXES, read_csv
from inkdrop.data.windows import Windows
from inkdrop.errors import DataError
from inkdrop.files.arrays import Npz, map_npy
from inkdrop.files.locations import Location
from inkdrop.files.showing import harmless, warn

_MOST_STEPS = 10**7  # with those that are missing


class SeriesTable(Windows):
    """Your own series: a table with a row for each step and a column for each series, in windows.

    Empty cells, NA, and steps that the times leave out are missing numbers, which a warning counts. Windows with
    missing numbers do not train. Arguments beyond those of `Windows`:

    - `path`: a .csv or .tsv with a header, or a .npy or .npz of an array (steps, C).
    - `columns`: names of the series in a .csv, or numbers of columns of an array; null is all columns of numbers.
    - `time`: the column of a .csv with the times, such as 2024-01-31 or 2024-01-31T12:00; null is evenly spaced rows.
    - `frequency`: the time of a step, such as 1D, 1h or 15m, or B for working days; null is the most frequent one.

    Raises `DataError` for a file that cannot be read, and for times that repeat or lie between two steps.
    """

    def __init__(
        self,
        path: Location,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        history: Annotated[int, Ge(2)],
        num_windows: Annotated[int, Ge(1)],
        columns: list[Any] | None = None,
        time: str | None = None,
        frequency: str | None = None,
        train_steps: Annotated[int, Ge(1)] | None = None,
        horizon: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(
            shape, num_classes, batch_size, history, num_windows, train_steps, horizon, seed, derive=derive
        )
        self.path, self.columns, self.time, self.frequency = Path(path), columns, time, frequency

    def verify(self) -> None:
        if not self.path.is_file():
            raise DataError(f"{self.path} is missing: set data.path to a .csv, .tsv, .npy or .npz file")

    def values(self) -> Tensor:
        self.verify()
        series = self._of_csv() if self.path.suffix in SUFFIXES else self._of_array()
        series = np.where(np.isfinite(series), series, np.nan).astype(np.float32)
        if missing := int(np.isnan(series).any(1).sum()):
            warn(f"{self.path}: {missing} of {len(series)} steps have missing numbers: windows with them do not train")
        return torch.from_numpy(series)

    def _of_array(self) -> np.ndarray:
        if self.path.suffix not in (".npy", ".npz"):
            raise DataError(f"{self.path} is not a .csv, .tsv, .npy or .npz file: set data.path to one of these")
        if self.time is not None:
            raise DataError(f"data.time={self.time} names a column of a .csv: set it to null for {self.path.name}")
        arrays = {"x": map_npy(self.path, DataError)} if self.path.suffix == ".npy" else Npz(self.path, DataError)
        name = "x" if "x" in arrays else next(iter(arrays), "x")
        if name not in arrays or arrays[name].ndim != 2 or arrays[name].dtype.kind not in "iuf":
            raise DataError(f"{self.path} has no array of numbers (steps, C): save one, called x")
        array = np.asarray(arrays[name], float)
        if self.columns is None:
            return array
        if wrong := [each for each in self.columns if type(each) is not int or not 0 <= each < array.shape[1]]:
            raise DataError(
                f"data.columns has {harmless(str(wrong[0]))}, which is not among the {array.shape[1]} columns of "
                f"{self.path}: choose 0 to {array.shape[1] - 1}"
            )
        return array[:, self.columns]

    def _of_csv(self) -> np.ndarray:
        fields = [self.time] if self.time else []
        table = {name: each for name, each in read_csv(self.path, fields, np.nan).items() if each.ndim == 1}
        numbers = [name for name, each in table.items() if each.dtype.kind in "if" and name not in fields]
        chosen = numbers if self.columns is None else [str(each) for each in self.columns]
        if unknown := [name for name in [*chosen, *fields] if name not in table]:
            raise DataError(
                f"{self.path} has no column {harmless(unknown[0])} (available: {harmless(', '.join(table))}): set "
                "data.columns and data.time to names of its header"
            )
        if odd := [name for name in chosen if name not in numbers]:
            raise DataError(f"{self.path}: column {harmless(odd[0])} has no numbers: remove it from data.columns")
        series = np.stack([table[name] for name in chosen], axis=1).astype(float)
        return series if self.time is None else self._placed(series, table[self.time])

    def _placed(self, series: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """The series with a row for each step of the frequency, nan where the table has none."""
        try:
            times = np.array(texts.astype(str), "datetime64[s]")
        except ValueError as error:
            raise DataError(
                f"{self.path}, column {harmless(str(self.time))}: {harmless(str(error))}: write times as 2024-01-31 or "
                "2024-01-31T12:00"
            ) from None
        if self.frequency == "B":
            days = times.astype("datetime64[D]")
            steps = np.busday_count(days[0], days)
        else:
            unit = self._unit(times)
            steps = (times - times[0]) // unit
            if off := ((times - times[0]) % unit).astype(int).nonzero()[0].tolist():
                raise DataError(
                    f"{self.path}: the time {times[off[0]]} lies between two steps of {unit}: set data.frequency"
                )
        if back := (np.diff(steps) <= 0).nonzero()[0].tolist():
            raise DataError(
                f"{self.path}: the time {times[back[0] + 1]} does not follow {times[back[0]]} by a step: sort the "
                "rows, remove those that repeat, or set data.frequency; a table has one row for each time, and a "
                "column for each series"
            )
        if steps[-1] >= _MOST_STEPS:
            raise DataError(f"{self.path} spans {steps[-1]:,} steps: set data.frequency to a longer one")
        placed = np.full((int(steps[-1]) + 1, series.shape[1]), np.nan)
        placed[steps] = series
        if gaps := int((np.diff(steps) > 1).sum()):
            first = times[(np.diff(steps) > 1).argmax()]
            warn(f"{self.path}: {len(placed) - len(series)} steps are left out in {gaps} gaps, the first after {first}")
        return placed

    def _unit(self, times: np.ndarray) -> np.timedelta64:
        """The time of a step, in seconds."""
        if self.frequency is None:
            values, counts = np.unique(np.diff(times), return_counts=True)
            if not len(values) or values[counts.argmax()] <= np.timedelta64(0, "s"):
                raise DataError(
                    f"{self.path}: its times do not grow by steps: sort the rows, write one row for each time with a "
                    "column for each series, or set data.time to another column or null"
                )
            return values[counts.argmax()]
        count, unit = self.frequency[:-1] or "1", self.frequency[-1]
        if not count.isdigit() or int(count) < 1 or unit not in "WDhms":
            raise ValueError(
                f"data.frequency={self.frequency} must be B, or a number and one of W, D, h, m, s: 15m, 1D"
            )
        return np.timedelta64(int(count), unit).astype("timedelta64[s]")  # type: ignore[call-overload]
