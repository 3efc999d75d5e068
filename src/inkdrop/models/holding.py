"""How a model holds another one that it does not train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T", bound="Frozen")


class Frozen(nn.Module):
    """A model within another, such as the autoencoder of a codec; calls go to the model.

    Its weights are saved with those of the outer model, once: they have no gradient, so that neither the optimizer nor
    an average of weights knows them. It stays in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.hold(model.requires_grad_(False).eval())

    def hold(self, model: nn.Module) -> None:
        """Keeps the model."""
        self._model = model

    @property
    def model(self) -> Any:
        """The model itself."""
        return self._model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def train(self: T, mode: bool = True) -> T:
        """Does nothing: it is never trained."""
        return self


class Reference(Frozen):
    """A model that training needs and sampling does not, such as a teacher or a perceptual network.

    It follows the outer model from device to device, but is saved nowhere: a run that resumes reads its file again.
    """

    def hold(self, model: nn.Module) -> None:
        self._held = (model,)  # a tuple is no submodule

    @property
    def model(self) -> Any:
        return self._held[0]

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        self.model._apply(fn, recurse)
        return super()._apply(fn, recurse)
