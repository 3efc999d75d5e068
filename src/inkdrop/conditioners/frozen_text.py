"""What conditioners of texts by a frozen text encoder share.

B batch, L tokens of a text (`length`), E width of the encoder, or of its vector where that is larger.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.conditioners.encoders import ARCHITECTURES, text_encoder
from inkdrop.conditioners.encodings import TextCache, padding_of, tokenizer_of
from inkdrop.conditioners.new_words import extended
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded, encoded, is_text, requested
from inkdrop.models import ForeignFiles, Frozen

# Texts that are encoded together. It is always this number, one of which is a filling of one token, so that the same
# kernels encode a text with whatever others, and it becomes the same numbers.
_TOGETHER = 8


class FrozenText(Conditioner):
    """A text by a frozen encoder of transformers, whose files and weights travel in the checkpoint.

    Encodings are kept by content, so that each text is encoded once.

    - `files`: the configuration, tokenizer and weights of a CLIP text model or of a T5 encoder.
    - `length`: the largest number L of tokens of a text; the rest is cut off.
    - `dropout`: the probability with which training drops the text of a sample.
    - `cache`: GiB of encodings that are kept.
    - `name`: the key of the texts in a batch.
    - `known`: the architectures that the encoder may have.
    - `filled`: whether each text becomes `length` tokens, the last of which are the tokenizer's padding.

    Raises `ValueError` for data without texts of this name, for an encoder that is not supported, for a tokenizer
    without the padding that is needed, and if transformers is not installed. A request with more tokens than `length`
    produces a warning.
    """

    def __init__(
        self,
        files: ForeignFiles,
        length: int,
        dropout: float,
        cache: float,
        name: str,
        known: Mapping[str, Any] = ARCHITECTURES,
        filled: bool = False,
    ):
        super().__init__()
        self.files, self.length, self.dropout, self.names = files, length, dropout, (name,)
        model = text_encoder(files, known)
        if model.max_length is not None and length > model.max_length:
            raise ValueError(
                f"conditioner.length={length} is more than the {model.max_length} tokens that the encoder reads: lower "
                "it"
            )
        self._tokenizer = tokenizer_of(files, model.num_tokens)
        self._padding = padding_of(files, self._tokenizer) if filled else None
        self.encoder, self._cache = Frozen(model), TextCache(int(cache * 2**30))
        self._added: dict[int, list[int]] = {}  # tokens of new words by the number that the tokenizer has for them
        self.register_load_state_dict_post_hook(lambda module, _: module._cache.clear())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenText:
        self._cache.clear()
        return super()._apply(fn, recurse)

    def fit(self, batches: Batches) -> None:
        (name,) = self.names
        first = next(iter(batches(1, [name])), None)
        if first is None:
            raise ValueError(
                f"the data have no {name}, which the conditioner reads: add it to the data, by data.captions or "
                f"+data.fields.{name}=..., or set conditioner.name to a field with texts"
            )
        self._keys(first)

    def add_words(self, name: str, words: Mapping[str, str | None], num_vectors: int) -> nn.Parameter:
        """Adds words of several vectors that begin with the mean of known ones, and returns the vectors (V, E).

        Raises `ValueError` for a word that is one token already.
        """
        from tokenizers import AddedToken

        if known := [word for word in words if self._tokenizer.token_to_id(word) is not None]:
            raise ValueError(f"adapter: the model knows the word {harmless(known[0])}: choose a new one")
        like = {
            word: self._tokenizer.encode(like, add_special_tokens=False).ids if like else None
            for word, like in words.items()
        }
        places = [
            (part, key, layer)
            for part in self.encoder.model.text.modules()
            for key, layer in part.named_children()
            if getattr(layer, "num_embeddings", 0) >= self.encoder.model.num_tokens
        ]
        part, key, table = places[0]
        table, numbers = extended(table, name, like, num_vectors)
        setattr(part, key, table)
        self._tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words])
        self._added |= {self._tokenizer.token_to_id(word): numbers[word] for word in words}
        self._cache.clear()
        return next(iter(table.words.values()))

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a text, a list of texts that samples take in turn, or `@FILE` with one per line."""
        (name,) = self.names
        self.require_known(condition)
        texts = requested(condition.get(name), name, seeds)
        for text in dict.fromkeys(decoded(texts)):
            if (length := len(self._tokenizer.encode(text).ids)) > self.length:
                warnings.warn(
                    f"condition.{name} has a text of {length} tokens, of which the model reads the first {self.length}",
                    stacklevel=4,
                )
        return {name: texts}

    def example(self, count: int) -> dict[str, Tensor]:
        return {self.names[0]: encoded(["a"] * count)}

    def cut(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        texts = (key.decode("utf-8", "replace") for key in self._keys(batch))
        lengths = torch.tensor([len(self._tokenizer.encode(text).ids) for text in texts])
        return {self.names[0]: lengths > self.length}

    def token_words(self, batch: Mapping[str, Tensor]) -> list[list[str]]:
        return [self._words(text) for text in (key.decode("utf-8", "replace") for key in self._keys(batch))]

    def _words(self, text: str) -> list[str]:
        """The word of a text that each of its L tokens stands for, or is a part of."""
        encoding = self._tokenizer.encode(text)
        spans: dict[int, tuple[int, int]] = {}
        for number, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
            if number is not None:
                spans[number] = (spans.get(number, (start, end))[0], end)
        words = ["" if number is None else text[slice(*spans[number])].strip() for number in encoding.word_ids]
        words = self._shortened(words, encoding)
        return [*words, *[""] * (self.length - len(words))]

    def _keys(self, batch: Mapping[str, Tensor]) -> list[bytes]:
        """The texts in UTF-8."""
        (name,) = self.names
        if not is_text(batch[name]):
            raise ValueError(f"{name} is not a text, which the conditioner reads: set conditioner.name to one")
        return [row.tobytes().rstrip(b"\0") for row in batch[name].cpu().numpy()]

    def _replaced(self, keys: Sequence[bytes], emptied: Tensor | None, null: str) -> list[bytes]:
        """The texts, of which those that are emptied (B), bool, become `null`."""
        drops = [False] * len(keys) if emptied is None else emptied.tolist()
        return [null.encode() if drop else key for key, drop in zip(keys, drops, strict=True)]

    def _encoded(self, keys: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """Encodings (B, L + 1, E), whose last row is that of the whole text, and a mask (B, L) of their tokens."""
        # What is kept outlives an evaluation in inference mode, and has the same type in every precision.
        device = next(self.encoder.parameters()).device
        if any(weight.requires_grad for weight in self.encoder.parameters()):  # an adapter, whose weights change
            return self._encoded_anew(keys, device)
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            missing = self._cache.missing(keys)
            for first in range(0, len(missing), _TOGETHER - 1):
                texts = missing[first : first + _TOGETHER - 1]
                self._cache.add(texts, self._encode(texts, device))
        return self._cache.rows(keys, self.length)

    def _encoded_anew(self, keys: Sequence[bytes], device: torch.device) -> tuple[Tensor, Tensor]:
        """What `_encoded` returns, with gradients and from the present weights."""
        cache, texts = TextCache(self._cache.limit), list(dict.fromkeys(keys))
        with torch.autocast(device.type, enabled=False):
            for first in range(0, len(texts), _TOGETHER - 1):
                chunk = texts[first : first + _TOGETHER - 1]
                cache.add(chunk, self._encode(chunk, device))
        return cache.rows(keys, self.length)

    def _encode(self, texts: Sequence[bytes], device: torch.device) -> list[Tensor]:
        """The tokens of each text and its vector (l + 1, E); the narrower of both ends with zeros."""
        numbers = [self._numbers(text) for text in texts]
        filled = [*numbers, *[[0]] * (_TOGETHER - len(numbers))]
        mask = torch.arange(self.length) < torch.tensor([[len(each)] for each in filled])
        rows = torch.zeros(_TOGETHER, self.length, dtype=torch.int64)
        rows[mask] = torch.tensor([number for each in filled for number in each])
        tokens, vectors = self.encoder(rows.to(device), mask.to(device))
        width = max(tokens.shape[2], vectors.shape[1])
        tokens, vectors = (nn.functional.pad(each, (0, width - each.shape[-1])) for each in (tokens, vectors))
        return [torch.cat([tokens[i, : len(each)], vectors[i, None]]) for i, each in enumerate(numbers)]

    def _numbers(self, text: bytes) -> list[int]:
        """The numbers of the tokens of a text, at least one and at most `length`."""
        encoding = self._tokenizer.encode(text.decode("utf-8", "replace"))
        numbers = [number for each in encoding.ids for number in self._added.get(each, [each])]
        numbers = self._shortened(numbers, encoding) or [0]
        return numbers if self._padding is None else [*numbers, *[self._padding] * (self.length - len(numbers))]

    def _shortened(self, values: list[Any], encoding: Any) -> list[Any]:
        """At most `length` values of tokens; one that ends every text stays the last."""
        if len(values) > self.length and encoding.special_tokens_mask[-1]:
            return [*values[: self.length - 1], values[-1]]
        return values[: self.length]
