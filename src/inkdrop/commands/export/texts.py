"""The text encoders and tokenizers of a model, as a folder of diffusers has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_CLIP, _T5 = "CLIPTextModel", "T5EncoderModel"
_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")
_Parts = tuple[dict[str, list[str]], dict[str, bytes]]


def text_parts(conditioner: Any) -> _Parts:
    """Returns the entries of `model_index.json` for texts, and the files by their paths.

    Both are empty for a conditioner that `StableDiffusionPipeline` and `StableDiffusion3Pipeline` cannot have.
    """
    from inkdrop.conditioners import PublishedText, PublishedTexts
    from inkdrop.conditioners.encoders import ARCHITECTURES

    if type(conditioner) is PublishedTexts:
        readers = [*conditioner.clips, *([] if conditioner.t5 is None else [conditioner.t5])]
        return _joined([_encoder(each, f"_{i}" if i > 1 else "") for i, each in enumerate(readers, start=1)])
    if type(conditioner) is not PublishedText:
        return {}, {}
    if not conditioner.files.architecture(ARCHITECTURES).startswith("CLIP"):
        return {}, {}
    return _encoder(conditioner, "")


def _joined(parts: list[_Parts]) -> _Parts:
    entries, contents = dict[str, list[str]](), dict[str, bytes]()
    for entry, files in parts:
        entries |= entry
        contents |= files
    return entries, contents


def _encoder(reader: Any, number: str) -> _Parts:
    """One encoder and its tokenizer, of a reader of texts."""
    from safetensors.torch import save

    from inkdrop.conditioners.encoders import ARCHITECTURES

    files, encoder = reader.files, reader.encoder.model
    architecture = files.architecture(ARCHITECTURES)
    config = files.config["text_config"] if architecture == "CLIPModel" else files.config
    config = {name: each for name, each in config.items() if name not in ("dtype", "torch_dtype")}
    projected = hasattr(encoder, "text_projection")
    model, kind = (_T5, "t5") if architecture.startswith("T5") else (_CLIP, "clip_text_model")
    model = f"{model}WithProjection" if projected else model
    config |= {"architectures": [model], "model_type": kind}
    tokenizer, contents = _tokenizer(files, reader.length, number)
    contents[f"text_encoder{number}/config.json"] = as_json(config)
    contents[f"text_encoder{number}/model.safetensors"] = save(_published(encoder, kind), {"format": "pt"})
    entries = {f"text_encoder{number}": ["transformers", model], f"tokenizer{number}": ["transformers", tokenizer]}
    return entries, contents


def _published(encoder: Any, kind: str) -> dict[str, Any]:
    """The weights of an encoder by their published names."""
    place = "encoder." if kind == "t5" else "text_model."
    state = {
        f"{place}{name.removeprefix('text.')}" if name.startswith("text.") else name: value.contiguous()
        for name, value in encoder.state_dict().items()
    }
    if kind == "t5":
        state["shared.weight"] = state.pop("encoder.embed_tokens.weight")
    return state


def _tokenizer(files: Any, length: int, number: str) -> tuple[str, dict[str, bytes]]:
    """The class of the tokenizer, and its files by their paths."""
    own, others = "tokenizer_config.json", [name for name in files.names if name != "config.json"]
    stated = {**files.json(own), "model_max_length": length} if own in files.names else {}
    stated.pop("auto_map", None)
    contents = {f"tokenizer{number}/{name}": files.content(name) for name in others}
    contents[f"tokenizer{number}/{own}"] = as_json(stated)
    named = str(stated.get("tokenizer_class", ""))
    return named if named in _TOKENIZERS else "PreTrainedTokenizerFast", contents


def as_json(content: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a JSON file."""
    return (json.dumps(content, indent=2) + "\n").encode()
