"""Models that diffusers published, built from files that are data."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len

from inkdrop.codecs import Pixels
from inkdrop.files.fields import wrong_field
from inkdrop.models import Autoencoder, ForeignFiles
from inkdrop.models.observations import Gaussian
from inkdrop.networks.autoencoders import ConvolutionalAutoencoder
from inkdrop.networks.bottlenecks import KL
from inkdrop.networks.diffusers_format import check_config, from_diffusers

_Count = Annotated[int, Ge(1), Le(2**16)]
_FIELDS: dict[str, Any] = {
    "block_out_channels": Annotated[list[_Count], Len(1, 16)],
    "layers_per_block": Annotated[int, Ge(1), Le(64)],
    **dict.fromkeys(("latent_channels", "in_channels", "out_channels", "norm_num_groups"), _Count),
    "mid_block_add_attention": bool,
}
_NEEDED = ("block_out_channels", "layers_per_block", "latent_channels", "in_channels")


def published_autoencoder(files: ForeignFiles, shape: list[Annotated[int, Ge(1)]]) -> Autoencoder:
    """Returns the autoencoder of a folder that diffusers has written, an `AutoencoderKL`, for images of this shape.

    - `files`: `config.json`, and weights in `diffusion_pytorch_model.safetensors`.
    - `shape`: [C, H, W] of the images.

    Raises `ValueError` for another architecture, for options that are not supported, for a shape that does not fit, and
    for weights that do not. Source: Rombach et al. 2022, arXiv 2112.10752, section 3.1.
    """
    files.architecture(["AutoencoderKL"])
    config = {"norm_num_groups": 32, "mid_block_add_attention": True, "out_channels": 3, **files.config}
    if (wrong := wrong_field(config, _FIELDS, _NEEDED)) is not None:
        raise ValueError(f"config.json of the foreign model: {wrong}")
    widths: list[int] = config["block_out_channels"]
    _check_shape(shape, config["in_channels"], config["out_channels"], 2 ** (len(widths) - 1))
    base = math.gcd(*widths)
    with torch.random.fork_rng(devices=[]):  # the numbers that the weights begin with are not used
        network = ConvolutionalAutoencoder(
            shape,
            KL(config["latent_channels"]),
            base_channels=base,
            channel_multipliers=[width // base for width in widths],
            num_blocks=config["layers_per_block"],
            attention=config["mid_block_add_attention"],
            norm_groups=config["norm_num_groups"],
        )
    check_config(files.config, network, "config.json of the foreign model")
    if (weights := files.weights()) is not None:
        network.load_state_dict(from_diffusers(weights, network))
    return Autoencoder(network, Gaussian(1.0), Pixels(), shape)


def _check_shape(shape: list[int], in_channels: int, out_channels: int, factor: int) -> None:
    if len(shape) != 3 or {in_channels, out_channels} != {shape[0]}:
        raise ValueError(
            f"the published autoencoder is for images of {in_channels} channels, but data.shape={shape}: choose data "
            f"with data.shape=[{in_channels},HEIGHT,WIDTH]"
        )
    if any(size % factor for size in shape[1:]):
        nearest = ",".join(str(max(factor, factor * round(size / factor))) for size in shape[1:])
        raise ValueError(
            f"the published autoencoder divides heights and widths by {factor}, but data.shape={shape}: set "
            f"data.shape=[{in_channels},{nearest}]"
        )
