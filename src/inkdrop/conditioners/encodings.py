"""What conditioners of frozen text encoders share: encodings that are kept, and the tokenizer of foreign files.

N rows of encodings, B texts, E width of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.files.showing import harmless
from inkdrop.models import ForeignFiles
from inkdrop.randomness import sent


class TextCache:
    """Encodings of texts by content, one after another in one tensor (N, E), up to `limit` bytes and one batch."""

    def __init__(self, limit: int):
        self.limit = limit
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._places: dict[bytes, tuple[int, int]] = {}  # first row and number of tokens
        self._rows, self._used = torch.empty(0, 0), 0

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Returns the texts that are not kept; a full cache begins anew."""
        new = [key for key in dict.fromkeys(keys) if key not in self._places]
        if new and self._used * self._rows.shape[1] * self._rows.element_size() >= self.limit:
            self.clear()
            return list(dict.fromkeys(keys))
        return new

    def add(self, keys: Sequence[bytes], rows: Sequence[Tensor]) -> None:
        """Keeps the encodings (l + 1, E) of texts."""
        new = torch.cat(list(rows))
        end = self._used + len(new)
        if end > len(self._rows):
            grown = new.new_empty(max(2 * len(self._rows), end), new.shape[1])
            if self._used:
                grown[: self._used] = self._rows[: self._used]
            self._rows = grown
        self._rows[self._used : end] = new
        for key, each in zip(keys, rows, strict=True):
            self._places[key] = (self._used, len(each) - 1)
            self._used += len(each)

    def rows(self, keys: Sequence[bytes], length: int) -> tuple[Tensor, Tensor]:
        """Returns the encodings (B, length + 1, E), whose last row is that of the text, and a mask (B, length)."""
        first, lengths = torch.tensor([self._places[key] for key in keys]).T[:, :, None]
        steps = torch.arange(length + 1)
        steps = torch.where(steps == length, lengths, steps.minimum(lengths))
        mask = torch.arange(length) < lengths
        return self._rows[sent(first + steps, self._rows.device)], sent(mask, self._rows.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> TextCache:
        return TextCache(self.limit)


def tokenizer_of(files: ForeignFiles, num_tokens: int) -> Any:
    """Returns the tokenizer of a foreign model; raises `ValueError` if it has more tokens than the encoder."""
    from tokenizers import Tokenizer  # which transformers needs, so that it is there

    try:
        tokenizer = Tokenizer.from_str(_description(files))
    except ValueError as error:
        raise ValueError(
            f"{error}; transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes tokenizer.json"
        ) from None
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"tokenizer.json of the foreign model cannot be read: {harmless(error)}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if (count := tokenizer.get_vocab_size()) > num_tokens:
        raise ValueError(
            f"tokenizer.json of the foreign model has {count:,} tokens, but config.json says {num_tokens:,}: use the "
            "files of one model"
        )
    return tokenizer


def _description(files: ForeignFiles) -> str:
    """The text of tokenizer.json; older folders of CLIP have a vocabulary and merges in its place."""
    if "tokenizer.json" in files.names or not {"vocab.json", "merges.txt"} <= set(files.names):
        return files.content("tokenizer.json").decode("utf-8", "replace")
    from transformers import CLIPTokenizer

    lines = files.content("merges.txt").decode("utf-8", "replace").splitlines()
    pairs: Any = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    made: Any = CLIPTokenizer(vocab=files.json("vocab.json"), merges=pairs)
    return str(made.backend_tokenizer.to_str())


def padding_of(files: ForeignFiles, tokenizer: Any) -> int:
    """Returns the number of the token that fills texts; raises `ValueError` if the files of the tokenizer name none."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        named = files.json(name).get("pad_token") if name in files.names else None
        token = named.get("content") if isinstance(named, dict) else named
        if isinstance(token, str) and (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    raise ValueError(
        "the foreign model names no token for padding in tokenizer_config.json: use its original folder, or "
        "conditioner=text, which needs none"
    )
