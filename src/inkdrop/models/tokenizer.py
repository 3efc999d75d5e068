"""The vocabulary of a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from inkdrop.codecs.vocabulary import BLANK, FIRST, OPEN, Vocabulary
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded
from inkdrop.models.foreign import ForeignFiles


class Tokenizer(Vocabulary):
    """The tokens of a tokenizer of transformers, whose files travel in the checkpoint; nothing of them is executed.

    - `files`: the folder of a model, which has `tokenizer.json`.
    - `num_words`: the largest number of tokens that the tokenizer may have.

    Raises `ValueError` for a tokenizer that cannot be read or has more tokens, and if transformers is not installed.
    """

    def __init__(self, files: ForeignFiles, num_words: Annotated[int, Ge(1)] = 10_000):
        super().__init__()
        self.files = files
        self._tokenizer = _tokenizer_of(files)
        if (count := self._tokenizer.get_vocab_size()) > num_words:
            raise ValueError(
                f"the tokenizer has {count:,} tokens, more than vocabulary.num_words={num_words}: set it to {count}"
            )
        self.num_tokens = FIRST + count

    def fit(self, texts: Iterable[Tensor]) -> int:
        return max((len(self.tokens(text)) for batch in texts for text in decoded(batch)), default=0)

    def tokens(self, text: str) -> list[int]:
        return [FIRST + number for number in self._tokenizer.encode(text.strip(), add_special_tokens=False).ids]

    def text(self, tokens: Sequence[int]) -> str:
        parts: list[list[int]] = [[]]
        for number in tokens:
            if number == OPEN:
                parts.append([])
            elif number >= FIRST:
                parts[-1].append(number - FIRST)
        return f" {BLANK} ".join(self._tokenizer.decode(part).strip() for part in parts).strip()


def _tokenizer_of(files: ForeignFiles) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ValueError("vocabulary=tokenizer needs transformers: run `pip install 'inkdrop[features]'`") from None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(files.content("tokenizer.json").decode("utf-8", "replace"))
    except ValueError as error:
        raise ValueError(
            f"{error}; transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes tokenizer.json"
        ) from None
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"tokenizer.json of the foreign model cannot be read: {harmless(error)}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
