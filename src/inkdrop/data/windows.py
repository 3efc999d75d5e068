"""Windows of series: what is forecast, and the history before it."""

from __future__ import annotations

import gzip
import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import Column, Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files import open_regular
from inkdrop.files.locations import Location, data_dir


class Windows(DataModule):
    """Windows of series with C channels: `x` (C, T), and `history` (C, L), the steps before it.

    A training window is at each step of the training part. `validation` has the published protocol of rolling windows:
    forecasts of `horizon` steps that follow one another, the first of them right after the training part. Arguments
    beyond those of `DataModule`:

    - `shape`: [C, T].
    - `history`: number of steps L before a window.
    - `num_windows`: number of held-out windows.
    - `train_steps`: number of steps of the training part; null is all but those of the held-out windows.
    - `horizon`: number of steps at the end of x that are forecast; null is all of x.

    Raises `DataError` for series that are too short.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        history: Annotated[int, Ge(2)],
        num_windows: Annotated[int, Ge(1)],
        train_steps: Annotated[int, Ge(1)] | None = None,
        horizon: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        if len(shape) != 2:
            raise ValueError(f"data.shape={shape} must be [C,T], the channels and the steps of a window")
        super().__init__(shape, num_classes, batch_size, seed, num_workers=0, derive=derive)
        self.history, self.num_windows, self.train_steps = history, num_windows, train_steps
        self.horizon = horizon or shape[1]
        if self.horizon > shape[1]:
            raise ValueError(f"data.horizon={horizon} is longer than a window of {shape[1]} steps: lower it")

    @abstractmethod
    def values(self) -> Tensor:
        """Returns the series as (steps, C), float32; nan is a missing number."""

    def fields(self, count: int) -> Split:
        """Returns further fields of `count` held-out windows, such as the law that they follow."""
        return {}

    def example(self) -> Tensor:
        return torch.zeros(1, *self.shape)

    def load(self) -> dict[str, Split]:
        series = self.values()
        steps, channels = series.shape
        if channels != self.shape[0]:
            raise DataError(f"data.shape={self.shape}, but the series have {channels} channels: set data.shape to it")
        train = self.train_steps or steps - self.num_windows * self.horizon
        length = self.history + self.shape[1]
        ends = train + self.horizon * torch.arange(1, self.num_windows + 1)
        if train < length or ends[-1] > steps:
            needed = max(length, train) + self.num_windows * self.horizon
            raise DataError(
                f"the series have {steps} steps, but a window with its history takes {length}, and training and "
                f"{self.num_windows} held-out windows take {needed}: lower data.history, data.num_windows or "
                "data.train_steps"
            )
        starts = torch.arange(train - length + 1)
        whole = ~series.isnan().any(1)
        gaps = torch.cat([torch.zeros(1), (~whole).cumsum(0)])
        starts = starts[gaps[starts + length] == gaps[starts]]
        if not len(starts):
            raise DataError(f"every training window of {length} steps has a missing number: lower data.history")
        held = ends - length
        if broken := (gaps[ends] > gaps[held]).nonzero().flatten().tolist():
            raise DataError(
                f"held-out window {broken[0]} or its history has a missing number: fill it in, or change "
                "data.train_steps"
            )
        return {
            "train": self._split(series, starts),
            "validation": {**self._split(series, held), **self.fields(self.num_windows)},
        }

    def _split(self, series: Tensor, starts: Tensor) -> dict[str, Column]:
        x = Slices(series, starts + self.history, self.shape[1])
        return {"x": x, "history": Slices(series, starts, self.history)}

    def _workers(self, split: Split) -> int:
        return 0


class Slices:
    """A column of windows (C, length) of series (steps, C), cut when a batch needs them."""

    dtype = torch.float32

    def __init__(self, series: Tensor, starts: Tensor, length: int):
        self.series, self.starts, self.length = series, starts, length
        self.shape: Sequence[int] = (len(starts), series.shape[1], length)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, items: Tensor, /) -> Tensor:
        steps = self.starts[items][:, None] + torch.arange(self.length)
        return self.series[steps].transpose(1, 2).contiguous()

    def digest(self) -> str:
        """Returns the SHA-256 of the series and of the places of the windows."""
        digest = hashlib.sha256(self.series.contiguous().numpy().tobytes())
        digest.update(self.starts.numpy().tobytes() + str(self.length).encode())
        return digest.hexdigest()


class ExchangeRate(Windows):
    """Daily exchange rates of eight countries from 1990 to 2016, 7,588 working days, in the windows of GluonTS.

    6,071 days train, and the five forecasts of 30 days after them are held out. It is read from `exchange_rate/` in
    `root`; null is `INKDROP_DATA_DIR`, or `data`. Raises `DataError` if the file is missing or damaged. Source: Lai et
    al. 2018, arXiv 1703.07015.
    """

    FILE = "exchange_rate/exchange_rate.txt.gz"

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        history: Annotated[int, Ge(2)],
        num_windows: Annotated[int, Ge(1)],
        train_steps: Annotated[int, Ge(1)] | None = 6071,
        horizon: Annotated[int, Ge(1)] | None = None,
        seed: Annotated[int, Ge(0)] = 0,
        root: Location | None = None,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(
            shape, num_classes, batch_size, history, num_windows, train_steps, horizon, seed, derive=derive
        )
        self.path = data_dir(root) / self.FILE

    def verify(self) -> None:
        if not self.path.is_file():
            raise DataError(
                f"{self.path} is missing: set data.root or INKDROP_DATA_DIR to the folder that holds exchange_rate/, "
                "from github.com/laiguokun/multivariate-time-series-data"
            )

    def values(self) -> Tensor:
        self.verify()
        try:
            with open_regular(self.path) as file, gzip.open(file, "rt") as lines:
                rows = np.loadtxt(lines, dtype=np.float32, delimiter=",", ndmin=2, max_rows=100_000)
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        return torch.from_numpy(rows)
