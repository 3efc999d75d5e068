"""What `python -m inkdrop check-data` reports of texts, such as captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from inkdrop.conditioners import Conditioner
from inkdrop.conditioners.words import split as words_of
from inkdrop.data.choices import Choices
from inkdrop.data.loaders import Column, Split
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded

_BATCH_SIZE = 4096


def about_texts(split: Split, conditioner: Conditioner | None = None) -> Iterator[str]:
    """Yields lines on each field of texts: their number, lengths, vocabulary, repetitions, and how many are cut."""
    for name, column in split.items():
        if column.dtype == torch.uint8 and len(column.shape) == 2:
            yield from _about(name, column, conditioner)


def _about(name: str, column: Column, conditioner: Conditioner | None) -> Iterator[str]:
    counts: Counter[str] = Counter()  # texts -> items that have them
    vocabulary: Counter[str] = Counter()
    lengths, sizes, cut = list[int](), list[int](), 0
    for batch in _batches(column):
        for text in decoded(batch):
            words = words_of(text)
            vocabulary.update(words)
            counts[text] += 1
            lengths.append(len(words))
            sizes.append(len(text.encode()))
        if conditioner is not None and name in conditioner.names:
            cut += int(conditioner.cut({name: batch}).get(name, torch.zeros(1)).sum())
    several = f" of {len(column)} items" if len(lengths) > len(column) else ""
    yield (
        f"{name:18} {len(lengths)} texts{several} of {min(lengths)} to {max(lengths)} words, {min(sizes)} to "
        f"{max(sizes)} bytes"
    )
    once = sum(count == 1 for count in vocabulary.values())
    frequent = ", ".join(word for word, _ in sorted(vocabulary.items(), key=lambda each: (-each[1], each[0]))[:5])
    yield f"vocabulary         {len(vocabulary)} words ({harmless(frequent)}, ...), {once} of which occur once"
    text, most = max(counts.items(), key=lambda each: each[1])
    repeated = f": {harmless(text, 60)} {most} times" if most > 1 else ""
    yield f"repeated texts     {len(lengths) - len(counts)}{repeated}"
    if conditioner is not None and name in conditioner.names:
        yield f"cut texts          {cut}, which are longer than what the conditioner reads"


def _batches(column: Column) -> Iterator[Tensor]:
    """Yields all texts (B, L), each once."""
    everything = torch.arange(len(column))
    if not isinstance(column, Choices):
        yield from (column[items] for items in everything.split(_BATCH_SIZE))
        return
    counts = column.counts(everything)
    for number in range(column.most):
        for items in everything[counts > number].split(_BATCH_SIZE):
            yield column.chosen(items, torch.full_like(items, number))
