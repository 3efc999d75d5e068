"""The loss of a GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from inkdrop.losses.adversary import Adversary
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.randomness import Generators


class AdversarialLoss(Loss):
    """The losses of generator and discriminator, which one optimizer steps at once, each clipped by its own norm.

    Source: Goodfellow et al. 2014, arXiv 1406.2661, section 3.
    """

    def __init__(self, adversary: Adversary):
        super().__init__()
        self.adversary = adversary

    @property
    def logged(self) -> tuple[str, ...]:
        return ("generator", "discriminator")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {"discriminator": self.adversary}

    def forward(self, model: Any, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
        made = model.made(generators.at("start"))
        parts = {
            "generator": self.adversary.generator(made),
            "discriminator": self.adversary.discriminator(example.x_0, made),
        }
        return LossTerms(example.weighed(parts["generator"] + parts["discriminator"]), None, parts)
