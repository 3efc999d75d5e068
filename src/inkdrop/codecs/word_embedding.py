"""The codec of texts whose x are learned vectors of tokens.

B batch, W bytes of a text, L tokens (S of a source, then `length`), V vocabulary, D width of a vector.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.codecs.base import NOTHING, Batches, Codec
from inkdrop.codecs.vocabulary import OPEN, Vocabulary, Words
from inkdrop.files.texts import encoded, is_text
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule

# (x (B, L, D), vectors (V, D)) -> the logits of the tokens (B, L, V)
Rounding: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def inner_products(x: Tensor, vectors: Tensor) -> Tensor:
    """Returns the logits `x e(w)` (B, L, V): a linear layer whose weights are tied to the vectors (V, D)."""
    return x @ vectors.T


def nearness(x: Tensor, vectors: Tensor) -> Tensor:
    """Returns the logits `-|x - e(w)|^2 / 2` (B, L, V), which are highest for the nearest of the vectors (V, D)."""
    return x @ vectors.T - (x.square().sum(-1, keepdim=True) + vectors.square().sum(1)) / 2


class WordEmbedding(Codec):
    """Maps tokens w of texts (B, W) to `x_0 = e(w) + s_0 z` (B, D, L) with learned vectors e, and x to texts.

    The vectors are trained with the model, by `loss=diffusion_lm`. s_0 is the noise of the first step of the schedule,
    and z ~ N(0, I) is drawn in training only. Padding has a vector too, so that x says where a text ends.

    - `length`: the number of tokens of a text, with the one that ends it; longer texts are cut off.
    - `num_bytes`: the number W of bytes of a decoded text.
    - `dim`: the width D of a vector.
    - `schedule`: the schedule of the model.
    - `vocabulary`: the tokens; null is up to 1,000 words of the training texts.
    - `rounding`: computes the logits of tokens; `inner_products` is published.
    - `source_length`: the number S of tokens of the field `source`, which stand before those of the text and have no
      noise; 0 for data without a source.

    The vocabulary and the vectors travel in the checkpoint. Sources: Li et al. 2022, arXiv 2205.14217, section 4; Gong
    et al. 2023, arXiv 2210.08933, section 3, for the source.
    """

    discrete = True

    def __init__(
        self,
        length: Annotated[int, Ge(2)],
        num_bytes: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        schedule: Schedule,
        vocabulary: Vocabulary | None = None,
        rounding: Rounding = inner_products,
        source_length: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        self.length, self.num_bytes, self.dim, self.source_length = length, num_bytes, dim, source_length
        self.vocabulary, self.rounding = vocabulary or Words(), rounding
        self.deviation = float(schedule.points([schedule.t_min])[0].sigma)
        self.vectors = nn.Parameter(torch.randn(self.vocabulary.num_tokens, dim))

    def check(self, data: Tensor) -> None:
        if not is_text(data):
            raise ValueError(
                f"codec=word_embedding encodes texts, uint8 of [bytes], but these data are "
                f"{str(data.dtype).removeprefix('torch.')} of {list(data.shape[1:])}: choose another codec"
            )
        self.vocabulary.check()

    def example(self, count: int) -> dict[str, Tensor]:
        return {"source": encoded([""] * count)} if self.source_length else {}

    def shape(self, raw: Sequence[int]) -> list[int]:
        return [self.dim, self.source_length + self.length]

    def fit(self, batches: Batches, device: torch.device) -> None:
        names = ["x", "source"] if self.source_length else ["x"]
        longest = self.vocabulary.fit(batch[name] for batch in batches(4096, names) for name in names)
        if longest >= (shortest := min(self.length, self.source_length or self.length)):
            warnings.warn(
                f"codec.length and codec.source_length, the shorter of which is {shortest}, cut texts of up to "
                f"{longest} tokens: set them to {longest + 1} to keep texts whole",
                stacklevel=2,
            )

    def tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the tokens (B, L) of a raw batch, those of its source first."""
        parts = [self.vocabulary.numbers(batch["x"], self.length)]
        if self.source_length:
            parts.insert(0, self.vocabulary.numbers(self._source(batch), self.source_length))
        return torch.cat(parts, 1).to(self.vectors.device)

    def clean(self, tokens: Tensor) -> Tensor:
        """Returns the vectors e(w) (B, D, L) of tokens (B, L)."""
        return nn.functional.embedding(tokens, self.vectors).transpose(1, 2)

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        clean = self.clean(self.tokens(batch))
        if generators is None:
            return clean
        z = generators.normal([self.dim, self.length], clean.dtype).to(clean.device)
        return clean + self.deviation * nn.functional.pad(z, (self.source_length, 0))

    def source(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the vectors (B, D, S) of the source of a raw batch."""
        tokens = self.vocabulary.numbers(self._source(batch), self.source_length)
        return self.clean(tokens.to(self.vectors.device))

    def _source(self, batch: Mapping[str, Tensor]) -> Tensor:
        if "source" not in batch or not is_text(batch["source"]):
            raise ValueError(
                f"codec.source_length={self.source_length} is for data with a text `source`, which these lack: "
                "choose data of pairs, such as data=text_pairs, or set codec.source_length=0"
            )
        return batch["source"]

    def logits(self, x: Tensor) -> Tensor:
        """Returns the logits (B, L, V) of the tokens of x (B, D, L)."""
        return self.rounding(x.transpose(1, 2).to(self.vectors.dtype), self.vectors)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return self.vocabulary.texts(self.logits(x[:, :, self.source_length :]).argmax(2), self.num_bytes)

    def nearest(self, x: Tensor) -> Tensor:
        """Returns the vectors (B, D, L) that are nearest to x (B, D, L)."""
        return self.clean(nearness(x.transpose(1, 2).to(self.vectors.dtype), self.vectors).argmax(2))

    def known(self, texts: Tensor) -> Tensor:
        """Returns where texts (B, W) have known tokens and no blanks, as a mask (B, 1, L)."""
        places = self.vocabulary.places(texts, self.length) != OPEN
        return nn.functional.pad(places, (self.source_length, 0), value=True)[:, None].to(texts.device)
