"""Fits the small classifier whose features distances are measured on: `python -m inkdrop make-extractor`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from inkdrop.configuration import build, check
from inkdrop.data import DataModule
from inkdrop.data.loaders import Column, ShuffledLoader
from inkdrop.files.writing import write_bytes
from inkdrop.metrics.extractors import Classifier
from inkdrop.randomness import Generators


def make_extractor(config: Mapping[str, Any]) -> float:
    """Fits the classifier of `conf/make_extractor.yaml`, writes its weights, and returns its held-out accuracy.

    The file's metadata state that accuracy and the number of steps.
    """
    from safetensors.torch import save

    check({name: config[name] for name in ("data", "extractor")})
    if build({**config["extractor"], "_partial_": True}).func is not Classifier:
        raise ValueError(
            f"extractor._target_={config['extractor']['_target_']} cannot be fitted: choose a classifier, such as "
            "extractor=digits"
        )
    data: DataModule = build(config["data"])
    if not data.num_classes:
        raise ValueError("an extractor is fitted to labels, and these data have none: choose data with labels")
    torch.manual_seed(0)
    model: Classifier = build({**config["extractor"], "weights": None})
    output, num_steps = Path(config["output"]), config["num_steps"]
    loader = ShuffledLoader(data.splits[config["split"]], data.batch_size, data.seed, augment=data.augment)
    fit(model, loader, num_steps, config["lr"], config["max_shift"])
    accuracy = recognised(model, data.splits["validation"]["x"], data.splits["validation"]["label"])
    output.parent.mkdir(parents=True, exist_ok=True)
    facts = {"held_out_accuracy": f"{accuracy:.4f}", "num_steps": str(num_steps)}
    write_bytes(output, save(model.state_dict(), facts))
    return accuracy


def fit(
    model: Classifier,
    loader: ShuffledLoader,
    num_steps: int,
    lr: float,
    max_shift: int = 0,
    description: str = "make-extractor",
) -> None:
    """Minimises the cross-entropy with labels smoothed by 0.1, by AdamW with a cosine learning-rate schedule."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    model.requires_grad_(True).train()
    for number in track(range(num_steps), description=description):
        batch = loader.batch(number)
        images = shifted(batch["x"], max_shift, Generators.from_positions(loader.seed, batch["position"].tolist()))
        scores = model.logits(model(images.to(device)))
        loss = nn.functional.cross_entropy(scores, batch["label"].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.requires_grad_(False).eval()


def recognised(model: Classifier, images: Column, labels: Column, batch_size: int = 500) -> float:
    """Returns the share of images (N, C, H, W) to which the classifier assigns their label (N)."""
    device = next(model.parameters()).device
    parts = torch.arange(len(images)).split(batch_size)
    with torch.no_grad():
        hits = sum(int((model.logits(model(images[p].to(device))).argmax(1).cpu() == labels[p]).sum()) for p in parts)
    return hits / len(images)


def shifted(images: Tensor, max_shift: int, generators: Generators) -> Tensor:
    """Returns images (B, C, H, W), each shifted by up to `max_shift` pixels along both axes and filled with 0."""
    if max_shift == 0:
        return images
    padded = nn.functional.pad(images, (max_shift,) * 4)
    height, width = images.shape[2:]
    offsets = (generators.at("shift").uniform((2,)) * (2 * max_shift + 1)).long().tolist()
    return torch.stack([p[:, i : i + height, j : j + width] for p, (i, j) in zip(padded, offsets, strict=True)])
