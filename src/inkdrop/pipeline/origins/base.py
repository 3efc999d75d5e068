"""What every origin promises: it says where the samples of a run start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from inkdrop.files.pictures import read_in_turn
from inkdrop.pipeline.base import Pipeline

Files: TypeAlias = str | list[str]  # a file, or files that samples take in turn


class Start(NamedTuple):
    """Where a run starts: `eps` (B, *), or raw `data` (B, *) noised to `t_start`; None is the noise of the seeds."""

    eps: Tensor | None = None
    data: Tensor | None = None
    t_start: float = 1.0


class Origin(ABC):
    """Where samples start, in place of the noise of their seeds.

    `image` names the data that samples start from, a file or a list of files that samples take in turn. An origin with
    `takes_items` starts from held-out items instead, one for each sample.
    """

    image: Files | None = None
    checkpoint: str | None = None  # the run whose held-out items it takes; None is that of the samples
    takes_items: bool = False

    def check(self, pipeline: Pipeline) -> None:  # noqa: B027
        """Raises `ValueError` if samples of this pipeline cannot start here."""

    def sources(self, pipeline: Pipeline, seeds: Sequence[int], items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns what the samples with these seeds start from, as fields with a row for each sample.

        - `seeds`: seeds of all samples.
        - `items`: the held-out items of these samples, if there are any.

        Raises `ValueError` for files that cannot be read or do not have the shape of samples.
        """
        if self.image is None:
            return dict(items)
        images = read_in_turn(self.image, "origin.image", seeds, len(pipeline.shape))
        encoded = pipeline.codec.encode({"x": images[:1].to(pipeline.device)})
        if encoded.shape[1:] != pipeline.shape:
            shapes = f"{list(images.shape[1:])}, but samples of this model are made of x of {list(pipeline.shape)}"
            raise ValueError(f"origin.image has the shape {shapes}: give data of the shape of the training data")
        return {"x": images}

    @abstractmethod
    def begin(self, pipeline: Pipeline, sources: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Start:
        """Returns the start of some of the samples.

        - `sources`: the rows of these samples of what `sources` returned.
        - `batch`: their raw conditions.
        """

    def facts(self, pipeline: Pipeline, sources: Mapping[str, Tensor], samples: Tensor) -> dict[str, Any]:
        """Returns facts for `result.json`: the RMS of x between all samples (N, *) and the data they start from."""
        if "x" not in sources:
            return {}
        start, end = (
            pipeline.codec.encode({name: value.to(pipeline.device) for name, value in {**sources, "x": x}.items()})
            for x in (sources["x"], samples)
        )
        return {"rms_to_origin": float(torch.sub(start, end).double().square().mean().sqrt())}
