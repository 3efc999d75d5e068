"""What torch-fidelity is given: images, and random weights of its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Images(torch.utils.data.Dataset):
    """Images as a data set."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def random_inception() -> dict[str, Tensor]:
    """A state dict of the extractor with random convolutions, taken from an instance made without loading."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    captured: dict[str, Tensor] = {}

    def capture(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        captured.update(self.state_dict())

    original = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = capture  # type: ignore[method-assign, assignment]
    try:
        file = Path(__file__).with_name("conftest.py")
        loader = torch.load
        torch.load = lambda *a, **k: {}  # type: ignore[assignment]
        try:
            FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))
        finally:
            torch.load = loader
    finally:
        torch.nn.Module.load_state_dict = original  # type: ignore[method-assign]
    return {name: value.clone() for name, value in captured.items()}
