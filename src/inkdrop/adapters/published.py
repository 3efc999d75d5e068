"""Adapters in the files that diffusers reads by `load_lora_weights` and `load_textual_inversion`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inkdrop.networks import LatentUNet, MMDiT
from inkdrop.networks.diffusers_format import names_for_diffusers, rows_for_diffusers

LORA, WORDS = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
_NETWORK = "denoiser.network."
_PARTS = {LatentUNet: "unet", MMDiT: "transformer"}  # of a pipeline, whose LoRA diffusers reads


def adapter_for_diffusers(model: Any) -> tuple[str, str, dict[str, Tensor]]:
    """Returns for the adapter of a model the function of a pipeline of diffusers that reads it, the file, and weights.

    A LoRA is merged into the model. Raises `ValueError` for another adapter than one LoRA or new words.
    """
    known = {"LoRA": _lora, "NewWords": _words}
    kinds = [type(adapter).__name__ for adapter in model.adapters.values()]
    if len(kinds) != 1 or kinds[0] not in known:
        raise ValueError(
            f"diffusers has files of one LoRA or of new words, but the run has {', '.join(kinds)}: write adapters "
            "alone by format=adapter"
        )
    ((name, adapter),) = model.adapters.items()
    return known[kinds[0]](model, name, adapter)


def _words(model: Any, name: str, adapter: Any) -> tuple[str, str, dict[str, Tensor]]:
    """The vectors (V, E) of each new word."""
    vectors = next(each for path, each in model.named_parameters() if path.endswith(f".words.{name}"))
    parts = vectors.detach().clone().split(adapter.num_vectors)
    return "load_textual_inversion", WORDS, dict(zip(adapter.words, parts, strict=True))


def _lora(model: Any, name: str, adapter: Any) -> tuple[str, str, dict[str, Tensor]]:
    """The matrices of a LoRA by the names of diffusers; the factor is a part of B, so that the file needs none.

    Raises `ValueError` for trained lengths of columns, for layers outside the network, and for a network whose pipeline
    in diffusers reads no LoRA.
    """
    if (part := _PARTS.get(type(model.network))) is None:
        raise ValueError(
            "diffusers reads a LoRA of network=latent_unet or network=mmdit, but the network is a "
            f"{type(model.network).__name__}: export the whole model after `python -m inkdrop merge`, or the adapter "
            "by format=adapter"
        )
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for path, layer in model.named_modules():
        if not hasattr(layer, "lora_A") or name not in layer.scaling:
            continue
        if not path.startswith(_NETWORK) or layer.use_dora.get(name) or path == f"{_NETWORK}patch":
            raise ValueError(
                f"{path} cannot be exported: only LoRA of the network can, without use_dora and without the map of "
                "patches"
            )
        a, b = layer.lora_A[name].weight.detach().clone(), layer.lora_B[name].weight.detach()
        found[path.removeprefix(_NETWORK)] = a, layer.scaling[name] * b
    adapter.merge(model, name)
    names = names_for_diffusers(model.network)
    ours = {names[f"{path}.weight"]: each for path, each in found.items()}
    outputs = rows_for_diffusers(model.network, {place: b for place, (_, b) in ours.items()})
    weights: dict[str, Tensor] = {}
    for place, (a, _) in ours.items():
        layer = f"{part}.{place.removesuffix('.weight')}"
        weights |= {f"{layer}.lora_A.weight": a.contiguous(), f"{layer}.lora_B.weight": outputs[place].contiguous()}
    return "load_lora_weights", LORA, weights
