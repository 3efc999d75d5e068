"""Completes a configuration by what the data say, their shape, classes and codec, and by what is fastest with them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from inkdrop.errors import ConfigurationError

_RAW = "${data.shape}"
# Optimizers of torch that update all weights in one pass, where the scaler of fp16 leaves the clipping to them.
_FUSED = {f"torch.optim.{name}" for name in ("Adagrad", "Adam", "AdamW", "SGD")}
_CODEC = re.compile(r"\$\{(oc\.select:)?codec\b")  # a reference to the codec


def plain_data(config: DictConfig) -> dict[str, Any]:
    """Returns a configuration as plain data with every reference resolved.

    Raises `ConfigurationError` for an option that has no default and was not given.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigurationError(
            f"{error.full_key} is needed and has no default: add {error.full_key}=..., which --help describes"
        ) from None
    return plain


def find_facts(data: DictConfig, allow_targets: Iterable[str]) -> Any:
    """Replaces a null shape or number of classes by that of the data set, because other options refer to them.

    Returns the data set if it is what the completed configuration says, and None if there was nothing to replace, or a
    part that needs the shape was left out.
    """
    from inkdrop.configuration import USER_TARGETS, build, check

    if not (unknown := [name for name in ("shape", "num_classes") if data.get(name, 0) is None]):
        return None
    allowed = (*USER_TARGETS, *allow_targets)
    node = plain_data(data)
    typed: Any = OmegaConf.to_container(data, resolve=False)
    left_out = [
        name
        for name, part in typed.items()
        if "shape" in unknown and name != "decoder" and isinstance(part, Mapping) and _RAW in str(part)
    ]
    for name in left_out:
        del node[name]
    check(node, allowed, "data")
    found = build(node, allowed)
    for name in unknown:
        data[name] = getattr(found, name)
    return None if left_out else found


def find_codec(config: DictConfig, data: Any = None) -> Any:
    """Chooses the codec by the type of the data, if something refers to it and none is chosen; returns the data set.

    It is `pixels` for images of 8 bits, and `standardize_channels` for all other data. Data that cannot be read get
    `pixels`: their error is raised where they are built. `data` is the data set if it has been built.
    """
    if "codec" in config or not _CODEC.search(str(OmegaConf.to_container(config, resolve=False))):
        return data
    from inkdrop.codecs import Pixels
    from inkdrop.configuration import USER_TARGETS, build, check

    config.codec = {"_target_": "inkdrop.codecs.Pixels"}
    allowed = (*USER_TARGETS, *(config.get("allow_targets") or []))
    with contextlib.suppress(Exception):  # what names no data at all is refused later too
        if data is None:
            node = plain_data(config.data)
            check(node, allowed, "data")
            data = build(node, allowed)
        if not Pixels.fits(data.example()):
            config.codec = {"_target_": "inkdrop.codecs.Standardize", "channels": "${data.shape[0]}"}
    return data


def find_encoded_shape(config: DictConfig, earlier: Mapping[str, Any]) -> None:
    """Puts the shape of x in the place of that of the data, where the codec changes it: networks refer to it.

    An earlier configuration with this codec and these data knows it, also where files that the codec reads are gone.
    """
    from inkdrop.codecs import Codec
    from inkdrop.configuration import USER_TARGETS, build, check
    from inkdrop.configuration.building import located

    codec, pipeline = config.get("codec"), config.get("pipeline")
    if not isinstance(codec, DictConfig) or not isinstance(pipeline, DictConfig):
        return
    typed: Any = OmegaConf.to_container(pipeline, resolve=False)
    allowed = (*USER_TARGETS, *(config.get("allow_targets") or []))
    target = located(codec.get("_target_"), allowed, "codec")
    if typed.get("shape") != _RAW or getattr(target, "shape", Codec.shape) is Codec.shape:
        return
    node = plain_data(codec)
    raw = list(config.data.shape)
    if _codec_of(earlier) == node and earlier["data"].get("shape") == raw:
        pipeline.shape = list(earlier["pipeline"]["shape"])
        return
    check(node, allowed, "codec")
    pipeline.shape = build(node, allowed).shape(raw)


def find_fastest(config: DictConfig, earlier: Mapping[str, Any] | None) -> None:
    """Replaces null options of speed by what is fastest, or by what the run in this folder had, so that it continues.

    These are `channels_last`, which is for images, and `optimizer.fused` or else `optimizer.foreach`. They change
    nothing but the rounding.
    """
    before = earlier or {}
    if "channels_last" in config and config.channels_last is None:
        images = len(OmegaConf.select(config, "data.shape") or ()) == 3
        config.channels_last = bool(before.get("channels_last", False)) if before else images
    optimizer = config.get("optimizer")
    if not isinstance(optimizer, DictConfig) or not {"fused", "foreach"} & set(optimizer):
        return
    given = {name: optimizer.pop(name) for name in ("fused", "foreach") if name in optimizer}
    chosen = {name: value for name, value in given.items() if value is not None}
    old = before.get("optimizer") or {}
    if not chosen and old.get("_target_") == optimizer.get("_target_"):
        chosen = {name: old[name] for name in given if name in old}
    elif not chosen:
        half = str(OmegaConf.select(config, "trainer.precision")).startswith("16")
        chosen = {"fused": True} if optimizer.get("_target_") in _FUSED and not half else {"foreach": True}
    optimizer.update(chosen)


def _codec_of(earlier: Mapping[str, Any]) -> Any:
    """The codec of an earlier configuration, which may have references, or None."""
    with contextlib.suppress(OmegaConfBaseException):
        codec = OmegaConf.create(dict(earlier)).get("codec")
        return OmegaConf.to_container(codec, resolve=True) if isinstance(codec, DictConfig) else None
    return None
