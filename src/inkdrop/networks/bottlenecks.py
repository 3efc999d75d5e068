"""Bottlenecks: what the output of an encoder becomes before it is decoded.

B batch, Z channels of a code, * spatial sizes, K codes of a codebook.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, NamedTuple

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn


class Code(NamedTuple):
    """What a decoder receives, and what it costs.

    - `z` (B, Z, *): the code.
    - `penalty` (B): what the bottleneck adds to the loss.
    - `parts`: named numbers (B) for the log.
    """

    z: Tensor
    penalty: Tensor
    parts: Mapping[str, Tensor]


class Bottleneck(nn.Module):
    """The bottleneck of an autoencoder: `bottleneck(h (B, in_channels, *), eps (B, Z, *) or None) -> Code`.

    - `channels`: Z.
    - `in_channels`: the channels of the encoder's output.
    - `draws`: whether the code is drawn, by `eps`; without eps it is the mean.
    - `logged`: the names of the parts.
    """

    draws = False
    logged: tuple[str, ...] = ()

    def __init__(self, channels: int, in_channels: int):
        super().__init__()
        self.channels, self.in_channels = channels, in_channels

    @abstractmethod
    def forward(self, h: Tensor, eps: Tensor | None = None) -> Code:
        """Returns the code of the encoder's output."""

    def settled(self, z: Tensor) -> Tensor:
        """Returns the valid code (B, Z, *) next to any z, as the decoder needs it."""
        return z


class Plain(Bottleneck):
    """The output of the encoder itself."""

    def __init__(self, channels: Annotated[int, Ge(1)]):
        super().__init__(channels, channels)

    def forward(self, h: Tensor, eps: Tensor | None = None) -> Code:
        return Code(h, h.new_zeros(len(h)), {})


class KL(Bottleneck):
    """A normal law whose divergence from N(0, I) is penalised: `z = mean + std eps`.

    The penalty is `factor KL(N(mean, std^2) | N(0, I))` in nats; with `factor=1` the loss is the negative ELBO of a
    VAE. The part "kl" is the divergence. Source: Kingma and Welling 2014, arXiv 1312.6114, appendix B.
    """

    draws = True
    logged = ("kl",)

    def __init__(self, channels: Annotated[int, Ge(1)], factor: Annotated[float, Ge(0)] = 1e-2):
        super().__init__(channels, 2 * channels)
        self.factor = factor

    def forward(self, h: Tensor, eps: Tensor | None = None) -> Code:
        mean, log_variance = h.float().chunk(2, 1)
        log_variance = log_variance.clamp(-30, 20)  # of an untrained encoder, whose exponential would overflow
        z = mean if eps is None else mean + (0.5 * log_variance).exp() * eps
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        return Code(z, self.factor * kl, {"kl": kl})


class VQ(Bottleneck):
    """The nearest of K learned codes at each position, through which the gradient passes as if nothing had changed.

    The penalty is `commitment |h - z|^2`, summed over positions. A code is the running mean of the outputs nearest to
    it, and a code that has nearly none is moved to the output that is farthest from its code. The part "codes" is the
    exponential of the entropy of the codes in the batch: the number of codes in use.

    - `channels`: the numbers Z of a code.
    - `num_codes`: K.
    - `commitment`: the factor of the penalty.
    - `decay`: the share of a running mean that stays in a step.

    Source: van den Oord et al. 2017, arXiv 1711.00937, equation 3 and appendix A.1.
    """

    logged = ("commitment", "codes")
    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        channels: Annotated[int, Ge(1)],
        num_codes: Annotated[int, Ge(2)] = 512,
        commitment: Annotated[float, Ge(0)] = 0.25,
        decay: Annotated[float, Gt(0), Lt(1)] = 0.99,
    ):
        super().__init__(channels, channels)
        self.commitment, self.decay = commitment, decay
        codes = torch.randn(num_codes, channels)
        self.register_buffer("codebook", codes)
        self.register_buffer("counts", torch.ones(num_codes))
        self.register_buffer("sums", codes.clone())

    def forward(self, h: Tensor, eps: Tensor | None = None) -> Code:
        outputs = h.float().movedim(1, -1)  # (B, *, Z)
        index = self._nearest(outputs.detach())
        codes = self.codebook[index]
        if self.training and torch.is_grad_enabled():
            self._learn(outputs.detach().flatten(0, -2), index.flatten())
        distance = (outputs - codes).square().flatten(1).sum(1)
        z = (outputs + (codes - outputs).detach()).movedim(-1, 1)
        share = torch.bincount(index.flatten(), minlength=len(self.codebook)) / index.numel()
        used = torch.special.entr(share).sum().exp().expand(len(h))
        return Code(z, self.commitment * distance, {"commitment": distance.detach(), "codes": used})

    def settled(self, z: Tensor) -> Tensor:
        return self.codebook[self._nearest(z.float().movedim(1, -1))].movedim(-1, 1)

    def _nearest(self, outputs: Tensor) -> Tensor:
        """The numbers (B, *) of the codes nearest to outputs (B, *, Z)."""
        flat = outputs.flatten(0, -2)
        distances = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return distances.argmin(1).unflatten(0, outputs.shape[:-1])

    @torch.no_grad()
    def _learn(self, outputs: Tensor, index: Tensor) -> None:
        """Moves the codes towards the outputs (N, Z) of all ranks; outputs that are not finite count for nothing."""
        finite = outputs.isfinite().all(1)
        outputs, index = outputs[finite], index[finite]
        counts, sums = torch.zeros_like(self.counts), torch.zeros_like(self.sums)
        counts.index_add_(0, index, torch.ones_like(outputs[:, 0]))
        sums.index_add_(0, index, outputs)
        farthest = self._farthest(outputs, index)
        if torch.distributed.is_initialized():
            for each in (counts, sums):
                torch.distributed.all_reduce(each)
            torch.distributed.broadcast(farthest, 0)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        least = counts.sum() / len(counts) / _RARE  # of a running count, relative to equally many for each
        dead = (self.counts < least).nonzero().flatten()[: len(farthest)]
        self.sums[dead], self.counts[dead] = farthest[: len(dead)], 1.0
        self.codebook.copy_(self.sums / self.counts.clamp(min=torch.finfo(self.counts.dtype).tiny)[:, None])

    def _farthest(self, outputs: Tensor, index: Tensor) -> Tensor:
        """The outputs (M, Z) that are farthest from their codes; M is the same on all ranks, and zeros fill it."""
        distances = (outputs - self.codebook[index]).square().sum(1)
        chosen = distances.topk(min(_MOVED, len(distances))).indices
        found = outputs.new_zeros(min(_MOVED, len(self.codebook)), outputs.shape[1])
        found[: len(chosen)] = outputs[chosen][: len(found)]
        return found


_RARE = math.e**4  # a code is moved when its running count is smaller than the mean count by this factor
_MOVED = 8  # most codes that are moved in a step
