"""The loss of an autoregressive model of texts."""

from __future__ import annotations

from torch import Tensor

from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.models.autoregressive import Autoregressive
from inkdrop.randomness import Generators


class NextToken(Loss):
    """The cross-entropy `-log p(x_i | x_<i)` of the tokens of a text, its sum divided by the places of x.

    The part `nats` is -log p of a whole text. The loss requires `task=autoregressive`.
    """

    @property
    def logged(self) -> tuple[str, ...]:
        return ("nats",)

    def check(self, model: Autoregressive) -> None:
        if not hasattr(model, "each_nats"):
            raise ValueError(f"loss=next_token cannot train {type(model).__name__}: set task=autoregressive")

    def forward(
        self, model: Autoregressive, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        nats = model.each_nats(example.x_0).sum(1)
        loss = example.weighed(nats / example.x_0.shape[2])
        return LossTerms(loss, None, {"error": loss.detach(), "nats": nats.detach()})
