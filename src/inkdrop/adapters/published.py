"""LoRA in the file that diffusers' `load_lora_weights` reads."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inkdrop.networks.diffusers_format import names_for_diffusers

FILE = "pytorch_lora_weights.safetensors"
_NETWORK = "denoiser.network."


def lora_for_diffusers(model: Any) -> dict[str, Tensor]:
    """Merges the adapters of a model, and returns their matrices by the names of diffusers.

    The factor of each is a part of B, so that the file needs none. Raises `ValueError` for adapters other than one LoRA
    without trained lengths of columns, for layers outside the network, and for networks that diffusers does not have.
    """
    if [type(adapter).__name__ for adapter in model.adapters.values()] != ["LoRA"]:
        raise ValueError("diffusers loads a file of one LoRA: choose a run of adapter=lora")
    ((name, adapter),) = model.adapters.items()
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for path, layer in model.named_modules():
        if name not in getattr(layer, "scaling", {}):
            continue
        if not path.startswith(_NETWORK) or layer.use_dora.get(name):
            raise ValueError(f"{path} cannot be exported: only LoRA of the network without use_dora can")
        a, b = layer.lora_A[name].weight.detach().clone(), layer.lora_B[name].weight.detach()
        found[path.removeprefix(_NETWORK)] = a, layer.scaling[name] * b
    adapter.merge(model, name)
    names = names_for_diffusers(model.network)
    weights: dict[str, Tensor] = {}
    for path, (a, b) in found.items():
        place = f"unet.{names[f'{path}.weight'].removesuffix('.weight')}"
        weights |= {f"{place}.lora_A.weight": a.contiguous(), f"{place}.lora_B.weight": b.contiguous()}
    return weights
