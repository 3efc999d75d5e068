"""The loss of an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from inkdrop.losses.adversary import Adversary
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.models import Model, Reference
from inkdrop.randomness import Generators, sent

_LARGEST = 1e4  # factor of the adversarial loss by the ratio of gradients


class Perceptual(nn.Module):
    """The squared distance `|f(x) - f(x')|^2` (B) between features of data and of their reconstructions.

    - `extractor`: an extractor of features f that have a gradient, such as a classifier of these data; it is saved
      nowhere.
    - `factor`: the factor in the loss.

    Raises `ValueError` for an extractor whose features have none. Source: Johnson et al. 2016, arXiv 1603.08155,
    section 3.2, without its choice of layers.
    """

    def __init__(self, extractor: Any, factor: Annotated[float, Ge(0)] = 1.0):
        super().__init__()
        self.extractor, self.factor = Reference(extractor), factor

    def forward(self, x: Tensor, made: Tensor) -> Tensor:
        self.extractor.model.ready()
        features = [self.extractor.model.of_levels(each) for each in (x, made)]
        return (features[0].detach() - features[1]).square().sum(1)


class AutoencodingLoss(Loss):
    """`-log p(x | z)` in nats and the penalty of the bottleneck: with that of a VAE, the negative ELBO.

    The part "error" is `-log p(x | z)`, and "rmse" is the root mean squared error of x.

    - `perceptual`: a distance of features that is added.
    - `adversary`: a discriminator of data and reconstructions, whose loss is added.
    - `factor`: the factor of its loss. It is multiplied by the ratio of the norms of the gradients of the error and of
      the adversarial loss at the last layer, so that both have a like part in every step.
    - `start`: the share of the run before which the adversary does nothing.

    The loss of validation has no adversarial part. Sources: Kingma and Welling 2014, arXiv 1312.6114, equation 3; Esser
    et al. 2021, arXiv 2012.09841, section 3.1, equation 7.
    """

    def __init__(
        self,
        perceptual: Perceptual | None = None,
        adversary: Adversary | None = None,
        factor: Annotated[float, Ge(0)] = 0.5,
        start: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ):
        super().__init__()
        self.perceptual, self.adversary, self.factor, self.start = perceptual, adversary, factor, start
        self._of_bottleneck: tuple[str, ...] = ()

    @property
    def logged(self) -> tuple[str, ...]:
        added = {"perceptual": self.perceptual, "generator": self.adversary, "discriminator": self.adversary}
        return ("error", "rmse", *self._of_bottleneck, *(name for name, each in added.items() if each is not None))

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {} if self.adversary is None else {"discriminator": self.adversary}

    def check(self, model: Model) -> None:
        """Raises `ValueError` for a model without a bottleneck."""
        if not hasattr(model, "bottleneck"):
            raise ValueError(f"loss=autoencoding trains an autoencoder, not a {type(model).__name__}: choose its loss")
        self._of_bottleneck = model.bottleneck.logged  # type: ignore[assignment, union-attr]
        if self.perceptual is not None:
            levels = model.codec.reconstruct(torch.zeros(1, *model.shape))
            self.perceptual(levels, levels)

    def forward(self, model: Any, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
        x = example.x_0
        code = model.code(model.encoder(x), generators.at("code"))
        output = model.network(code.z)
        error, mean = model.observation.nats(x, output), model.observation.mean(output)
        parts = {"error": error, "rmse": (x - mean).square().flatten(1).mean(1).sqrt(), **code.parts}
        loss = error + code.penalty
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(*(model.codec.reconstruct(each) for each in (x, mean)))
            loss = loss + self.perceptual.factor * parts["perceptual"]
        if self.adversary is not None:
            parts["generator"] = self.adversary.generator(mean)
            parts["discriminator"] = self.adversary.discriminator(x, mean)
            if torch.is_grad_enabled():
                share = self.factor * _ratio(loss, parts["generator"], model.network.last)
                loss = loss + self._begun(example) * (share * parts["generator"] + parts["discriminator"])
        return LossTerms(example.weighed(loss), None, parts)

    def _begun(self, example: Example) -> Tensor | int:
        """1 (B) for the samples for which the adversary acts, else 0."""
        return 1 if example.progress is None else sent((example.progress >= self.start).float(), example.x_0.device)


def _ratio(loss: Tensor, other: Tensor, weight: nn.Parameter) -> Tensor:
    """The ratio of the norms of the gradients of two losses (B) with respect to a weight."""
    norms = [torch.autograd.grad(each.mean(), weight, retain_graph=True)[0].norm() for each in (loss, other)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=_LARGEST)
