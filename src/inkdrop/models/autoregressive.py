"""The autoregressive model of texts: one token after another.

B batch, V tokens, L places.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.codecs.vocabulary import END, OPEN, PADDING
from inkdrop.files.texts import requested
from inkdrop.models.base import Model
from inkdrop.pictures import Automatic, View
from inkdrop.randomness import Generators


class Autoregressive(Model):
    """A model of one-hot tokens x (B, V + 1, L), each given those before it: `p(x_i | x_<i) = softmax(F_i)`.

    The network sees x moved by one place, with the mask, the last category, in the first; what is at a place must not
    change its outputs before. A text ends with `END`, and what follows has no probability.

    - `network`: a causal network, from x (B, V + 1, L) and c_noise (B), which is 0, to F (B, V + 1, L).
    - `codec`: encodes texts to one-hot tokens.
    - `shape`: the shape of x without the batch.
    - `view`: how texts are looked at and written.
    """

    draws = True
    estimate = "p(x_i | x_<i) = softmax(F_i)"

    def __init__(self, network: nn.Module, codec: Codec, shape: list[int], view: View | None = None):
        super().__init__()
        if not hasattr(codec, "lengths"):
            raise ValueError(f"{type(codec).__name__} encodes no texts: set codec=one_hot for an autoregressive model")
        self.network, self.codec, self.shape, self.view = network, codec, tuple(shape), view or Automatic()

    def logits(self, x: Tensor) -> Tensor:
        """Returns the logits F (B, V, L) of the token at each place of x (B, V + 1, L), in float32 or better."""
        F: Tensor = self.network(_before(x), x.new_zeros(len(x)))
        return F[:, :-1].to(torch.promote_types(x.dtype, torch.float32))

    def each_nats(self, x: Tensor) -> Tensor:
        """Returns -log p(x_i | x_<i) at each place (B, L) of x (B, V + 1, L), 0 after the end of a text."""
        numbers = x.argmax(1)
        nats = nn.functional.cross_entropy(self.logits(x), numbers, reduction="none")
        return nats * (numbers != PADDING)

    def nats(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns -log p (B) of the texts of a raw batch, in nats."""
        training = self.training
        self.eval()
        try:
            return self.each_nats(self.codec.encode(batch)).double().sum(1)
        finally:
            self.train(training)

    @property
    def names(self) -> list[str]:
        return ["known"]

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the texts with blanks that samples fill in from left to right, or nothing where none is given."""
        known = condition.pop("known", None)
        if condition:
            raise ValueError(
                f"condition.{next(iter(condition))} has no effect: this model takes condition.known, a text with blanks"
            )
        return {} if known is None else {"known": requested(known, "known", seeds)}

    def example(self, count: int) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def check(self) -> None:
        """Raises `ValueError` if the network does not return the shape of x, or sees tokens before it predicts them."""
        x = torch.eye(self.shape[0])[torch.arange(self.shape[1]) % self.shape[0]].T[None].to(self.device)
        other = torch.cat([x[..., :-2], x[..., -2:].flip(1)], 2)
        network = _awake(self.network).eval()
        first, second = (network(_before(each), each.new_zeros(1)) for each in (x, other))
        if first.shape != x.shape:
            raise ValueError(
                f"the network returns {list(first.shape[1:])}, but x is {list(self.shape)}: make them equal"
            )
        if not torch.allclose(first[..., :-1], second[..., :-1], atol=1e-5):
            raise ValueError("the network sees tokens before it predicts them: set network=causal_transformer")

    def forward(
        self,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        progress: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Draws texts (B, *), one for each seed; `progress` is called after each place.

        Where the raw batch has texts with blanks, `known`, their words stay; a blank knows only what is before it.
        """
        generators = Generators.from_seeds(seeds)
        codec: Any = self.codec
        given = codec.places(batch["known"]) if "known" in batch else torch.full((len(seeds), self.shape[1]), OPEN)

        def make() -> Tensor:
            x = torch.zeros(len(seeds), *self.shape, device=self.device)
            known = given.to(self.device)
            within = (known != OPEN).flip(1).cumsum(1).flip(1) > 0  # what is known continues there
            ended = torch.zeros(len(seeds), dtype=torch.bool, device=self.device)
            for place in range(self.shape[1]):
                logits = self.logits(x)[..., place].double()
                logits[within[:, place], PADDING : END + 1] = -torch.inf
                sums = logits.softmax(1).cumsum(1)
                u = generators.at("place", place).uniform().to(self.device)[:, None]
                numbers = (sums <= u * sums[:, -1:]).sum(1).where(~ended, PADDING)
                numbers = numbers.where(known[:, place] == OPEN, known[:, place])
                x[torch.arange(len(x)), numbers, place] = 1
                ended = ended | (numbers == END)
                if progress is not None:
                    progress(place + 1, self.shape[1], _open(x, place))
            return x

        return self.in_one_call(make, batch, seeds, None)


def _before(x: Tensor) -> Tensor:
    """Returns x (B, V + 1, L) moved by one place, with the mask in the first, times sqrt(V + 1), as it is diffused."""
    before = torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], 2)
    before[:, -1, 0] = 1
    return before * math.sqrt(x.shape[1])


def _awake(network: nn.Module) -> nn.Module:
    """Returns a copy of a network in which no weights are all zeros, so that its output depends on its input."""
    network = copy.deepcopy(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return network


def _open(x: Tensor, place: int) -> Tensor:
    """Returns x (B, V + 1, L) with the mask in the places after one."""
    shown = x.clone()
    shown[:, -1, place + 1 :] = 1
    return shown
