"""What every adapter promises: it changes a built model in place, and alone is trained."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Adapter(ABC):
    """A change of a trained model by few further weights: `adapter(model, name)`.

    It is applied after the weights of the base are in the model, and before its own are. `scale` is its strength: with
    0 the model is the base to the bit. A model may have several adapters under different names.
    """

    scale: float

    @abstractmethod
    def __call__(self, model: nn.Module, name: str) -> Iterable[nn.Parameter]:
        """Changes a model in place under this name, and returns the weights that are trained.

        Raises `ValueError` for a model that cannot be changed in this way.
        """

    @abstractmethod
    def rescale(self, model: nn.Module, name: str, scale: float) -> None:
        """Sets the strength with which the adapter of this name acts on the model that it has changed."""

    def limit(self, model: nn.Module, name: str, interval: tuple[float, float] | None) -> None:
        """Sets the noise levels sigma / alpha at which the adapter of this name acts; None is all.

        Raises `ValueError` for an adapter that acts at all of them.
        """
        if interval is not None:
            raise ValueError(
                f"adapter.interval has no effect on {type(self).__name__}, which changes the weights: remove it"
            )

    def merge(self, model: nn.Module, name: str) -> None:
        """Adds the adapter to the weights of the base, and removes its layers.

        Raises `ValueError` for an adapter that is more than a change of weights.
        """
        raise ValueError(f"{type(self).__name__} is more than a change of weights: it cannot be merged")


def digest(weights: Mapping[str, Tensor]) -> Tensor:
    """Returns the SHA-256 of names, types, shapes and values of weights, as (32), uint8."""
    hashed = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        hashed.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        hashed.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(hashed.digest()), dtype=torch.uint8)
