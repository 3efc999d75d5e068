"""Texts with blanks in the place of words."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt, Lt
from torch import Tensor

from inkdrop.codecs.vocabulary import BLANK, split
from inkdrop.data.loaders import Batch, Derive
from inkdrop.files.texts import decoded, encoded
from inkdrop.randomness import Generators


class MiddleBlanks(Derive):
    """The texts x (B, W) with blanks, `_`, in the place of a span of words, as (B, 2 W): what infilling starts from.

    The span is at a random place, but never at the start or the end of a text of three words or more.

    - `share`: the share of the words that the span has, at least one word.
    """

    def __init__(self, share: Annotated[float, Gt(0), Lt(1)] = 0.3):
        self.share = share

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        places = generators.at("blanks").uniform().tolist()
        texts = [self._blanked(split(text), u) for text, u in zip(decoded(fields["x"]), places, strict=True)]
        rows = encoded(texts)
        return torch.nn.functional.pad(rows, (0, 2 * fields["x"].shape[1] - rows.shape[1]))

    def _blanked(self, words: list[str], u: float) -> str:
        count = min(max(1, round(self.share * len(words))), max(1, len(words) - 2))
        start = 1 + int(u * (len(words) - count - 1)) if len(words) > 2 else 0
        return " ".join([*words[:start], *[BLANK] * min(count, len(words)), *words[start + count :]])
