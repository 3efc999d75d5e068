"""The codec of texts as one-hot tokens."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.codecs.base import NOTHING, Batches, Codec
from inkdrop.codecs.vocabulary import OPEN, PADDING, Vocabulary, Words
from inkdrop.files.texts import is_text
from inkdrop.randomness import Generators

_NUMBER = 4  # bytes


class OneHot(Codec):
    """Texts (B, W) as one-hot tokens x (B, V + 1, L) of a vocabulary; the last category is the mask of absorbing noise.

    - `length`: the number L of tokens of a text, with the one that ends it; longer texts are cut off.
    - `num_bytes`: the number W of bytes of a decoded text.
    - `vocabulary`: the tokens; null is up to 1,000 words of the training texts.
    - `batch_size`: texts of a batch, by which the memory of x is known beforehand.
    - `memory_limit`: the largest memory of a batch of x, in GiB.

    The vocabulary travels in the checkpoint. Raises `ValueError` for a batch that takes more memory.
    """

    discrete = True

    def __init__(
        self,
        length: Annotated[int, Ge(2)],
        num_bytes: Annotated[int, Ge(1)],
        vocabulary: Vocabulary | None = None,
        batch_size: Annotated[int, Ge(1)] = 64,
        memory_limit: Annotated[float, Gt(0)] = 0.5,
    ):
        super().__init__()
        self.vocabulary = vocabulary or Words()
        self.length, self.num_bytes, self.batch_size, self.memory_limit = length, num_bytes, batch_size, memory_limit
        if self.memory > memory_limit:
            least = -(-self.memory // 0.01) / 100
            raise ValueError(
                f"codec=one_hot takes {self.memory:.2f} GiB for a batch of {batch_size} texts of {length} places and "
                f"{self.vocabulary.num_tokens:,} tokens, more than codec.memory_limit={memory_limit}: set "
                f"data.batch_size={max(1, int(batch_size * memory_limit / self.memory))} or less, fewer tokens, or "
                f"codec.memory_limit={least}"
            )

    @property
    def memory(self) -> float:
        """The memory of a batch of x, in GiB."""
        return self.batch_size * self.length * (self.vocabulary.num_tokens + 1) * _NUMBER / 2**30

    def check(self, data: Tensor) -> None:
        if not is_text(data):
            raise ValueError(
                f"codec=one_hot encodes texts, uint8 of [bytes], but these data are "
                f"{str(data.dtype).removeprefix('torch.')} of {list(data.shape[1:])}: choose another codec"
            )
        self.vocabulary.check()

    def shape(self, raw: Sequence[int]) -> list[int]:
        return [self.vocabulary.num_tokens + 1, self.length]

    def fit(self, batches: Batches, device: torch.device) -> None:
        longest = self.vocabulary.fit(batch["x"] for batch in batches(4096, ["x"]))
        if longest >= self.length:
            warnings.warn(
                f"codec.length={self.length} cuts texts of up to {longest} tokens: set it to {longest + 1} to keep "
                "them whole",
                stacklevel=2,
            )

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        numbers = self.vocabulary.numbers(batch["x"], self.length).to(batch["x"].device)
        x = torch.zeros(len(numbers), self.vocabulary.num_tokens + 1, self.length, device=numbers.device)
        return x.scatter_(1, numbers[:, None], 1.0)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        numbers = x.argmax(1)
        return self.vocabulary.texts(numbers.where(numbers < self.vocabulary.num_tokens, OPEN), self.num_bytes)

    def lengths(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the number of tokens (B) of the texts of a raw batch, with the one that ends each."""
        return (self.vocabulary.numbers(batch["x"], self.length) != PADDING).sum(1)

    def known(self, texts: Tensor) -> Tensor:
        """Returns where texts (B, W) have known tokens and no blanks, as a mask (B, 1, L)."""
        return (self.places(texts) != OPEN)[:, None]

    def places(self, texts: Tensor) -> Tensor:
        """Returns the numbers (B, L) of the tokens of texts (B, W), and `OPEN` for blanks."""
        return self.vocabulary.places(texts, self.length).to(texts.device)
