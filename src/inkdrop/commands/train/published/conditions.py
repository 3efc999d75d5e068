"""The conditioner of a folder of diffusers: text encoders, a table of classes, or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from inkdrop.commands.train.published.choices import choice
from inkdrop.commands.train.published.networks import Kind
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.networks.diffusers_format import NUM_CLASSES

FURTHER = ("text_encoder_2", "text_encoder_3", "tokenizer_2", "tokenizer_3")
_ENCODERS = ("text_encoder", *FURTHER[:2])
_CLIP, _PROJECTED, _T5 = "CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel"
_Count = Annotated[int, Ge(1), Le(2**16)]
_FIELDS: dict[str, dict[str, Any]] = {
    _CLIP: dict.fromkeys(("hidden_size", "max_position_embeddings"), _Count),
    _PROJECTED: dict.fromkeys(("hidden_size", "max_position_embeddings", "projection_dim"), _Count),
    _T5: {"d_model": _Count},
}


def conditioner_of(
    path: str, folder: Path, kind: Kind, config: Mapping[str, Any], network: Mapping[str, Any], chosen: Collection[str]
) -> dict[str, Any] | None:
    """Returns the conditioner of the folder; None if it has none that is supported and the user has chosen one.

    Raises `ValueError` for one that is not supported.
    """
    network = network.get("network", network)  # of a network that predicts the variance too
    if classes := config.get("num_embeds_ada_norm"):
        return {**choice("conditioner", "label"), "num_classes": classes, "dim": network["width"]}
    if classes := config.get("num_class_embeds"):
        return _label(config, classes, network)
    if not kind.tokens:
        return choice("conditioner", "none")
    encoders = [name for name in _ENCODERS if (folder / name / "config.json").is_file()]
    if encoders == ["text_encoder"] and not network["vector_dim"]:
        return _text(path, folder, network["token_dim"])
    if kind.published == "SD3Transformer2DModel" and {"text_encoder", "text_encoder_2"} <= set(encoders):
        return _texts(path, folder, network, "text_encoder_3" in encoders)
    if "conditioner" in chosen:
        return None
    vector = f" and dim={network['vector_dim']}" if network["vector_dim"] else ""
    has = f"has {', '.join(encoders)}, which are not supported together" if encoders else "has no text_encoder"
    raise ConfigurationError(
        f"base={harmless(path)} {has}: choose a conditioner with token_dim={network['token_dim']}{vector}"
    )


def _label(config: Mapping[str, Any], rows: int, network: Mapping[str, Any]) -> dict[str, Any]:
    """The table of classes; only a folder of ours has a row that means no class."""
    classes = config.get(NUM_CLASSES, rows)
    if type(classes) is not int or not rows - 1 <= classes <= rows:
        raise ValueError(f"config.json has {NUM_CLASSES}={harmless(classes)}, but a table of {rows} rows")
    options = {"num_classes": classes, "dim": network["vector_dim"]}
    return {**choice("conditioner", "label"), **options, **({"dropout": 0.0} if classes == rows else {})}


def _text(path: str, folder: Path, width: int) -> dict[str, Any]:
    encoder = _encoder(folder, "text_encoder", _CLIP)
    if encoder["hidden_size"] != width:
        raise ValueError(
            f"text_encoder has hidden_size={encoder['hidden_size']}, but the network takes tokens of {width}"
        )
    node = choice("conditioner", "text_published")
    node["encoder"]["path"] = f"{path.rstrip('/')}/text_encoder"
    return {**node, "token_dim": width, "length": _length(folder, encoder)}


def _texts(path: str, folder: Path, network: Mapping[str, Any], with_t5: bool) -> dict[str, Any]:
    """Both CLIPs and the T5 of Stable Diffusion 3, which a folder may lack."""
    clips = [_encoder(folder, name, _PROJECTED) for name in _ENCODERS[:2]]
    width, dim = network["token_dim"], network["vector_dim"]
    if (vectors := sum(each["projection_dim"] for each in clips)) != dim:
        raise ValueError(f"text_encoder and text_encoder_2 make vectors of {vectors}, but the network takes {dim}")
    t5 = _encoder(folder, "text_encoder_3", _T5) if with_t5 else None
    if t5 is not None and t5["d_model"] != width:
        raise ValueError(f"text_encoder_3 has d_model={t5['d_model']}, but the network takes tokens of {width}")
    node = choice("conditioner", "texts_published")
    for part, name in zip(("clip", "clip_2", "t5"), _ENCODERS, strict=True):
        node[part]["path"] = f"{path.rstrip('/')}/{name}"
    length = _length(folder, *clips)
    return {**node, **({} if with_t5 else {"t5": None}), "token_dim": width, "dim": dim, "length": length}


def _encoder(folder: Path, name: str, kind: str) -> dict[str, Any]:
    """The checked configuration of a text encoder of this kind."""
    encoder: dict[str, Any] = read_json(folder / name / "config.json", error=CheckpointError)
    kinds = encoder.get("architectures")
    if kinds != [kind]:
        raise ValueError(f"{name} is a {harmless(kinds)}, which is not supported (available: {kind})")
    if (wrong := wrong_field(encoder, _FIELDS[kind], _FIELDS[kind])) is not None:
        raise ValueError(f"config.json of {name}: {wrong}")
    return encoder


def _length(folder: Path, *encoders: Mapping[str, Any]) -> int:
    """The number of tokens of each text, which the first tokenizer may limit."""
    length: int = min(each["max_position_embeddings"] for each in encoders)
    own = folder / "tokenizer" / "tokenizer_config.json"
    if own.is_file():
        stated = read_json(own, error=CheckpointError).get("model_max_length")
        length = min(length, stated) if type(stated) is int and stated > 1 else length
    return length
