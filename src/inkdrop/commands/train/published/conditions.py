"""The conditioner of a folder of diffusers: a text encoder, a table of classes, or none."""

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
_CLIP = "CLIPTextModel"
_Count = Annotated[int, Ge(1), Le(2**16)]
_FIELDS: dict[str, Any] = {**dict.fromkeys(("hidden_size", "max_position_embeddings"), _Count)}


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
    encoders = [name for name in ("text_encoder", *FURTHER[:2]) if (folder / name / "config.json").is_file()]
    if encoders == ["text_encoder"] and not network["vector_dim"]:
        return _text(path, folder, network["token_dim"])
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
    encoder = read_json(folder / "text_encoder" / "config.json", error=CheckpointError)
    kinds = encoder.get("architectures")
    if kinds != [_CLIP]:
        raise ValueError(f"text_encoder is a {harmless(kinds)}, which is not supported (available: {_CLIP})")
    if (wrong := wrong_field(encoder, _FIELDS, _FIELDS)) is not None:
        raise ValueError(f"config.json of text_encoder: {wrong}")
    if encoder["hidden_size"] != width:
        raise ValueError(
            f"text_encoder has hidden_size={encoder['hidden_size']}, but the network takes tokens of {width}"
        )
    length, own = encoder["max_position_embeddings"], folder / "tokenizer" / "tokenizer_config.json"
    if own.is_file():
        stated = read_json(own, error=CheckpointError).get("model_max_length")
        length = min(length, stated) if type(stated) is int and stated > 1 else length
    node = choice("conditioner", "text_published")
    node["encoder"]["path"] = f"{path.rstrip('/')}/text_encoder"
    return {**node, "token_dim": width, "length": length}
