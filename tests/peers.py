"""Networks of other libraries that ours are compared with."""

from typing import Any

from diffusers import UNet2DModel


def diffusers_cifar10() -> UNet2DModel:
    """The layout of the published CIFAR-10 DDPM."""
    return UNet2DModel(
        sample_size=32,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    ).eval()


def diffusers_small(**changes: Any) -> UNet2DModel:
    """Two resolutions, the lower one with attention."""
    layout = {
        "sample_size": 16,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_num_groups": 4,
        "norm_eps": 1e-6,
    }
    return UNet2DModel(**{**layout, **changes}).eval()
