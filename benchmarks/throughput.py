"""Samples per second of the published CIFAR-10 DDPM, 35.7 million weights: `python benchmarks/throughput.py`.

DDIM on the network with random weights, in inkdrop and in diffusers with the same weights, each as it is, compiled, and
with CUDA graphs where there is a GPU. All take turns within one run; a round is one whole batch from noise to samples.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from inkdrop.codecs import Pixels
from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.networks import UNet
from inkdrop.networks.diffusers_format import to_diffusers
from inkdrop.pipeline import Pipeline, compile_network
from inkdrop.predictions import NoisePrediction
from inkdrop.samplers import DDIM
from inkdrop.schedules import linear_beta
from inkdrop.time_grids import Trailing

Draw = Callable[[], Tensor]
MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "compiled": {},
    "compiled, CUDA graphs": {"mode": "reduce-overhead"},
}


def network() -> UNet:
    """The network of the published DDPM, whose last layer is not zero."""
    torch.manual_seed(0)
    made = UNet([3, 32, 32], 128, [1, 2, 2, 2], 2, [16])
    weight: Any = made.conv_out.weight
    torch.nn.init.normal_(weight, std=0.01)
    return made


def ours(options: argparse.Namespace, compiled: dict[str, Any] | None) -> Draw:
    """inkdrop's way: DDIM through a pipeline."""
    denoiser = NetworkDenoiser(network(), linear_beta(1000, 1e-4, 0.02), NoisePrediction())
    pipeline = Pipeline(denoiser, Unconditional(), Pixels(), DDIM(Trailing(options.num_steps)), [3, 32, 32])
    pipeline.to(options.device).to(memory_format=torch.channels_last).eval()
    if compiled is not None:
        compile_network(pipeline, "mode" in compiled)
    eps = pipeline.start(range(options.batch_size))

    def draw() -> Tensor:
        with torch.autocast(options.device, torch.bfloat16):
            return pipeline({}, range(options.batch_size), eps=eps)

    return draw


def theirs(options: argparse.Namespace, compiled: dict[str, Any] | None) -> Draw:
    """diffusers' way: DDIMScheduler around UNet2DModel."""
    model: Any = UNet2DModel(
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
    )
    model.load_state_dict(to_diffusers(network()))
    model.to(options.device).to(memory_format=torch.channels_last).eval()
    if compiled is not None:
        model.compile(**compiled)
    scheduler: Any = DDIMScheduler(1000, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(options.num_steps)
    noise = torch.randn(options.batch_size, 3, 32, 32, device=options.device)

    @torch.no_grad()
    def draw() -> Tensor:
        x = noise
        with torch.autocast(options.device, torch.bfloat16):
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t).sample, t, x).prev_sample
        return x

    return draw


def seconds(draw: Draw, device: str) -> float:
    """How long one batch takes."""
    start = time.perf_counter()
    draw()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    modes = {name: how for name, how in MODES.items() if options.device == "cuda" or not (how and "mode" in how)}
    ways: dict[tuple[str, str], Draw] = {}
    for name, how in modes.items():
        for library, make in (("inkdrop", ours), ("diffusers", theirs)):
            draw = make(options, how)
            draw()
            draw()  # graphs are recorded in the second call
            ways[name, library] = draw
    taken: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, draw in ways.items():
            taken[way].append(seconds(draw, options.device))
    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU"
    print(
        f"{datetime.date.today()}, {machine}, torch {torch.__version__}, bfloat16 autocast, channels last: DDIM, "
        f"{options.num_steps} steps, batch of {options.batch_size}, {options.rounds} rounds\n"
    )
    print("| | inkdrop, samples per second | diffusers | ratio (lowest to highest round) |\n|---|---|---|---|")
    for name in modes:
        mine, other = (taken[name, library] for library in ("inkdrop", "diffusers"))
        rates = [options.batch_size / statistics.median(times) for times in (mine, other)]
        ratios = [b / a for a, b in zip(mine, other, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {spread} |")


if __name__ == "__main__":
    main()
