"""Pairs of texts whose rule is known: words that are copied, or reversed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from inkdrop.data.loaders import Derive
from inkdrop.data.texts import TextData, Texts
from inkdrop.randomness import Generators

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class CopiedWords(TextData):
    """Pairs of random words of one letter: the `source`, and `x`, the same words in the order that `step` says.

    Arguments beyond those of `TextData`:

    - `num_train`, `num_validation`: numbers of pairs.
    - `num_words`: number of different words.
    - `lengths`: the smallest and the largest number of words, between which it is drawn.
    - `step`: 1 copies, and -1 reverses.

    Raises `ValueError` for lengths out of order.
    """

    def __init__(
        self,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        num_train: Annotated[int, Ge(1), Le(10_000_000)],
        num_validation: Annotated[int, Ge(1), Le(1_000_000)],
        num_words: Annotated[int, Gt(1), Le(len(_LETTERS))],
        lengths: list[Annotated[int, Ge(1)]],
        step: Literal[1, -1] = 1,
        seed: Annotated[int, Ge(0)] = 0,
        derive: dict[str, Derive] | None = None,
    ):
        super().__init__(shape, num_classes, batch_size, seed, derive)
        if len(lengths) != 2 or lengths[0] > lengths[1]:
            raise ValueError(f"data.lengths={lengths} must be two numbers of words: put the smaller one first")
        self.train_pairs, self.validation_pairs, self.num_words = num_train, num_validation, num_words
        self.lengths, self.step = lengths, step

    def texts(self) -> dict[str, Texts]:
        low, high = self.lengths
        u = (
            Generators.from_positions(0, range(self.train_pairs + self.validation_pairs))
            .at("words")
            .uniform([high + 1])
        )
        lengths = (low + (u[:, 0] * (high - low + 1)).long()).tolist()
        words = [[_LETTERS[number] for number in row] for row in (u[:, 1:] * self.num_words).long().tolist()]
        sources = [row[:length] for row, length in zip(words, lengths, strict=True)]
        return {
            "train": self._pairs(sources[: self.train_pairs]),
            "validation": self._pairs(sources[self.train_pairs :]),
        }

    def _pairs(self, sources: Sequence[Sequence[str]]) -> Texts:
        return {
            "x": [" ".join(source[:: self.step]) for source in sources],
            "source": [" ".join(source) for source in sources],
        }
