"""Fits the small classifier whose features `fd_digits` is measured on: `python -m inkdrop make-extractor`."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

from inkdrop.data import Digits, collect
from inkdrop.data.module import ShuffledLoader
from inkdrop.metrics.extractors import DigitsClassifier
from inkdrop.randomness import Generators


def make_extractor(output: Path, num_steps: int = 3000, batch_size: int = 128) -> float:
    """Trains on the extractor split with shifts of up to one pixel, writes the weights, returns held-out accuracy."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    data = Digits([1, 8, 8], 10, batch_size)
    loader = ShuffledLoader(data.splits["extractor"], batch_size, seed=0)
    model = DigitsClassifier(pretrained=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for epoch in track(range(-(-num_steps // len(loader))), description="make-extractor"):
        loader.set_epoch(epoch)
        for batch in loader:
            images = _shifted(batch["x"], Generators.from_positions(0, batch["position"].tolist()))
            loss = nn.functional.cross_entropy(model.logits(images), batch["label"], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    held_out = collect(data.splits["validation"])
    with torch.no_grad():
        accuracy = (model.logits(held_out["x"]).argmax(1) == held_out["label"]).double().mean().item()
    save_file(
        model.state_dict(), output, metadata={"held_out_accuracy": f"{accuracy:.4f}", "num_steps": str(num_steps)}
    )
    return accuracy


def _shifted(images: Tensor, generators: Generators) -> Tensor:
    """Each image moved by -1, 0 or 1 pixels along both axes."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    height, width = images.shape[2:]
    offsets = (generators.at("shift").uniform((2,)) * 3).long().tolist()
    return torch.stack([p[:, i : i + height, j : j + width] for p, (i, j) in zip(padded, offsets, strict=True)])
