"""The published layout of latent diffusion: networks, folders and samples equal those of diffusers, both ways."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from runs import differing, interrupted, run, sampled
from torch import Tensor, nn

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.errors import CheckpointError
from inkdrop.models import Latent
from inkdrop.networks import LatentUNet
from inkdrop.networks.autoencoders import ConvolutionalAutoencoder
from inkdrop.networks.bottlenecks import KL
from inkdrop.networks.diffusers_format import config_for_diffusers, from_diffusers, read_diffusers_folder, to_diffusers
from inkdrop.pipeline import foreign, published_autoencoder

UNET: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 6,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
OURS: dict[str, Any] = {
    "shape": [4, 8, 8],
    "base_channels": 8,
    "channel_multipliers": [1, 2],
    "num_blocks": 1,
    "num_heads": 2,
    "norm_groups": 4,
    "token_dim": 6,
}
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 4,
    "latent_channels": 3,
    "sample_size": 16,
}


def randomised(network: Any) -> Any:
    """Zeroed layers would hide what flows through them."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network.eval()


def autoencoder(**changes: Any) -> ConvolutionalAutoencoder:
    options: dict[str, Any] = {"base_channels": 8, "channel_multipliers": [1, 2, 2], "num_blocks": 2, "norm_groups": 4}
    return ConvolutionalAutoencoder([3, 16, 16], KL(3), **{**options, **changes}).eval()


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return float((one - other).abs().max()) < tolerance * float(other.abs().max())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"use_linear_projection": True, "attention_head_dim": (2, 4)}, {"num_heads": None, "head_dim": 4}),
        (
            {
                "transformer_layers_per_block": 2,
                "layers_per_block": 2,
                "class_embed_type": "simple_projection",
                "projection_class_embeddings_input_dim": 5,
            },
            {"depth": 2, "num_blocks": 2, "vector_dim": 5},
        ),
        (
            {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2},
            {"attention_resolutions": []},
        ),
    ],
    ids=["first", "linear", "deep", "middle"],
)
def test_the_latent_unet_is_the_function_of_diffusers_both_ways(
    theirs: dict[str, Any], ours: dict[str, Any], tmp_path: Path
) -> None:
    peer = randomised(UNet2DConditionModel(**{**UNET, **theirs}))
    peer.save_pretrained(tmp_path / "unet")
    network = LatentUNet(**{**OURS, **ours}).eval()
    network.load_state_dict(read_diffusers_folder(tmp_path, network))
    x, c_noise, tokens = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 900.0]), torch.randn(2, 5, 6)
    vector = torch.randn(2, 5) if "vector_dim" in ours else None
    with torch.no_grad():
        expected = peer(x, c_noise, tokens, class_labels=vector).sample
        assert close(network(x, c_noise, vector, tokens), expected)
        back = UNet2DConditionModel.from_config(config_for_diffusers(network))
        back.load_state_dict(to_diffusers(network))
        assert close(back.eval()(x, c_noise, tokens, class_labels=vector).sample, expected)


def test_a_mask_of_tokens_is_that_of_diffusers() -> None:
    peer, network = randomised(UNet2DConditionModel(**UNET)), LatentUNet(**OURS).eval()
    network.load_state_dict(from_diffusers(peer.state_dict(), network))
    x, c_noise, tokens = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 900.0]), torch.randn(2, 5, 6)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    with torch.no_grad():
        expected = peer(x, c_noise, tokens, encoder_attention_mask=mask).sample
        assert close(network(x, c_noise, tokens=tokens, mask=mask), expected)
        assert not close(network(x, c_noise, tokens=tokens), expected, 1e-3)


def test_the_published_unet_has_its_size() -> None:
    with torch.device("meta"):
        network = LatentUNet([4, 64, 64], 320, [1, 2, 4, 4], 2, 8, norm_groups=32, token_dim=768)
    assert sum(each.numel() for each in network.parameters()) == 859_520_964


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"mid_block_add_attention": False, "layers_per_block": 1}, {"attention": False, "num_blocks": 1}),
        ({"use_quant_conv": False, "use_post_quant_conv": False}, {}),
    ],
    ids=["first", "plain", "without-quant"],
)
def test_the_autoencoder_is_the_function_of_diffusers_both_ways(
    theirs: dict[str, Any], ours: dict[str, Any], tmp_path: Path
) -> None:
    peer, network = randomised(AutoencoderKL(**{**AUTOENCODER, **theirs})), autoencoder(**ours)
    peer.save_pretrained(tmp_path)
    network.load_state_dict(read_diffusers_folder(tmp_path, network))
    x, z = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        law, decoded = peer.encode(x).latent_dist, peer.decode(z).sample
        assert close(network.encoder(x), law.parameters)
        assert close(network.bottleneck(network.encoder(x)).z, law.mode())
        assert close(network.decoder(z), decoded)
        back = AutoencoderKL.from_config(config_for_diffusers(network))
        back.load_state_dict(to_diffusers(network))
        assert close(back.eval().encode(x).latent_dist.parameters, law.parameters)
        assert close(back.decode(z).sample, decoded)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act_fn": "gelu"}, "act_fn=gelu, but this network has silu"),
        ({"norm_eps": 1e-6}, "norm_eps=1e-06, but this network has 1e-05"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim=8, but this network has None"),
        (
            {"attention_head_dim": 4},
            r"\[4, 4\] attention heads, but this network has \[2, 2\]: choose network.num_heads",
        ),
        ({"dual_cross_attention": True}, "dual_cross_attention=True"),
        ({"class_embed_type": "identity"}, "class_embed_type=identity"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type=text_time"),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos=False, but this network has True"),
        ({"_class_name": "UNet2DModel"}, "holds a UNet2DModel, and network=latent_unet is a UNet2DConditionModel"),
    ],
)
def test_options_that_the_network_lacks_are_refused_by_name(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    UNet2DConditionModel(**UNET).save_pretrained(tmp_path)
    path, network = tmp_path / "config.json", LatentUNet(**OURS)
    read_diffusers_folder(tmp_path, network)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        read_diffusers_folder(tmp_path, network)


def test_a_network_that_diffusers_lacks_is_refused(tmp_path: Path) -> None:
    UNet2DConditionModel(**UNET).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a Linear, which diffusers does not have: choose network=unet"):
        read_diffusers_folder(tmp_path, nn.Linear(2, 2))


def test_one_of_heads_and_their_width_is_needed() -> None:
    for heads in ({"num_heads": None}, {"num_heads": 2, "head_dim": 4}):
        with pytest.raises(ValueError, match=r"set one of network\.num_heads and network\.head_dim"):
            LatentUNet(**{**OURS, **heads})
    with pytest.raises(ValueError, match="num_heads=3 does not divide"):
        LatentUNet(**{**OURS, "num_heads": 3})


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`latent`, a run in the codes of a published autoencoder of digits in `vae`, which is moved to `gone` since."""
    folder = tmp_path_factory.mktemp("published")
    randomised(AutoencoderKL(**DIGITS)).save_pretrained(folder / "vae")
    run(folder / "latent", model=options(folder / "vae"))
    sampled(folder / "latent", folder / "before", "num_samples=4")
    (folder / "vae").rename(folder / "gone")
    return folder


DIGITS: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 2,
    "latent_channels": 3,
    "sample_size": 8,
    "scaling_factor": 0.25,
}


def options(vae: Path) -> list[str]:
    steps = [
        "logger=none",
        "trainer.max_steps=4",
        "trainer.log_every_n_steps=1",
        "callbacks.checkpoint.every.steps=2",
        "callbacks.checkpoint.keep=9",
    ]
    small = ["network.base_channels=8", "network.num_blocks=1", "callbacks.evaluate=null", "callbacks.pictures=null"]
    codec = ["codec=latent_published", f"codec.model.files.path={vae}", "codec.scale=0.25"]
    return ["experiment=digits", "guidance=none", *codec, *small, *steps, "time_grid.num_steps=3"]


@pytest.mark.slow
def test_a_run_in_published_codes_needs_its_checkpoint_alone(runs_of: Path, tmp_path: Path) -> None:
    then = np.load(runs_of / "before" / "samples.npz")
    now, _ = sampled(runs_of / "latent", tmp_path / "now", "num_samples=4")
    assert all(np.array_equal(now[name], then[name]) for name in then.files)
    content = read_checkpoint(runs_of / "latent")
    interrupted(runs_of / "latent", 2, tmp_path / "again")
    again = run(tmp_path / "again", "resume_allow=[output_dir]", model=options(runs_of / "vae"))
    assert differing(content, again) == []
    pipeline: Any = inkdrop.load(runs_of / "latent")
    peer: Any = AutoencoderKL.from_pretrained(runs_of / "gone")
    images = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        x = pipeline.codec.encode({"x": images})
        assert close(x, 0.25 * peer.encode(images.float() / 127.5 - 1).latent_dist.mode())
        assert close(pipeline.codec.reconstruct(x) / 127.5 - 1, peer.decode(x / 0.25).sample)


def test_codes_are_standardised_unless_they_are_scaled(tmp_path: Path) -> None:
    randomised(AutoencoderKL(**DIGITS)).half().save_pretrained(tmp_path)  # as many are published
    model = published_autoencoder(foreign(str(tmp_path)), [1, 8, 8])
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8)
    z = model.codes(model.encoded({"x": images})).detach()
    for scale in (None, 0.5):
        codec = Latent(model, scale)
        codec.fit(lambda size, names=None: [{"x": images}], torch.device("cpu"))
        x = codec.encode({"x": images})
        mean, std = z.mean((0, 2, 3), keepdim=True), z.std((0, 2, 3), correction=0, keepdim=True)
        assert torch.allclose(x, (z - mean) / std if scale is None else 0.5 * z, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "shape", "words"),
    [
        (
            {"_class_name": "VQModel"},
            [1, 8, 8],
            r"architecture VQModel, which is not supported.*available: Autoencoder",
        ),
        ({"auto_map": {"AutoModel": "code.Model"}}, [1, 8, 8], "auto_map, which names code to run"),
        ({"block_out_channels": [2**20]}, [1, 8, 8], r"block_out_channels\.0: input should be less than or equal to"),
        ({"layers_per_block": "2"}, [1, 8, 8], "layers_per_block: input should be a valid integer"),
        ({"act_fn": "gelu"}, [1, 8, 8], "act_fn=gelu, but this network has silu"),
        ({"layers_per_block": 3}, [1, 8, 8], "weights do not fit the network"),
        ({}, [3, 8, 8], r"for images of 1 channels, but data\.shape=\[3, 8, 8\]: choose data with data\.shape=\[1,H"),
        ({}, [1, 8, 7], r"divides heights and widths by 2, but data\.shape=\[1, 8, 7\]: set data\.shape=\[1,8,8\]"),
    ],
)
def test_a_published_autoencoder_that_does_not_fit_is_refused(
    change: dict[str, Any], shape: list[int], words: str, tmp_path: Path
) -> None:
    AutoencoderKL(**DIGITS).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        published_autoencoder(foreign(str(tmp_path)), shape)


def test_another_published_autoencoder_in_its_place_is_refused(
    runs_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(runs_of / "latent", 2, tmp_path / "again")
    shutil.copytree(runs_of / "gone", runs_of / "vae")
    path = runs_of / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "force_upcast": False}))
    try:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "again", "resume_allow=[output_dir]", model=options(runs_of / "vae"))
    finally:
        shutil.rmtree(runs_of / "vae")
    assert end.value.code == 4
    assert "is not the model that the run was started with" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config\.json cannot be read"):
        inkdrop.train(*options(tmp_path / "nowhere"), f"output_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
