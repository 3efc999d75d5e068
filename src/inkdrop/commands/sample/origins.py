"""Initial noise of samples: that of their seeds, noise between two seeds, or the noise from which data items come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inkdrop.noises import slerp
from inkdrop.pipeline import Pipeline


class Origin:
    """The origin of usual samples: the noise of each sample's seed."""

    def noise(self, pipeline: Pipeline, conditions: Mapping[str, Tensor], items: Tensor) -> Tensor | None:
        """Returns eps (B, *) for the samples with these numbers (B), or None for the noise of their seeds."""
        return None

    def conditions(self, asked: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the raw batch of conditions; `asked` are those that the user requests."""
        return asked

    def facts(self, pipeline: Pipeline, samples: Tensor) -> dict[str, Any]:
        """Returns the facts for `result.json`, given all samples."""
        return {}


class Interpolation(Origin):
    """Noise in even steps on the great circle from the noise of one seed to that of another."""

    def __init__(self, seeds: list[int], count: int):
        self.seeds, self.count = seeds, count

    def noise(self, pipeline: Pipeline, conditions: Mapping[str, Tensor], items: Tensor) -> Tensor | None:
        first, second = (pipeline.start([seed]).expand(len(items), *pipeline.shape) for seed in self.seeds)
        return slerp(first, second, items / max(1, self.count - 1))

    def facts(self, pipeline: Pipeline, samples: Tensor) -> dict[str, Any]:
        return {"interpolate": self.seeds}


class Reconstruction(Origin):
    """Noise to which the inverted sampler maps held-out items; the samples are then reconstructions of these items.

    Raises `ValueError` if there are fewer than `count` items, or if the sampler has no inverse.
    """

    def __init__(self, pipeline: Pipeline, split: Mapping[str, Any], count: int):
        if count > len(split["x"]):
            raise ValueError(f"num_samples={count} is more than the {len(split['x'])} held-out items: lower it")
        try:
            pipeline.sampler.points_upwards(pipeline.denoiser.schedule)
        except ValueError as error:
            raise ValueError(f"reconstruct=true requires a sampler with an inverse: {error}") from None
        places = torch.arange(count)
        self.items = {name: torch.as_tensor(split[name][places]) for name in split}

    def conditions(self, asked: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: values for name, values in self.items.items() if name != "x"}

    def noise(self, pipeline: Pipeline, conditions: Mapping[str, Tensor], items: Tensor) -> Tensor | None:
        return pipeline.invert({**conditions, "x": self.items["x"][items]})

    def facts(self, pipeline: Pipeline, samples: Tensor) -> dict[str, Any]:
        device = next(pipeline.parameters(), torch.empty(0)).device
        there, back = (
            pipeline.codec.encode({name: value.to(device) for name, value in {**self.items, "x": x}.items()}).double()
            for x in (self.items["x"], samples)
        )
        return {"round_trip_rms": float((there - back).square().mean().sqrt())}
