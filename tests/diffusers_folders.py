"""Folders of tiny models as diffusers writes them, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import text_models
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

DDPM: dict[str, Any] = {  # of digits, with the options of the published networks of DDPM
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
}


def randomised(model: Any) -> Any:
    """Zeroed layers would hide what flows through them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15, generator=generator)
    return model.eval()


def pixels(folder: Path, scheduler: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A DDIMPipeline of digits."""
    unet = randomised(UNet2DModel(**{**DDPM, **changes}))
    DDIMPipeline(unet, DDPMScheduler(**(scheduler or {}))).save_pretrained(folder)
    return folder


def tokenizer(begins: bool = True) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=text_models.tokenizer(begins),
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        model_max_length=12,
    )


def autoencoder(**options: Any) -> Any:
    """An autoencoder of images of 8 x 8 pixels, with codes of 4 x 4."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=8,
        **options,
    )


def autoencoder_3() -> Any:
    """An autoencoder with what that of Stable Diffusion 3 has and lacks."""
    return autoencoder(scaling_factor=1.5, shift_factor=0.25, use_quant_conv=False, use_post_quant_conv=False)


def transformer_3(**options: Any) -> Any:
    """The network of Stable Diffusion 3 for codes of 4 x 4."""
    return SD3Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_projection_dim=16,
        **options,
    )


def stable_diffusion(folder: Path) -> Path:
    """A StableDiffusionPipeline of images of 8 x 8 pixels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    vae = autoencoder(scaling_factor=0.5)
    randomised(unet)
    randomised(vae)
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
    pipe = StableDiffusionPipeline(
        vae,
        text_models.model("CLIPTextModel"),
        tokenizer(),
        unet,
        DDIMScheduler(**schedule, set_alpha_to_one=True, steps_offset=1, timestep_spacing="trailing"),
        None,
        None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    return folder


def stable_diffusion_3(folder: Path, with_t5: bool = True, size: int = 4) -> Path:
    """A StableDiffusion3Pipeline of images of 8 x 8 pixels, whose table of positions has `size` patches per axis."""
    torch.manual_seed(0)
    transformer = transformer_3(joint_attention_dim=20, pooled_projection_dim=9, pos_embed_max_size=size)
    vae = autoencoder_3()
    clips = [
        transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**{**text_models.CLIP, **changes}))
        for changes in ({}, {"hidden_size": 12, "projection_dim": 5, "num_hidden_layers": 3, "hidden_act": "gelu"})
    ]
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(**{**text_models.T5, **text_models.T5_FURTHER, "d_model": 20})
    )
    parts = [randomised(each) for each in (transformer, vae, *clips, t5)]
    pipe = StableDiffusion3Pipeline(
        parts[0],
        FlowMatchEulerDiscreteScheduler(),
        parts[1],
        parts[2],
        tokenizer(),
        parts[3],
        tokenizer(),
        parts[4] if with_t5 else None,
        tokenizer(False) if with_t5 else None,
    )
    pipe.save_pretrained(folder)
    return folder
