"""ControlNet and the T2I-adapter, by which a hint such as outlines, depth or a mask steers a trained model."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from inkdrop.adapters.base import Adapter
from inkdrop.adapters.control import Control, Copied, Inputs, Pyramid
from inkdrop.conditioners.combined import Combined
from inkdrop.conditioners.hint import Hint

Interval = tuple[Annotated[float, Ge(0)], Annotated[float, Gt(0)]]
_DOORS = "hint_"


class Hinted(Adapter):
    """The base class of adapters that add features of a hint to those of a frozen network with skips or blocks.

    The model then needs the hint as one more condition. At the start nothing is added.

    - `hint`: the field of the data that has the hint.
    - `shape`: its shape [C, *]; None is one channel of the sizes of x.
    - `dropout`: the probability with which training empties the hint; guidance empties it only where it is named.
    - `weakest`: factor of the first residual relative to the last; factors in between grow geometrically.
    - `interval`: the noise levels sigma / alpha at which it acts; None is all.
    - `scale`: factor of all residuals.
    """

    def __init__(
        self,
        hint: str = "hint",
        shape: list[Annotated[int, Ge(1)]] | None = None,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.0,
        weakest: Annotated[float, Gt(0), Le(1)] = 1.0,
        interval: Interval | None = None,
        scale: Annotated[float, Ge(0)] = 1.0,
    ):
        self.hint, self.shape, self.dropout, self.weakest = hint, shape, dropout, weakest
        self.interval, self.scale = interval, scale

    @abstractmethod
    def control(self, network: nn.Module, inputs: Inputs, shape: list[int]) -> Control:
        """Returns what computes the residuals of a network, from an example of what it is called with."""

    def __call__(self, model: Any, name: str) -> Iterable[nn.Parameter]:
        network = model.denoiser.network
        if not hasattr(network, "encode") or "residuals" not in inspect.signature(network.forward).parameters:
            raise ValueError(
                f"adapter={name} adds to features of a UNet or a DiT, but the network is a {type(network).__name__}: "
                "name a base of network=unet, latent_unet or dit"
            )
        shape = [1, *model.shape[1:]] if self.shape is None else list(self.shape)
        control = self.control(network, _inputs(model), shape)
        if not hasattr(network, "controls"):
            network.controls = nn.ModuleDict()
        network.controls[name] = control
        hint = Hint(self.hint, f"{_DOORS}{name}", shape, self.dropout)
        known = model.conditioner
        model.conditioner = Combined(
            {"model": known, name: hint}, known.dim, known.concat_channels, token_dim=known.token_dim
        )
        network.register_forward_pre_hook(_Adding(control, hint.door), with_kwargs=True)
        self.limit(model, name, self.interval)
        return control.parameters()

    def rescale(self, model: Any, name: str, scale: float) -> None:
        self.scale = model.denoiser.network.controls[name].scale = scale

    def limit(self, model: Any, name: str, interval: Interval | None) -> None:
        self.interval = interval
        schedule, prediction = model.denoiser.schedule, model.denoiser.prediction
        limits = [-math.inf, math.inf]
        for place, level in enumerate(interval or ()):
            if 0 < level < math.inf:
                t = schedule.time(torch.tensor([-2 * math.log(level)], dtype=torch.float64)).clamp(0, 1)
                limits[place] = float(prediction.coefficients(schedule.point(t)).c_noise)
        model.denoiser.network.controls[name].limits = tuple(limits)


class ControlNet(Hinted):
    """ControlNet: a trained copy of the first half of a frozen network adds its features to those of the network.

    The arguments are those of `Hinted`. Source: Zhang et al. 2023, arXiv 2302.05543.
    """

    def control(self, network: nn.Module, inputs: Inputs, shape: list[int]) -> Control:
        return Copied(network, inputs, shape, self.scale, self.weakest)


class T2IAdapter(Hinted):
    """The T2I-adapter: few convolutions of the hint alone, whose features are added to those of a frozen UNet.

    The arguments are those of `Hinted`. Source: Mou et al. 2023, arXiv 2302.08453.
    """

    def control(self, network: nn.Module, inputs: Inputs, shape: list[int]) -> Control:
        return Pyramid(network, inputs, shape, self.scale, self.weakest)


class _Adding:
    """Computes the residuals of a call of a network before it, and passes them on with those of other adapters."""

    def __init__(self, control: Control, door: str):
        self.control, self.door = control, door

    def __call__(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        others = {name: value for name, value in kwargs.items() if name != self.door}
        if not self.control.scale:
            return args, others
        cond = {name: value for name, value in others.items() if name != "residuals" and not name.startswith(_DOORS)}
        added = self.control(*args, kwargs[self.door], **cond)
        if (before := others.get("residuals")) is not None:
            added = [one + other for one, other in zip(before, added, strict=True)]
        return args, {**others, "residuals": added}


def _inputs(model: Any) -> Inputs:
    """What the network of a model is called with, without hints of other adapters."""
    calls: list[tuple[tuple[Any, ...], dict[str, Tensor]]] = []

    def note(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))

    hook = model.denoiser.network.register_forward_pre_hook(note, with_kwargs=True, prepend=True)
    try:
        with torch.no_grad():
            cond = model.conditioner(model.example(1))
            model.denoiser(torch.zeros(1, *model.shape), model.denoiser.schedule.points([1.0])[0], cond)
    finally:
        hook.remove()
    args, kwargs = calls[0]
    return Inputs(args[0], args[1], {name: each for name, each in kwargs.items() if not name.startswith(_DOORS)})
