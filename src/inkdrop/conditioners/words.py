"""The conditioner of texts by the words of the training data.

B batch, L tokens (the start and `length` words), D width of a token, H heads.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.conditioners.new_words import extended
from inkdrop.denoiser import Condition
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded, encoded, is_text, requested
from inkdrop.randomness import sent

_PADDING, _START, _EMPTY, _UNKNOWN, _FIRST = range(5)  # numbers of tokens; words follow from the last
_BYTES = 32  # of a word in the vocabulary; longer ones are unknown
_SHOWN = 5  # unknown words that a warning names


def split(text: str) -> list[str]:
    """Returns the words of a text in lower case; each punctuation mark is a word."""
    return re.findall(r"\w+|[^\w\s]", unicodedata.normalize("NFC", text).lower())


class _Block(nn.Module):
    """Attention among tokens (B, L, D) and two layers on each, with shortcuts."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_1(h)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.layers(self.norm_2(h))


class Words(Conditioner):
    """Tokens (B, length + 1, token_dim) of a text with a mask, by a transformer on its words that is learned with x.

    The first token starts the text and the others are its words, without case. The vocabulary are the most frequent
    words of the training data; all others are one token. A text that is dropped has one learned token alone.

    - `token_dim`: the width of a token.
    - `dim`: the width of a vector of the mean token, which is given next to the tokens; 0 for none.
    - `num_words`: the largest number of words in the vocabulary.
    - `length`: the largest number of words of a text; the rest is cut off.
    - `depth`: the number of transformer blocks.
    - `num_heads`: the attention heads, which share the width.
    - `dropout`: the probability with which training drops the text of a sample.
    - `name`: the key of the texts in a batch.

    Raises `ValueError` for data without texts of this name. A request with a word that training never had, or with more
    words than `length`, produces a warning. Source: Rombach et al. 2022, arXiv 2112.10752, section 4.3.1 (a transformer
    on tokens, trained with the model).
    """

    vocabulary: Tensor

    def __init__(
        self,
        token_dim: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(0)] = 0,
        num_words: Annotated[int, Ge(1)] = 1000,
        length: Annotated[int, Ge(1)] = 16,
        depth: Annotated[int, Ge(0)] = 1,
        num_heads: Annotated[int, Ge(1)] = 4,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "caption",
    ):
        super().__init__()
        if token_dim % num_heads:
            raise ValueError(
                f"conditioner.num_heads={num_heads} does not divide conditioner.token_dim={token_dim}: change one"
            )
        self.token_dim, self.dim, self.length, self.dropout, self.names = token_dim, dim, length, dropout, (name,)
        self.register_buffer("vocabulary", torch.zeros(num_words, _BYTES, dtype=torch.uint8))
        self.embedding: Any = nn.Embedding(_FIRST + num_words, token_dim)
        nn.init.zeros_(self.embedding.weight[_UNKNOWN])  # no training may ever reach it
        # As large as those of words: with small ones the order of words is learned late or not at all.
        self.positions = nn.Parameter(torch.randn(length + 1, token_dim))
        self.blocks = nn.ModuleList(_Block(token_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(token_dim)
        self.map = nn.Linear(token_dim, dim) if dim else None
        self._numbers: dict[str, int] = {}
        self._added: dict[str, list[int]] = {}
        self.register_load_state_dict_post_hook(lambda module, _: module._count())

    def _count(self) -> None:
        """Numbers the words of the vocabulary."""
        words = [word for word in decoded(self.vocabulary) if word]
        self._numbers = {word: _FIRST + place for place, word in enumerate(words)}

    def fit(self, batches: Batches) -> None:
        (name,) = self.names
        counts: Counter[str] = Counter()
        longest, empty = 0, True
        for batch in batches(4096, [name]):
            empty = False
            for text, times in Counter(self._texts(batch)).items():
                words = split(text)
                longest = max(longest, len(words))
                counts.update({word: times * count for word, count in Counter(words).items()})
        if empty:
            raise ValueError(
                f"the data have no {name}, whose words the conditioner reads: add it to the data by "
                f"+data.fields.{name}=..., or set conditioner.name to a field with texts"
            )
        known = [word for word in sorted(counts, key=lambda word: (-counts[word], word)) if _fits(word)]
        self.vocabulary.zero_()
        if kept := known[: len(self.vocabulary)]:
            rows = encoded(kept)
            self.vocabulary[: len(rows), : rows.shape[1]] = rows.to(self.vocabulary)
        self._count()
        if len(known) > len(self.vocabulary):
            warnings.warn(
                f"conditioner.num_words={len(self.vocabulary)} leaves out {len(known) - len(self.vocabulary):,} rare "
                f"words of {name}: raise it to keep them",
                stacklevel=2,
            )
        if longest > self.length:
            warnings.warn(
                f"conditioner.length={self.length} cuts texts of up to {longest} words: raise it to read them whole",
                stacklevel=2,
            )

    def add_words(self, name: str, words: Mapping[str, str | None], num_vectors: int) -> nn.Parameter:
        """Adds words of several vectors that begin with the mean of known ones, and returns the vectors (V, token_dim).

        Raises `ValueError` for a word that is known or is not one word, and for unknown words to begin with.
        """
        if wrong := [word for word in words if split(word) != [word]]:
            raise ValueError(f"adapter: {harmless(wrong[0], 60)} is not one word in lower case: choose another one")
        if known := [word for word in words if word in self._numbers or word in self._added]:
            raise ValueError(f"adapter: the model knows the word {harmless(known[0])}: choose a new one")
        starts = {word: split(like or "") for word, like in words.items()}
        unknown = [each for like in starts.values() for each in like if each not in self._numbers]
        if unknown and self._numbers:  # which a model has with its weights
            raise ValueError(
                f"adapter: the model does not know the word {harmless(unknown[0])}: begin with another one"
            )
        like = {word: [self._numbers[each] for each in starts[word] if each in self._numbers] for word in words}
        if self._numbers:
            like = {word: each or list(self._numbers.values()) for word, each in like.items()}
        self.embedding, numbers = extended(self.embedding, name, like, num_vectors)
        self._added |= numbers
        return next(iter(self.embedding.words.values()))

    def _numbered(self, words: Iterable[str]) -> list[int]:
        """The numbers of words, of which new ones may have several."""
        each = (self._added.get(word) or [self._numbers.get(word, _UNKNOWN)] for word in words)
        return [number for numbers in each for number in numbers][: self.length]

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        numbers = self._tokens(self._texts(batch)).to(self.positions.device)
        if name in dropped:
            alone = torch.zeros_like(numbers)
            alone[:, 0] = _EMPTY
            numbers = torch.where(sent(dropped[name], numbers.device)[:, None], alone, numbers)
        mask = numbers != _PADDING
        h = self.embedding(numbers) + self.positions
        for block in self.blocks:
            h = block(h, mask)
        tokens = self.norm(h) * mask[:, :, None]
        cond = {"tokens": tokens, "mask": mask}
        return cond if self.map is None else cond | {"vector": self.map(tokens.sum(1) / mask.sum(1, keepdim=True))}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a text, a list of texts that samples take in turn, or `@FILE` with one per line."""
        (name,) = self.names
        self.require_known(condition)
        texts = requested(condition.get(name), name, seeds)
        self._warn(dict.fromkeys(decoded(texts)))
        return {name: texts}

    def example(self, count: int) -> dict[str, Tensor]:
        return {self.names[0]: encoded([next(iter(self._numbers), "a")] * count)}

    def cut(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(split(text)) for text in self._texts(batch)])
        return {self.names[0]: lengths > self.length}

    def token_words(self, batch: Mapping[str, Tensor]) -> list[list[str]]:
        each = [split(text)[: self.length] for text in self._texts(batch)]
        return [["", *words, *[""] * (self.length - len(words))] for words in each]

    def _texts(self, batch: Mapping[str, Tensor]) -> list[str]:
        (name,) = self.names
        if not is_text(batch[name]):
            raise ValueError(f"{name} is not a text, whose words the conditioner reads: set conditioner.name to one")
        return decoded(batch[name])

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        """Returns the numbers (B, L) of the tokens of texts."""
        rows = torch.full((len(texts), self.length + 1), _PADDING)
        rows[:, 0] = _START
        for row, text in zip(rows, texts, strict=True):
            numbers = self._numbered(split(text))
            row[1 : len(numbers) + 1] = torch.tensor(numbers)
        return rows

    def _warn(self, texts: Iterable[str]) -> None:
        (name,) = self.names
        each = [split(text) for text in texts]
        unknown = list(
            dict.fromkeys(word for words in each for word in words if word not in {**self._numbers, **self._added})
        )
        if unknown and self._numbers:
            close = difflib.get_close_matches(unknown[0][:200], self._numbers, 1)
            hint = f" (did you mean {harmless(close[0])}?)" if close else ""
            more = f", and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            warnings.warn(
                f"condition.{name} has words that training has never seen: "
                f"{', '.join(harmless(word, 60) for word in unknown[:_SHOWN])}{more}{hint}",
                stacklevel=4,
            )
        if (longest := max(map(len, each))) > self.length:
            warnings.warn(
                f"condition.{name} has a text of {longest} words, of which the model reads the first {self.length}",
                stacklevel=4,
            )


def _fits(word: str) -> bool:
    return len(word.encode()) <= _BYTES
