"""Noise that comes with the data, such as the noise from which a teacher drew them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from inkdrop.noises.laws import Gaussian, Noise
from inkdrop.randomness import Generators


class Paired(Noise):
    """Noise that training takes from a field of the data: pairs (x_0, eps), for reflow or of a coupling.

    A flow that is trained on pairs of a teacher leads along nearly straight lines from each noise to its data. Sampling
    draws from `law`, which is standard normal where it is null. Raises `ValueError` for data without the field. Source:
    Liu et al. 2023, arXiv 2209.03003.
    """

    def __init__(self, field: str = "eps", law: Noise | None = None):
        self.field, self.law = field, law or Gaussian()
        self.standard = self.law.standard

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.law(shape, generators, dtype)

    def example(self, shape: Iterable[int], count: int) -> dict[str, Tensor]:
        return {self.field: torch.zeros(count, *shape)}

    def within(self, batch: Mapping[str, Tensor]) -> Noise:
        if "x" not in batch:
            return self
        if self.field not in batch:
            raise ValueError(
                f"the data have no {self.field}, the noise of noise=paired; available: {', '.join(batch)}: add it to "
                "data.fields"
            )
        return _Given(batch[self.field], self.standard)


class _Given(Noise):
    """The noise of a batch."""

    def __init__(self, eps: Tensor, standard: bool):
        self.eps, self.standard = eps, standard

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.eps.reshape(-1, *shape).to(dtype)
