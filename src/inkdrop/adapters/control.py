"""Networks that add to the features of a frozen network what a hint asks for.

B batch, C channels, * spatial sizes, L tokens of a transformer, D width.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inkdrop.networks.layers import CONVOLUTION, zeroed

_WIDTH = 16  # channels of the first layer of an encoder of hints


class Control(nn.Module, ABC):
    """What is added to the features of a network for one hint: `control(x, c_noise, hint, **cond) -> residuals`.

    - `scale`: factor of all residuals; with 0 nothing is added.
    - `weakest`: further factor of the first one, from which the factors grow geometrically to 1.
    - `limits`: least and largest c_noise at which it acts.
    """

    def __init__(self, scale: float, weakest: float):
        super().__init__()
        self.scale, self.weakest = scale, weakest
        self.limits = (-math.inf, math.inf)

    @abstractmethod
    def residuals(self, x: Tensor, c_noise: Tensor, hint: Tensor, **cond: Tensor) -> list[Tensor]:
        """Returns what is added to the skips of a network, and last to its middle."""

    def forward(self, x: Tensor, c_noise: Tensor, hint: Tensor, **cond: Tensor) -> list[Tensor]:
        found = self.residuals(x, c_noise, hint, **cond)
        low, high = self.limits
        acts = self.scale * ((c_noise >= low) & (c_noise <= high)).to(x.dtype)
        last = max(1, len(found) - 1)
        return [
            each * acts.reshape(-1, *[1] * (each.dim() - 1)) * self.weakest ** (1 - i / last)
            for i, each in enumerate(found)
        ]


class Inputs(NamedTuple):
    """What a network is called with: x (1, C, *), c_noise (1), and its conditions by name."""

    x: Tensor
    c_noise: Tensor
    cond: dict[str, Tensor]


class Copied(Control):
    """A trained copy of the first half of a network, which the hint enters, with a zero layer for each feature.

    - `network`: the network.
    - `inputs`: an example of what it is called with.
    - `shape`: the shape of a hint without the batch.
    - `scale`, `weakest`: as in `Control`.

    Source: Zhang et al. 2023, arXiv 2302.05543, section 3.
    """

    def __init__(self, network: Any, inputs: Inputs, shape: Sequence[int], scale: float, weakest: float):
        super().__init__(scale, weakest)
        features, self.copy = _first_half(network, inputs)
        self.axis: int = getattr(network, "feature_axis", 1)
        widths = [each.shape[self.axis] for each in features]
        sizes = getattr(network, "grid", None) or features[0].shape[2:]
        self.enter = encoder_of_hints(shape, [widths[0], *sizes])
        zeroed(self.enter[-1])
        self.leave = nn.ModuleList(zeroed(nn.Linear(width, width)) for width in widths)

    def residuals(self, x: Tensor, c_noise: Tensor, hint: Tensor, **cond: Tensor) -> list[Tensor]:
        h, skips, _ = self.copy.encode(x, c_noise, **cond, hint=self.enter(hint))
        return [
            layer(each.movedim(self.axis, -1)).movedim(-1, self.axis)
            for layer, each in zip(self.leave, [*skips, h], strict=True)
        ]


class Pyramid(Control):
    """Features of the hint alone, one layer for each feature of a UNet, at its resolution.

    The arguments are those of `Copied`. Source: Mou et al. 2023, arXiv 2302.08453, section 3.2, whose features also
    change the lower resolutions.
    """

    def __init__(self, network: Any, inputs: Inputs, shape: Sequence[int], scale: float, weakest: float):
        super().__init__(scale, weakest)
        if getattr(network, "feature_axis", 1) != 1:
            raise ValueError("adapter=t2i_adapter changes UNets only: choose adapter=controlnet for a transformer")
        features, _ = _first_half(network, inputs)
        convolution, width = CONVOLUTION[len(shape) - 1], 2 * _WIDTH
        self.enter = encoder_of_hints(shape, [width, *features[0].shape[2:]])
        sizes = [features[0].shape[2], *(each.shape[2] for each in features)]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), convolution(width, width, 3, stride=before // after, padding=1))
            for before, after in pairwise(sizes)
        )
        self.leave = nn.ModuleList(zeroed(convolution(width, each.shape[1], 1)) for each in features)

    def residuals(self, x: Tensor, c_noise: Tensor, hint: Tensor, **cond: Tensor) -> list[Tensor]:
        h, found = self.enter(hint), []
        for block, leave in zip(self.blocks, self.leave, strict=True):
            added = block(h)
            h = h + added if added.shape == h.shape else added
            found.append(leave(h))
        return found


def encoder_of_hints(shape: Sequence[int], target: Sequence[int]) -> nn.Sequential:
    """Returns convolutions from hints (B, *shape) to features (B, *target).

    Raises `ValueError` unless each size of the hint is the same multiple of that of the features, or the reverse.
    """
    pairs = list(zip(shape[1:], target[1:], strict=False))
    down, up = (pairs[0][0] // pairs[0][1], pairs[0][1] // pairs[0][0]) if pairs else (0, 0)
    if len(shape) != len(target) or any(size * max(1, up) != each * max(1, down) for size, each in pairs):
        raise ValueError(
            f"adapter: a hint of shape {list(shape)} does not fit features of size {list(target[1:])}: its sizes must "
            "be a multiple of these, so scale it, or set the shape of the adapter"
        )
    convolution, width = CONVOLUTION[len(shape) - 1], _WIDTH
    layers: list[nn.Module] = [nn.Upsample(scale_factor=float(up))] if up > 1 else []
    layers += [convolution(shape[0], width, 3, padding=1), nn.SiLU()]
    for stride in _prime_factors(max(1, down)):
        layers += [convolution(width, 2 * width, stride, stride=stride), nn.SiLU()]
        width *= 2
    return nn.Sequential(*layers, convolution(width, target[0], 3, padding=1))


def _prime_factors(number: int) -> list[int]:
    found, factor = [], 2
    while number > 1:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return found


def _first_half(network: nn.Module, inputs: Inputs) -> tuple[list[Tensor], Any]:
    """The features of a network, the last of its middle, and a copy of the parts that compute them."""
    made: Any = copy.deepcopy(network)
    made._forward_pre_hooks.clear()  # which may be of another adapter
    called: set[int] = set()
    hooks = [part.register_forward_hook(lambda part, *_: called.add(id(part))) for part in made.modules()]
    with torch.no_grad():
        h, skips, _ = made.encode(inputs.x, inputs.c_noise, **inputs.cond)
    for hook in hooks:
        hook.remove()
    for name, part in list(made.named_children()):
        if not any(id(each) in called for each in part.modules()):
            delattr(made, name)
    return [*skips, h], made
