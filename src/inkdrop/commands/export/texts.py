"""The text encoder and the tokenizer of a model, as a folder of diffusers has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MODEL = "CLIPTextModel"


def text_parts(conditioner: Any) -> tuple[dict[str, list[str]], dict[str, bytes]]:
    """Returns the entries of `model_index.json` for texts, and the files by their paths.

    Both are empty for a conditioner that `StableDiffusionPipeline` cannot have.
    """
    from safetensors.torch import save

    from inkdrop.conditioners import PublishedText
    from inkdrop.conditioners.encoders import ARCHITECTURES

    if type(conditioner) is not PublishedText:
        return {}, {}
    files, encoder = conditioner.files, conditioner.encoder.model
    if not (architecture := files.architecture(ARCHITECTURES)).startswith("CLIP"):
        return {}, {}
    config = files.config["text_config"] if architecture == "CLIPModel" else files.config
    config = {**config, "architectures": [_MODEL], "model_type": "clip_text_model"}
    state = {f"text_model.{name}": value.contiguous() for name, value in encoder.text.state_dict().items()}
    own, others = "tokenizer_config.json", [name for name in files.names if name != "config.json"]
    tokenizer = {**files.json(own), "model_max_length": conditioner.length} if own in files.names else {}
    tokenizer.pop("auto_map", None)
    contents = {f"tokenizer/{name}": files.content(name) for name in others}
    contents[f"tokenizer/{own}"] = as_json(tokenizer)
    contents["text_encoder/config.json"] = as_json(config)
    contents["text_encoder/model.safetensors"] = save(state, {"format": "pt"})
    named = str(tokenizer.get("tokenizer_class", ""))
    kind = named if named in ("CLIPTokenizer", "CLIPTokenizerFast") else "PreTrainedTokenizerFast"
    return {"text_encoder": ["transformers", _MODEL], "tokenizer": ["transformers", kind]}, contents


def as_json(content: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a JSON file."""
    return (json.dumps(content, indent=2) + "\n").encode()
