"""LoRA: products of two thin matrices that are added to the weights of layers."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt
from torch import nn

from inkdrop.adapters.base import Adapter

_SHOWN = 6  # names in a message


class LoRA(Adapter):
    """Adds to the weights W of layers the product of two thin matrices: W + scale (alpha / rank) B A.

    At the start B is zero, so that the model is the base. It is made by the package peft, whose names the weights have;
    `ValueError` without it. Source: Hu et al. 2021, arXiv 2106.09685.

    - `modules`: regular expression of the full names of the linear and convolutional layers that change.
    - `rank`: number of columns of B (N, rank) and of rows of A (rank, M).
    - `alpha`: numerator of the factor; None is the rank, so that the factor is 1.
    - `dropout`: dropout of what A receives.
    - `initialization`: A is drawn uniformly, as by He, or normally with deviation 1 / rank.
    - `use_rslora`: whether the factor is alpha / sqrt(rank). Source: Kalajdzievski 2023, arXiv 2312.03732.
    - `use_dora`: whether the length of each column of W is trained too. Source: Liu et al. 2024, arXiv 2402.09353.
    - `scale`: strength.
    """

    merges = True

    def __init__(
        self,
        modules: str = r"denoiser\.network\..*\.(q|k|v|out)",
        rank: Annotated[int, Ge(1)] = 4,
        alpha: Annotated[float, Gt(0)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        initialization: Literal["uniform", "normal"] = "uniform",
        use_rslora: bool = False,
        use_dora: bool = False,
        scale: Annotated[float, Ge(0)] = 1.0,
    ):
        try:
            re.compile(modules)
        except re.error as error:
            raise ValueError(f"adapter: modules={modules} is not a regular expression: {error}") from None
        self.modules, self.scale = modules, scale
        self._options: dict[str, Any] = {
            "target_modules": modules,
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
        there = [(path, layer) for path, layer in model.named_modules() if not _within(path)]
        chosen = [(path, layer) for path, layer in there if re.fullmatch(self.modules, path)]
        layers = [path for path, layer in there if isinstance(layer, kinds) and path.startswith("denoiser.")]
        shown = ", ".join(layers[: _SHOWN // 2] + layers[-_SHOWN // 2 :])
        if not chosen:
            raise ValueError(f"adapter: no layer has a name like modules={self.modules}: the model has {shown}")
        for path, layer in chosen:
            if not isinstance(layer, kinds):
                raise ValueError(
                    f"adapter: modules={self.modules} chooses {path}, which is a {type(layer).__name__}, but LoRA "
                    f"changes linear and convolutional layers, such as {shown}"
                )
        return [path for path, _ in chosen]

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


def _within(path: str) -> bool:
    """Whether a module is a part of an adapter, or the layer that one has changed."""
    return bool(re.search(r"\.(lora_[^.]+|base_layer|controls)(\.|$)", path))


def _has(layer: Any, name: str) -> bool:
    return hasattr(layer, "lora_A") and name in getattr(layer, "scaling", {})
