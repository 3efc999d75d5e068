"""Textual inversion: vectors of new words, which are all that is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from annotated_types import Ge
from torch import nn

from inkdrop.adapters.base import Adapter


class NewWords(Adapter):
    """Adds words to the text model of a conditioner, whose vectors are the only weights that are trained.

    Texts without them are read as before, so that the base is unchanged where they do not occur; it has no strength.

    - `words`: known words by new word, such as {zog: "circle"}, whose mean the vectors begin with; null is the mean of
      all words.
    - `num_vectors`: vectors of each new word.

    Raises `ValueError` for a model without texts, for words that it knows already, and for words to begin with that it
    does not know. Source: Gal et al. 2022, arXiv 2208.01618.
    """

    def __init__(self, words: dict[str, str | None], num_vectors: Annotated[int, Ge(1)] = 1):
        if not words:
            raise ValueError("adapter.new_words.words is empty: name one, such as adapter.new_words.words={zog:circle}")
        self.words, self.num_vectors, self.scale = dict(words), num_vectors, 1.0

    def __call__(self, model: Any, name: str) -> Iterable[nn.Parameter]:
        readers = [part for part in model.conditioner.modules() if hasattr(part, "add_words")]
        if not readers:
            kind = type(model.conditioner).__name__
            raise ValueError(
                f"adapter=new_words needs a model of texts, but its conditioner is {kind}: name a base of "
                "conditioner=words or conditioner=text"
            )
        return [readers[0].add_words(name, self.words, self.num_vectors)]

    def rescale(self, model: nn.Module, name: str, scale: float) -> None:
        if scale != 1:
            raise ValueError("adapter.scale has no effect on new words: leave the words out of the caption")
