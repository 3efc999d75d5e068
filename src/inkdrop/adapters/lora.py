"""LoRA: products of two thin matrices that are added to the weights of layers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from torch import nn

from inkdrop.adapters.base import Adapter

_SHOWN = 6  # names in a message


class LoRA(Adapter):
    """Adds to the weights W of layers the product of two thin matrices: W + scale (alpha / rank) B A.

    At the start B is zero, so that the model is the base. It is made by the package peft, whose names the weights have;
    `ValueError` without it. Source: Hu et al. 2021, arXiv 2106.09685.

    - `layers`: names of the linear and convolutional layers that change, or the ends of their names after a dot; `*`
      stands for any text, and alone for all layers.
    - `within`: the part of the model in which they are; an empty text is the whole model, with its text encoder.
    - `rank`: number of columns of B (N, rank) and of rows of A (rank, M).
    - `alpha`: numerator of the factor; None is the rank, so that the factor is 1.
    - `dropout`: dropout of what A receives.
    - `initialization`: A is drawn uniformly, as by He, or normally with deviation 1 / rank.
    - `use_rslora`: whether the factor is alpha / sqrt(rank). Source: Kalajdzievski 2023, arXiv 2312.03732.
    - `use_dora`: whether the length of each column of W is trained too. Source: Liu et al. 2024, arXiv 2402.09353.
    - `scale`: strength.
    """

    def __init__(
        self,
        layers: Sequence[str] = ("q", "k", "v", "out"),
        within: str = "denoiser.network",
        rank: Annotated[int, Ge(1)] = 4,
        alpha: Annotated[float, Gt(0)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        initialization: Literal["uniform", "normal"] = "uniform",
        use_rslora: bool = False,
        use_dora: bool = False,
        scale: Annotated[float, Ge(0)] = 1.0,
    ):
        self.layers, self.within, self.scale = list(layers), within, scale
        self._options: dict[str, Any] = {
            "target_modules": list(layers),
            "r": rank,
            "lora_alpha": rank if alpha is None else alpha,
            "lora_dropout": dropout,
            "init_lora_weights": {"uniform": True, "normal": "gaussian"}[initialization],
            "use_rslora": use_rslora,
            "use_dora": use_dora,
        }

    @property
    def published(self) -> dict[str, Any]:
        """The configuration of the adapter as peft writes it."""
        from peft import LoraConfig

        return {**LoraConfig(**self._options).to_dict(), "peft_type": "LORA"}

    def __call__(self, model: nn.Module, name: str) -> list[nn.Parameter]:
        """Inserts the two matrices into each layer, under this name."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise ValueError("adapter=lora needs the package peft: install inkdrop[adapters]") from None
        chosen = self._chosen(model)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
            inject_adapter_in_model(LoraConfig(**{**self._options, "target_modules": chosen}), model, adapter_name=name)
        self.rescale(model, name, self.scale)
        return [
            parameter
            for path, parameter in model.named_parameters()
            if re.search(rf"\.lora_[^.]+\.{re.escape(name)}(\.|$)", path)
        ]

    def _chosen(self, model: nn.Module) -> list[str]:
        """The names of the layers that change, without those of other adapters."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, BaseTunerLayer)
        start = f"{self.within}." if self.within else ""
        there = {path: layer for path, layer in model.named_modules() if path.startswith(start) and not _added(path)}
        usable = [path for path, layer in there.items() if isinstance(layer, kinds)]
        shown = ", ".join(usable[: _SHOWN // 2] + usable[-_SHOWN // 2 :]) or f"nothing within {self.within}"
        chosen: set[str] = set()
        for entry in self.layers:
            found = [path for path in there if _matches(path, entry)]
            if not found:
                raise ValueError(f"adapter: no layer has the name {entry} of layers: the model has {shown}")
            if not (fitting := [path for path in found if path in usable]):
                raise ValueError(
                    f"adapter: {found[0]} of layers is a {type(there[found[0]]).__name__}, but LoRA changes linear and "
                    f"convolutional layers, such as {shown}"
                )
            chosen |= set(fitting)
        return [path for path in usable if path in chosen]

    def rescale(self, model: nn.Module, name: str, scale: float) -> None:
        self.scale = scale
        layers: list[Any] = [each for each in model.modules() if hasattr(each, "lora_A")]
        for layer in layers:
            layer.set_scale(name, scale)
            # peft activates the latest adapter alone. 0 times something is not always nothing.
            layer.set_adapter([each for each, factor in layer.scaling.items() if factor])

    def merge(self, model: nn.Module, name: str) -> None:
        parts = dict(model.named_modules())
        for path, layer in [(path, each) for path, each in parts.items() if _has(each, name)]:
            layer.merge(adapter_names=[name] if self.scale else [])
            layer.delete_adapter(name)
            if not layer.scaling:
                parent, _, last = path.rpartition(".")
                setattr(parts[parent], last, layer.get_base_layer())


def _matches(path: str, entry: str) -> bool:
    return fnmatchcase(path, entry) or fnmatchcase(path, f"*.{entry}")


def _added(path: str) -> bool:
    """Whether a module is a part of an adapter, or the layer that one has changed."""
    return bool(re.search(r"\.(lora_[^.]+|base_layer|controls)(\.|$)", path))


def _has(layer: Any, name: str) -> bool:
    return hasattr(layer, "lora_A") and name in getattr(layer, "scaling", {})
