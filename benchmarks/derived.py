"""What derived fields cost: `python benchmarks/derived.py` prints the table of docs/data.md.

The milliseconds are those by which a batch of 64 images of 3 x 32 x 32 pixels takes longer to make with the field, each
the median of the batches; the last column is their share of a training step of a UNet of that size on the same threads.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from inkdrop.data import degradations, module
from inkdrop.data.loaders import Derive, ShuffledLoader
from inkdrop.networks import UNet

SIZE, BATCH, ROUNDS = 32, 64, 15
FIELDS: dict[str, Derive] = {
    "Downscale, factor 4": degradations.Downscale(4),
    "BicubicDownscale, factor 4": degradations.BicubicDownscale(4),
    "Blur, 0.5 to 2 pixels": degradations.Blur(0.5, 2.0),
    "JPEG, quality 10 to 50": degradations.JPEG(10, 50),
    "Blur, BicubicDownscale and JPEG": degradations.Chain(
        [degradations.Blur(0.5, 2.0), degradations.BicubicDownscale(4), degradations.JPEG(10, 50)]
    ),
    "Grey": degradations.Grey(),
    "Edges": degradations.Edges(),
    "ColourJitter": degradations.ColourJitter(),
    "BoxMask": degradations.BoxMask(),
    "HalfMask": degradations.HalfMask(["lower"]),
    "OutpaintingMask": degradations.OutpaintingMask(),
    "PixelMask": degradations.PixelMask(),
    "StrokeMask": degradations.StrokeMask(),
}


class Images(module.DataModule):
    """Random images."""

    def load(self) -> dict[str, Any]:
        x = torch.randint(0, 256, (1024, 3, SIZE, SIZE), dtype=torch.uint8)
        return {"train": {"x": x}, "validation": {"x": x}}


def seconds(loader: ShuffledLoader) -> float:
    """The median time of a batch."""
    times = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        loader.batch(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def loader(field: Derive | None = None) -> ShuffledLoader:
    """Batches of images with a derived field, or without any."""
    return Images([3, SIZE, SIZE], 0, BATCH, derive={} if field is None else {"field": field}).train_dataloader()


def step() -> float:
    """The median time of a training step of a UNet."""
    network = UNet([3, SIZE, SIZE], 32, None, 1, None, norm_groups=8)
    optimizer = torch.optim.Adam(network.parameters())
    times = []
    for _ in range(5):
        x, t = torch.randn(BATCH, 3, SIZE, SIZE), torch.rand(BATCH)
        started = time.perf_counter()
        network(x, t).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    whole = step()
    plain = seconds(loader())
    print(f"a training step: {1000 * whole:.0f} ms; a batch without derived fields: {1000 * plain:.2f} ms\n")
    print("| field | ms a batch of 64 | % of a training step |\n|---|---|---|")
    for name, derive in FIELDS.items():
        more = seconds(loader(derive)) - plain
        print(f"| `{name}` | {1000 * more:.2f} | {100 * more / whole:.2f} |")


if __name__ == "__main__":
    main()
