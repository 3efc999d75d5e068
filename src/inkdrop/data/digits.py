"""The 8 x 8 digits that are part of scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from inkdrop.data.loaders import Split
from inkdrop.data.module import DataModule
from inkdrop.randomness import Generators

_HELD_OUT_PER_CLASS = 35


class Digits(DataModule):
    """1,797 handwritten digits of 8 x 8 pixels with labels, which need no download.

    Levels 0 ... 16 become 0 ... 255. The split is fixed: 35 images of each digit are `validation`, 35 are `extractor`,
    to which the classifier that distances are measured on is fitted, and the other 1,097 are `train`.
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
