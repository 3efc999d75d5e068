"""What every model promises that a task trains and that checkpoints hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Batches, Codec
from inkdrop.errors import require_finite
from inkdrop.pictures import Automatic, View


class Model(nn.Module):
    """A model that a task trains and that checkpoints hold: a pipeline, a classifier, an autoencoder, a GAN.

    - `network`: what is compiled and whose calls are counted.
    - `codec`: the map between raw data and what the network sees.
    - `shape`: the shape of x without the batch.
    - `classes`: the names of the classes in the order of their numbers, if they have names.
    - `draws`: whether `model(batch, seeds)` draws raw data, so that pictures, evaluations and sample.py can call it.
    - `guides`: the choice of `guidance` that takes the model, if it guides others.
    - `view`: how its data are looked at and written.
    - `adapters`: the changes of a trained model by name; none where `adapt` has not been called.
    - `estimate`: what its network estimates, as a formula, for a model without times.
    """

    network: nn.Module
    codec: Codec
    shape: tuple[int, ...]
    classes: Sequence[str] = ()
    draws: bool = False
    guides: str | None = None
    view: View = Automatic()
    adapters: Mapping[str, Any] = MappingProxyType({})
    estimate: str = ""

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.parameters(), torch.empty(0)).device

    @property
    def names(self) -> list[str]:
        """The names of the conditions that the model takes."""
        return []

    def adapt(self) -> None:
        """Changes the model by its adapters, if it has some, once the weights of the base are in it."""

    def fit(self, batches: Batches, device: torch.device) -> None:
        """Fits the codec to the training data."""
        self.codec.fit(batches, device)

    @abstractmethod
    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch for these seeds from the conditions that a user names.

        Raises `ValueError` for unknown conditions.
        """

    def check_item(self, item: Tensor) -> None:
        """Raises `ValueError` if codec or view do not suit raw data (B, *) of the type and shape of this item."""
        self.codec.check(item)
        self.view.check(item)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` if fields of a raw batch are missing or do not suit the model."""

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns a raw batch of any valid condition, by which the model is checked."""
        return self.request(range(count))

    def check(self) -> None:
        """Raises `ValueError` if the parts of the model do not fit each other."""

    @torch.no_grad()
    def in_one_call(
        self,
        make: Callable[[], Tensor],
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        progress: Callable[[int, int, Tensor], None] | None,
    ) -> Tensor:
        """Returns raw data (B, *) of the x (B, *) that `make` returns, for a model that draws without steps.

        - `make`: returns x; the model is in evaluation mode meanwhile.
        - `batch`, `seeds`: what the model was called with.
        - `progress`: is called once, as after the only step.

        Raises `NonFiniteError` with the seeds of samples that are not finite.
        """
        training = self.training
        self.eval()
        try:
            x = make()
        finally:
            self.train(training)
        require_finite(x, "the samples with seeds", list(seeds))
        if progress is not None:
            progress(1, 1, x)
        return self.codec.decode(x, batch)
