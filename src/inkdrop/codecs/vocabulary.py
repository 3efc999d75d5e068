"""Vocabularies: texts as numbers of tokens, in places of a fixed number, and back.

B batch, L places (`length`), W bytes of a text, V tokens (`num_tokens`).
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.files.texts import decoded, encoded

PADDING, END, UNKNOWN, FIRST = range(4)  # numbers of tokens; those of a vocabulary follow from the last
OPEN = -1  # of a place that is to be filled in
BLANK = "_"  # how a text has such a place
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # how a text has an unknown token
_BYTES = 32  # of a word in the vocabulary; longer ones are unknown
_BLANKS = re.compile(r"(?<!\w)_+(?!\w)")


def split(text: str) -> list[str]:
    """Returns the words of a text; each punctuation mark is a word."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFC", text))


class Vocabulary(nn.Module):
    """The tokens of texts: `PADDING`, `END` and `UNKNOWN`, and from `FIRST` on those that it knows.

    A text is its tokens, `END`, and `PADDING` in the places that are left. A blank, `_`, is one open place; where a
    text ends with one, all places after it are open too.

    - `num_tokens`: the number V of different tokens.
    """

    num_tokens: int

    @abstractmethod
    def fit(self, texts: Iterable[Tensor]) -> int:
        """Learns the tokens of texts, in batches (B, W), and returns the largest number of tokens of a text."""

    @abstractmethod
    def tokens(self, text: str) -> list[int]:
        """Returns the numbers of the tokens of a text without blanks."""

    @abstractmethod
    def text(self, tokens: Sequence[int]) -> str:
        """Returns the text of numbers of tokens, which are `OPEN`, `UNKNOWN` or known ones."""

    def check(self) -> None:
        """Raises `ValueError` if it cannot be used."""

    def places(self, texts: Tensor, length: int) -> Tensor:
        """Returns the numbers (B, L) of texts (B, W), on the CPU, with `OPEN` for blanks; longer texts are cut off."""
        rows = torch.full((len(texts), length), PADDING)
        for row, text in zip(rows, decoded(texts), strict=True):
            first, *others = (self.tokens(part) for part in _BLANKS.split(text))
            numbers = [*first, *(number for part in others for number in (OPEN, *part))]
            if numbers[-1:] == [OPEN]:
                row[:] = OPEN
            numbers = [*numbers, END][:length] if numbers[-1:] != [OPEN] else numbers[:length]
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def numbers(self, texts: Tensor, length: int) -> Tensor:
        """Returns the numbers (B, L) of texts (B, W), on the CPU; blanks are unknown tokens."""
        places = self.places(texts, length)
        return places.where(places != OPEN, UNKNOWN)

    def texts(self, numbers: Tensor, width: int) -> Tensor:
        """Returns the texts (B, width) of numbers (B, L), up to `END`; what is longer than `width` bytes is cut off."""
        rows = torch.zeros(len(numbers), width, dtype=torch.uint8)
        for row, each in zip(rows, numbers.tolist(), strict=True):
            each = each[: each.index(END)] if END in each else each
            shown = [number for number in each if number != PADDING]
            content = self.text(shown).replace("\0", "").encode()[:width].decode("utf-8", "ignore")
            cut = encoded([content])[0]
            row[: len(cut)] = cut
        return rows.to(numbers.device)


class Words(Vocabulary):
    """The most frequent words of the training texts, with case; each punctuation mark is a word.

    - `num_words`: the largest number of words.
    - `least_count`: how often a word must occur.

    `fit` warns if `num_words` leaves out words.
    """

    rows: Tensor

    def __init__(self, num_words: Annotated[int, Ge(1)] = 1000, least_count: Annotated[int, Ge(1)] = 1):
        super().__init__()
        self.num_tokens, self.least_count = FIRST + num_words, least_count
        self.register_buffer("rows", torch.zeros(num_words, _BYTES, dtype=torch.uint8))
        self._words: list[str] = []
        self._numbers: dict[str, int] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._count())

    def _count(self) -> None:
        """Numbers the words."""
        self._words = [word for word in decoded(self.rows) if word]
        self._numbers = {word: FIRST + place for place, word in enumerate(self._words)}

    def fit(self, texts: Iterable[Tensor]) -> int:
        counts: Counter[str] = Counter()
        longest = 0
        for batch in texts:
            for text in decoded(batch):
                words = split(text)
                longest = max(longest, len(words))
                counts.update(words)
        known = [word for word, count in counts.items() if count >= self.least_count and _is_word(word)]
        known.sort(key=lambda word: (-counts[word], word))
        self.rows.zero_()
        if kept := known[: len(self.rows)]:
            rows = encoded(kept)
            self.rows[: len(rows), : rows.shape[1]] = rows.to(self.rows)
        self._count()
        if len(known) > len(self.rows):
            warnings.warn(
                f"vocabulary.num_words={len(self.rows)} leaves out {len(known) - len(self.rows):,} rare words: raise "
                "it to keep them",
                stacklevel=2,
            )
        return longest

    def tokens(self, text: str) -> list[int]:
        return [self._numbers.get(word, UNKNOWN) for word in split(text)]

    def text(self, tokens: Sequence[int]) -> str:
        return " ".join(self._word(number) for number in tokens)

    def _word(self, number: int) -> str:
        known = FIRST <= number < FIRST + len(self._words)
        return self._words[number - FIRST] if known else BLANK if number == OPEN else _UNKNOWN


def _is_word(word: str) -> bool:
    return len(word.encode()) <= _BYTES and not _BLANKS.fullmatch(word) and word != _UNKNOWN
