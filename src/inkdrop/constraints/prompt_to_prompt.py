"""Editing by another text: a sample and its edit are drawn together, and the edit takes over where the sample attends.

P pairs, H heads, N positions of x, L tokens. Rows of a batch are pairs: a source and its edit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import SequenceMatcher
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.constraints.base import Constraint, ConstraintFactory
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.files.texts import decoded, requested
from inkdrop.noises import Draw, Transition
from inkdrop.randomness import Generators
from inkdrop.schedules import Point


class Alignment(ABC):
    """Which words of two texts belong together."""

    def __call__(self, before: Sequence[str], after: Sequence[str]) -> list[int | None]:
        """Returns for each word of `after` the position of its counterpart in `before`, or None where it has none."""
        places: list[int | None] = [None] * len(after)
        for kind, first, end, start, stop in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if self.joins(kind):
                places[start:stop] = [first + i if first + i < end else None for i in range(stop - start)]
        return places

    @abstractmethod
    def joins(self, kind: str) -> bool:
        """Returns whether words belong together that are `equal`, or that `replace` others."""


class Replace(Alignment):
    """Equal words belong together, and a word to the one that it replaces: a new word is drawn where the old one was.

    Source: Hertz et al. 2022, arXiv 2208.01626, section 3.2 (word swap).
    """

    def joins(self, kind: str) -> bool:
        return kind in ("equal", "replace")


class Refine(Alignment):
    """Equal words belong together; each other word finds its own place.

    Source: Hertz et al. 2022, arXiv 2208.01626, section 3.2 (adding a new phrase).
    """

    def joins(self, kind: str) -> bool:
        return kind == "equal"


class _Tokens(NamedTuple):
    """Of each token of an edit: its counterpart (P, L), whether it has one (P, L), and a factor of its map (P, L)."""

    counterpart: Tensor
    has_counterpart: Tensor
    factor: Tensor


class _Takes:
    """Attention in which edits take over the maps of their sources, and the maps of words have factors."""

    def __init__(self, tokens: _Tokens | None, takes: bool):
        self.tokens, self.takes = tokens, takes

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        maps = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(3)
        source, edit = maps[::2], maps[1::2]
        if self.tokens is None:
            edit = source
        else:
            # Guidance repeats the batch. Where it empties the text, one token is left, which is its own counterpart.
            counterpart, has, factor = (each.repeat(len(edit) // len(each), 1)[:, None, None] for each in self.tokens)
            if self.takes:
                edit = torch.where(has, source.gather(3, counterpart.expand_as(source)), edit)
            edit = edit * factor
        return torch.stack([source, edit], 1).flatten(0, 1) @ v


@contextmanager
def _replaced(modules: Mapping[Any, _Takes]) -> Iterator[None]:
    """Replaces the attention of these modules within the block."""
    before = {module: module.attend for module in modules}
    try:
        for module, attend in modules.items():
            module.attend = attend
        yield
    finally:
        for module, attend in before.items():
            module.attend = attend


class _Attending(Wrapper):
    """The denoiser of pairs, each row under its own condition."""

    def __init__(self, denoiser: Denoiser, cond: Condition, tokens: _Tokens, made_by: PromptToPrompt):
        super().__init__(denoiser)
        self.cond, self.tokens, self.made_by = dict(cond), tokens, made_by
        self.attending: list[Any] = [each for each in denoiser.modules() if hasattr(each, "is_cross")]
        if not any(each.is_cross for each in self.attending):
            raise ValueError(
                "constraint=prompt_to_prompt needs a network that attends to words: train with network=unet"
            )
        self.share = 0.0  # of the moves that are done

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        crosses, selfs = self.share < self.made_by.cross_share, self.share < self.made_by.self_share
        replaced: dict[nn.Module, Any] = {}
        for each in self.attending:
            if each.is_cross and (crosses or self.made_by.words):
                replaced[each] = _Takes(self.tokens, crosses)
            elif not each.is_cross and selfs:
                replaced[each] = _Small(_Takes(None, True), each.attend, self.made_by.most_positions)
        with _replaced(replaced):
            return self.denoiser(x_t, now, self.cond)

    def select(self, index: Tensor) -> None:
        raise AssertionError("pairs keep their rows")


class _Small:
    """One attention for at most so many positions, and another for more."""

    def __init__(self, few: Any, many: Any, most: int):
        self.few, self.many, self.most = few, many, most

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = (self.few if q.shape[2] <= self.most else self.many)(q, k, v, mask)
        return attended


class _Shared:
    """The noise of the source for both rows of a pair."""

    def __init__(self, noise: Draw):
        self.noise = noise

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor:
        return _sources(self.noise(like, purpose, *position))

    def streams(self, purpose: str, *position: int) -> Generators:
        firsts = self.noise.streams(purpose, *position).firsts(2)
        return Generators(np.repeat(firsts.keys, 2), np.repeat(firsts.places, 2))


class _Pairs(Constraint):
    copies = 2

    def __init__(self, denoiser: _Attending):
        self.denoiser, self.num_done, self.num_moves = denoiser, 0, 1

    def around(self, denoiser: Denoiser) -> Denoiser:
        return self.denoiser

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        self.num_moves = len(points) - 1
        return _sources(x)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        self.num_done += 1
        self.denoiser.share = self.num_done / self.num_moves
        return transition.draw(_Shared(noise)), None

    def finish(self, x: Tensor) -> Tensor:
        return x[1::2]


class PromptToPrompt(ConstraintFactory):
    """Prompt-to-prompt: a sample under a source text, edited to the text that is asked for; only the edit is returned.

    Both are drawn with one seed. In the first moves the edit attends where its source does: to words, by the maps of
    the words that belong together, and among positions of x. The source is what the same seed gives under its text.

    - `cross_share`: the share of the moves in which maps of words are taken over; 0 is plain sampling.
    - `self_share`: the share of the moves in which maps among positions are taken over.
    - `most_positions`: the largest number of positions of a layer whose maps among positions are taken over.
    - `alignment`: which words belong together.
    - `words`: factors of the maps of words of the new text, such as {blue: 2.0}, in all moves.
    - `field`: the condition whose text is edited.
    - `source`: the condition with the source text.

    Raises `ValueError` for a model without tokens of words. Source: Hertz et al. 2022, arXiv 2208.01626, algorithm 1.
    """

    copies = 2

    def __init__(
        self,
        cross_share: Annotated[float, Ge(0), Le(1)] = 0.8,
        self_share: Annotated[float, Ge(0), Le(1)] = 0.4,
        most_positions: Annotated[int, Ge(1)] = 256,
        alignment: Alignment | None = None,
        words: dict[str, Annotated[float, Ge(0)]] | None = None,
        field: str = "caption",
        source: str = "source",
    ):
        self.cross_share, self.self_share, self.most_positions = cross_share, self_share, most_positions
        self.alignment, self.words = alignment or Replace(), dict(words or {})
        self.field, self.source, self.names = field, source, (source,)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the source texts: one, a list that samples take in turn, or `@FILE` with one per line."""
        return {self.source: requested(condition.get(self.source), self.source, seeds)}

    def __call__(self, pipeline: Any, batch: Mapping[str, Tensor]) -> Constraint:
        for name in (self.field, self.source):
            if name not in batch:
                raise ValueError(
                    f"constraint=prompt_to_prompt reads {name}, which the batch lacks: set condition.{name}"
                )
        firsts = {name: value[::2] for name, value in batch.items()}  # the rows of a pair are equal
        before, after = firsts[self.source], firsts[self.field]
        length = max(before.shape[1], after.shape[1])
        texts = torch.stack([nn.functional.pad(each, (0, length - each.shape[1])) for each in (before, after)], 1)
        paired = {name: value.repeat_interleave(2, 0) for name, value in firsts.items()}
        paired[self.field] = texts.flatten(0, 1)
        # The guides of the run were given the new text in both rows.
        denoiser, cond = pipeline.guided(paired)
        tokens = self._tokens(pipeline.conditioner.token_words(paired), decoded(after))
        return _Pairs(_Attending(denoiser, cond, _Tokens(*(each.to(pipeline.device) for each in tokens)), self))

    def _tokens(self, words: Sequence[Sequence[str]], texts: Sequence[str]) -> _Tokens:
        rows = [self._row(before, after) for before, after in zip(words[::2], words[1::2], strict=True)]
        counterparts, factors = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
        if unused := [word for word in self.words if not any(word in row for row in words[1::2])]:
            raise ValueError(
                f"constraint.words has {unused[0]}, which is not a word of {texts[0][:80]!r}: factors "
                "are of words of the new text"
            )
        return _Tokens(counterparts.clamp(min=0), counterparts >= 0, factors)

    def _row(self, before: Sequence[str], after: Sequence[str]) -> tuple[list[int], list[float]]:
        """Returns the counterpart of each token, -1 for none, and the factor of its map."""
        first, second = ([place for place, word in enumerate(each) if word] for each in (before, after))
        counterpart = [-1 if word else place for place, word in enumerate(after)]
        pairs = self.alignment([before[place] for place in first], [after[place] for place in second])
        for place, found in zip(second, pairs, strict=True):
            counterpart[place] = -1 if found is None else first[found]
        return counterpart, [self.words.get(word, 1.0) for word in after]


def _sources(x: Tensor) -> Tensor:
    """Returns the rows of the sources in place of those of their edits too."""
    return x[::2].repeat_interleave(2, 0)
