"""The 8 x 8 digits that scikit-learn carries."""

from __future__ import annotations

import numpy as np
import torch

from inkdrop.data.loaders import Split
from inkdrop.data.module import DataModule
from inkdrop.randomness import Generators

_HELD_OUT_PER_CLASS = 35


class Digits(DataModule):
    """1,797 handwritten digits, 8 x 8, levels 0 ... 16 stretched to 0 ... 255, with labels.

    Split once and for all, by class: 35 of each digit are `validation`, 35 are `extractor`, for fitting the classifier
    that distances are measured on, and the other 1,097 are `train`.
    Source: Alpaydin and Kaynak, UCI Machine Learning Repository, 1998 (its test part).
    """

    SHAPE = (1, 8, 8)

    def load(self) -> dict[str, Split]:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
        labels = torch.from_numpy(digits.target).long()
        shuffled = Generators.from_positions(0, range(len(labels))).at("digits split").keys.argsort()
        rank = np.empty(len(labels), int)  # of each image within its class, in shuffled order
        for label in range(10):
            members = shuffled[labels.numpy()[shuffled] == label]
            rank[members] = np.arange(len(members))
        held = _HELD_OUT_PER_CLASS
        chosen = {"validation": rank < held, "extractor": (held <= rank) & (rank < 2 * held), "train": rank >= 2 * held}
        items = {name: torch.from_numpy(shuffled[mask[shuffled]].copy()) for name, mask in chosen.items()}
        return {name: {"x": images[index], "label": labels[index]} for name, index in items.items()}
