"""What every likelihood promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from inkdrop.denoiser import Condition
from inkdrop.errors import NonFiniteError
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators


class Likelihood(ABC):
    """A measure of -log2 p of raw data under their conditions, divided by the number of elements of the raw data.

    The model is the denoiser of the pipeline, without guidance. For levels, such as the 256 of a pixel, p is a
    probability and the result is above 0. For real numbers p is a density in the unit of the data.
    """

    unit: ClassVar[str] = "bits_per_dim"  # prefix of the names of the results

    @abstractmethod
    def __call__(self, pipeline: Pipeline, batch: Mapping[str, Tensor], generators: Generators) -> dict[str, Tensor]:
        """Returns named values (B), float64 on the CPU, for a raw batch and one stream per sample."""

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """Returns results from the means of the named values over all items; by default these means."""
        return dict(means)

    def settings(self) -> dict[str, Any]:
        """Returns what the result depends on besides model and data: the kind of likelihood and its options."""
        return {"likelihood": type(self).__name__, **{name: _recorded(option) for name, option in vars(self).items()}}

    def check(self, pipeline: Pipeline) -> None:
        """Raises `ValueError` if this likelihood is not defined for the pipeline."""
        noise = pipeline.denoiser.noise
        if not noise.standard:
            raise ValueError(f"the likelihood needs eps ~ N(0, I), not {type(noise).__name__}: set likelihood=none")


@contextmanager
def prepared(pipeline: Pipeline, batch: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], Condition]]:
    """Yields raw batch and condition on the device of the pipeline, without dropout and gradients of weights."""
    device = next(pipeline.parameters(), torch.empty(0)).device
    training = pipeline.training
    pipeline.eval()
    try:
        # The divergence needs a graph, which tensors of inference mode cannot have.
        with torch.inference_mode(False), torch.no_grad():
            batch = {name: value.to(device, copy=True) for name, value in batch.items()}
            yield batch, pipeline.conditioner(batch)
    finally:
        pipeline.train(training)


def _recorded(option: Any) -> Any:
    """Returns an option for a record: a function by its name."""
    return getattr(getattr(option, "func", option), "__name__", option)


def finite(values: Tensor, what: str) -> Tensor:
    """Returns values (B) in float64 on the CPU; raises `NonFiniteError` with `what` they are unless all are finite."""
    if not bool(values.isfinite().all()):
        raise NonFiniteError(f"the {what} of some items is not finite: evaluate an earlier checkpoint")
    return values.cpu().double()
