"""The share of texts that are exactly those of the held-out items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from inkdrop.data.loaders import Split
from inkdrop.files.texts import decoded, is_text
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results


@dataclass(frozen=True)
class ExactMatch(Metric):
    """The share of samples, texts, that are exactly the text of the item whose conditions they have: `exact_match`.

    Spaces are compared as one space. Raises `ValueError` for data that are no texts.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        if not is_text(held_out["x"][torch.arange(1)]):
            raise ValueError(
                f"ExactMatch compares texts, not data of shape {list(held_out['x'].shape[1:])}: set metric"
            )

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        truth = [text.split() for text in decoded(held_out.items["x"][torch.arange(held_out.count)])]
        made = [text.split() for text in decoded(samples.items["x"][torch.arange(samples.count)])]
        equal = sum(text == truth[number % held_out.count] for number, text in enumerate(made))
        return {"exact_match": equal / samples.count}
