"""How probable texts are under a language model, and texts of independent words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from inkdrop.codecs.vocabulary import split
from inkdrop.data.loaders import Split
from inkdrop.files.texts import decoded, encoded, is_text
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.models import Autoregressive
from inkdrop.pipeline import load
from inkdrop.randomness import Generators

_MOST_WORDS = 256  # of a text of independent words


class Ruler(Extractor):
    """-log p of a text in nats, and its number of tokens, (B, 2), by a run of task=autoregressive.

    - `checkpoint`: the run folder or checkpoint file.
    - `weights`: ema, raw, or the name of another average.
    """

    name, dim = "ruler", 2

    def __init__(self, checkpoint: str, weights: str = "ema"):
        super().__init__()
        self._checkpoint, self._weights = checkpoint, weights

    def read(self) -> None:
        model: Any = load(self._checkpoint, self._weights)
        if not hasattr(model, "nats"):
            raise ValueError(
                f"extractor.checkpoint={self._checkpoint} is a {type(model).__name__}, which has no likelihood of "
                "texts: choose a run of task=autoregressive"
            )
        self.model: Autoregressive = model.requires_grad_(False).eval()

    def check(self, data: Tensor) -> None:
        if not is_text(data):
            raise ValueError(f"extractor ruler measures texts, not data of shape {list(data.shape[1:])}: set metric")
        super().check(data)

    def forward(self, data: Tensor) -> Tensor:
        codec: Any = self.model.codec
        return torch.stack([self.model.nats({"x": data}), codec.lengths({"x": data}).double()], 1)


@dataclass(frozen=True)
class NegativeLogLikelihood(Metric):
    """The nats per token of samples under a language model, the sum of -log p over that of their tokens: `nll`.

    The floor is that of held-out texts, and the baseline that of independent words. A low value means probable texts,
    and also texts that repeat what is most probable. It needs `extractor=Ruler`. Source: Li et al. 2022, arXiv
    2205.14217, section 6 (there of a fine-tuned GPT-2).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        if extractor.name != Ruler.name:
            raise ValueError(f"metric nll needs a language model, not extractor {extractor.name}: set metric=nll alone")
        super().check(held_out, reference, extractor)

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        nats, tokens = samples.features_on(torch.device("cpu")).double().sum(0).tolist()
        return {"nll": nats / tokens}


def independent_words(texts: Iterable[Tensor], count: int, width: int) -> Tensor:
    """Returns texts (count, width) whose words, and whose ends, are drawn independently with the frequencies of texts.

    - `texts`: the texts, in batches (N, W).
    - `count`: number of texts.
    - `width`: bytes of a text.
    """
    counts: Counter[str] = Counter()
    for batch in texts:
        for text in decoded(batch):
            counts.update([*split(text), ""])
    words = sorted(counts)
    sums = np.cumsum([counts[word] for word in words])
    u = Generators.from_positions(0, range(count)).at("trivial").uniform((_MOST_WORDS,)).numpy()
    drawn = np.searchsorted(sums, u * sums[-1], side="right")
    lines = [" ".join(words[number] for number in _until(row, words.index(""))) for row in drawn.tolist()]
    rows = encoded([line.encode()[:width].decode("utf-8", "ignore") for line in lines])
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]))


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end)] if end in row else row
