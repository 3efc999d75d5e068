"""DDPM++ and NCSN++: published sizes, the same function as diffusers', filters by their closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.downsampling import FirDownsample2D
from scipy.signal import upfirdn
from torch import Tensor

from inkdrop.networks import NCSNpp
from inkdrop.networks.ncsnpp import Fourier, Positional
from inkdrop.networks.resampling import Downsample, ResidualInput, SkipInput, Upsample

DDPMPP: dict[str, Any] = {"resample": [1, 1]}
NCSNPP: dict[str, Any] = {"resample": [1, 3, 3, 1], "embedding": Fourier, "progressive_input": ResidualInput}


@pytest.mark.parametrize(
    ("variant", "multipliers", "vector_dim", "expected"),
    [
        (DDPMPP, [2, 2, 2], 9, 55_733_891),  # EDM's, with its 9 numbers on augmentation: 55.7 million
        (NCSNPP, [2, 2, 2], 9, 56_397_827),
        (DDPMPP, [1, 2, 2, 2], 0, 61_804_419),  # that of Song et al., "cont.": 61.8 million
        (NCSNPP, [1, 2, 2, 2], 0, 62_758_787),  # 62.8 million
    ],
)
def test_published_sizes(variant: dict[str, Any], multipliers: list[int], vector_dim: int, expected: int) -> None:
    with torch.device("meta"):
        network = NCSNpp([3, 32, 32], 128, multipliers, 4, [16], **variant, vector_dim=vector_dim)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def from_diffusers(weights: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Their names in ours."""
    inner = {
        "norm1": "norm_1",
        "conv1": "conv_1",
        "time_emb_proj": "embedding",
        "norm2": "norm_2",
        "conv2": "conv_2",
        "conv_shortcut": "shortcut",
        "group_norm": "attention.norm",
        "to_q": "attention.q",
        "to_k": "attention.k",
        "to_v": "attention.v",
        "to_out.0": "attention.out",
    }
    outer = {
        "time_proj.weight": "embedding.frequencies",
        "time_embedding.linear_1": "time.0",
        "time_embedding.linear_2": "time.2",
        "conv_norm_out": f"up.{levels - 1}.beside.0",
        "conv_out": f"up.{levels - 1}.beside.2",
        "mid_block.resnets.": "middle.",
        "down_blocks": "down",
        "up_blocks": "up",
        ".resnets.": ".blocks.",
        ".resnet_down.": ".resample.",
        ".resnet_up.": ".resample.",
        ".skip_norm.": ".beside.0.",
    }
    ours = {}
    for name, weight in weights.items():
        if "up_blocks" in name:
            name = name.replace(".attentions.0.", ".resnets.1.").replace(".skip_conv.", ".beside.2.")
        name = name.replace(".attentions.", ".resnets.").replace(".skip_conv.", ".beside.conv.")
        for theirs, our in {**outer, **inner}.items():
            name = name.replace(theirs, our)
        ours[name] = weight
    return ours


def test_it_is_the_same_function_as_diffusers() -> None:
    """The published network of 256 x 256 and 1024 x 1024 faces, smaller: filtered input and output pyramids."""
    torch.manual_seed(0)
    peer = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 128, 128),
        layers_per_block=1,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
        time_embedding_type="fourier",
        mid_block_scale_factor=math.sqrt(2),
        attention_head_dim=None,
        norm_num_groups=None,
        norm_eps=1e-6,
    ).eval()
    for parameter in peer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = NCSNpp(
        [3, 16, 16],
        32,
        [1, 4, 4],
        1,
        [8],
        [1, 3, 3, 1],
        embedding=Fourier,
        progressive_input=SkipInput,
        output_levels=3,
    ).eval()
    ours.load_state_dict(from_diffusers(peer.state_dict(), 3))
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 20.0])
    with torch.no_grad():
        expected = peer(x, sigma).sample * sigma[:, None, None, None]  # theirs is the score
        assert (ours(x, sigma.log()) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_residual_input_is_that_of_diffusers() -> None:
    ours, theirs = ResidualInput(3, 8, [1, 3, 3, 1], 2), FirDownsample2D(3, 8, use_conv=True)
    theirs.Conv2d_0.load_state_dict(ours.conv.state_dict())
    x, h = torch.randn(2, 3, 8, 12), torch.randn(2, 8, 4, 6)
    with torch.no_grad():
        pyramid, summed = ours(x, h)
        expected = (theirs(x) + h) / math.sqrt(2)
        assert torch.allclose(summed, expected, atol=1e-6)
        assert torch.equal(pyramid, summed)


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1], [1, 2, 5, 7, 7, 1]])
def test_filters_are_direct_convolutions(taps: list[float]) -> None:
    """In each of three dimensions what scipy's polyphase filter says, zeros beyond the border."""
    half = np.array(taps, float) / sum(taps)
    first = len(taps) // 2

    def down(line: np.ndarray) -> np.ndarray:
        return upfirdn(half[::-1], line)[first : first + len(line)][::2]

    def up(line: np.ndarray) -> np.ndarray:
        return upfirdn(2 * half, line, up=2)[first - 1 : first - 1 + 2 * len(line)]

    x = torch.randn(2, 3, 4, 6, 8, dtype=torch.float64)
    lower = higher = x.numpy()
    for axis in (2, 3, 4):
        lower, higher = np.apply_along_axis(down, axis, lower), np.apply_along_axis(up, axis, higher)
    assert np.abs(Downsample(taps, 3)(x).numpy() - lower).max() < 1e-7
    assert np.abs(Upsample(taps, 3)(x).numpy() - higher).max() < 1e-6


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_a_wave_goes_down_and_up_by_the_response_of_the_filter(taps: list[float]) -> None:
    """Constants stay; a wave of rate w keeps cos(w / 2)^(2 K - 2), and its image has at most |sin(w / 2)|^(K - 1)."""
    for rate in (0.0, 0.1, 0.4):
        x = torch.cos(rate * torch.arange(64, dtype=torch.float64) + 0.3).expand(1, 1, 64, 64)
        y = Upsample(taps, 2)(Downsample(taps, 2)(x))[..., 4:-4, 4:-4]
        kept, image = math.cos(rate / 2) ** (len(taps) - 1), math.sin(rate / 2) ** (len(taps) - 1)
        assert (y - kept**2 * x[..., 4:-4, 4:-4]).abs().max() <= kept * image + 1e-6
    assert torch.allclose(Downsample([1, 1], 2)(x), torch.nn.functional.avg_pool2d(x, 2))


def test_embeddings_are_their_formulas() -> None:
    c_noise = torch.tensor([0.3, -1.2])
    fourier = Fourier(2000, scale=3.0)
    assert fourier.frequencies.std() == pytest.approx(3, rel=0.1)
    sines, cosines = fourier(c_noise).chunk(2, dim=1)
    angles = 2 * math.pi * c_noise[:, None] * fourier.frequencies
    assert torch.allclose(sines, angles.sin())
    assert torch.allclose(cosines, angles.cos())
    # Bochner: the inner product of two embeddings is exp(-(2 pi scale d)^2 / 2) at the distance d
    near = torch.tensor([0.0, 0.03])
    first, second = fourier(near)
    assert (first @ second / 2000).item() == pytest.approx(math.exp(-((2 * math.pi * 3 * 0.03) ** 2) / 2), abs=0.06)
    assert Positional(4)(torch.tensor([2.0]))[0].tolist() == pytest.approx(
        [math.sin(2), math.sin(2e-4), math.cos(2), math.cos(2e-4)]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": [1, 2, 1]}, "even number of taps"),
        ({"resample": [1, -1]}, "sum is not 0"),
        ({"output_levels": 3}, "more than the 2 resolutions"),
        ({"base_channels": 140}, "multiple of 32"),
        ({"shape": [3, 15, 16]}, "halved"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    layout = {"shape": [3, 16, 16], "base_channels": 8, "channel_multipliers": [1, 2], "num_blocks": 1}
    with pytest.raises(ValueError, match=message):
        NCSNpp(**{**layout, "attention_resolutions": [], "resample": [1, 1], **changes})
