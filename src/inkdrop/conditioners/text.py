"""The conditioner of texts by a frozen text encoder.

B batch, L tokens of a text (`length`), E width of the encoder, D width of a token.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.conditioners.encoders import text_encoder
from inkdrop.denoiser import Condition
from inkdrop.files.showing import harmless
from inkdrop.files.texts import decoded, encoded, is_text, requested
from inkdrop.models import ForeignFiles, Frozen

# Texts that are encoded together. It is always this number, one of which is a filling of one token, so that the same
# kernels encode a text with whatever others, and it becomes the same numbers.
_TOGETHER = 8


class Text(Conditioner):
    """Tokens (B, L, D) of a text with a mask, by a frozen encoder of transformers and a learned linear map.

    The files of the encoder and its weights travel in the checkpoint. Encodings are kept by content, so that each text
    is encoded once.

    - `encoder`: the configuration, tokenizer and weights of a CLIP text model or of a T5 encoder.
    - `token_dim`: the width D of a token, 0 for none.
    - `dim`: the width of a vector of the whole text, 0 for none: of the token that ends a text for CLIP, and of the
      mean token for T5.
    - `length`: the largest number L of tokens of a text; the rest is cut off.
    - `dropout`: the probability with which training drops the text of a sample.
    - `null_text`: what a dropped text becomes, such as an empty text; null is one learned token, and a learned vector.
    - `cache`: GiB of encodings that are kept.
    - `name`: the key of the texts in a batch.

    Raises `ValueError` for data without texts of this name, for an encoder that is not supported, and if transformers
    is not installed. A request with more tokens than `length` produces a warning. Source: Saharia et al. 2022, arXiv
    2205.11487, section 2.1 (a frozen encoder, with layer normalisation of its tokens).
    """

    def __init__(
        self,
        encoder: ForeignFiles,
        token_dim: Annotated[int, Ge(0)],
        dim: Annotated[int, Ge(0)] = 0,
        length: Annotated[int, Ge(2)] = 64,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        null_text: str | None = None,
        cache: Annotated[float, Ge(0)] = 1.0,
        name: str = "caption",
    ):
        super().__init__()
        if token_dim == dim == 0:
            raise ValueError("conditioner.token_dim=0 and conditioner.dim=0 leave nothing of the text: raise one")
        self.token_dim, self.dim, self.length, self.dropout, self.names = token_dim, dim, length, dropout, (name,)
        self.null_text = null_text
        model = text_encoder(encoder)
        if model.max_length is not None and length > model.max_length:
            raise ValueError(
                f"conditioner.length={length} is more than the {model.max_length} tokens that the encoder reads: lower "
                "it"
            )
        self._tokenizer = _tokenizer(encoder, model.num_tokens)
        self.encoder, self._cache = Frozen(model), _Cache(int(cache * 2**30))
        self.norm = nn.LayerNorm(model.dim)
        self.map = nn.Linear(model.dim, token_dim) if token_dim else None
        self.vector_map = nn.Linear(model.dim, dim) if dim else None
        if null_text is None:  # without dropout they are not trained
            trained = dropout > 0
            self.null_token = nn.Parameter(0.02 * torch.randn(token_dim), trained) if token_dim else None
            self.null_vector = nn.Parameter(0.02 * torch.randn(dim), trained) if dim else None
        self.register_load_state_dict_post_hook(lambda module, _: module._cache.clear())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Text:
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

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        keys, emptied = self._keys(batch), dropped.get(name)
        if emptied is not None and self.null_text is not None:
            null = self.null_text.encode()
            keys = [null if drop else key for key, drop in zip(keys, emptied.tolist(), strict=True)]
            emptied = None
        rows, mask = self._encoded(keys)
        rows = self.norm(rows)
        cond: dict[str, Tensor] = {}
        if self.map is not None:
            cond = {"tokens": self.map(rows[:, :-1]) * mask[:, :, None], "mask": mask}
        if self.vector_map is not None:
            cond["vector"] = self.vector_map(rows[:, -1])
        return cond if emptied is None else self._emptied(cond, emptied.to(mask.device))

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

    def _emptied(self, cond: dict[str, Tensor], emptied: Tensor) -> Condition:
        """The condition in which the learned null values take the place of dropped texts."""
        if self.null_token is not None:
            alone = torch.zeros_like(cond["mask"])
            alone[:, 0] = True
            null = self.null_token.to(cond["tokens"].dtype) * alone[:, :, None]
            cond["tokens"] = torch.where(emptied[:, None, None], null, cond["tokens"])
            cond["mask"] = torch.where(emptied[:, None], alone, cond["mask"])
        if self.null_vector is not None:
            null = self.null_vector.to(cond["vector"].dtype)
            cond["vector"] = torch.where(emptied[:, None], null, cond["vector"])
        return cond

    def _keys(self, batch: Mapping[str, Tensor]) -> list[bytes]:
        """The texts in UTF-8."""
        (name,) = self.names
        if not is_text(batch[name]):
            raise ValueError(f"{name} is not a text, which the conditioner reads: set conditioner.name to one")
        return [row.tobytes().rstrip(b"\0") for row in batch[name].cpu().numpy()]

    def _encoded(self, keys: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """Encodings (B, L + 1, E), whose last row is that of the whole text, and a mask (B, L) of their tokens."""
        # What is kept outlives an evaluation in inference mode, and has the same type in every precision.
        device = self.norm.weight.device
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            missing = self._cache.missing(keys)
            for first in range(0, len(missing), _TOGETHER - 1):
                texts = missing[first : first + _TOGETHER - 1]
                self._cache.add(texts, self._encode(texts, device))
        return self._cache.rows(keys, self.length)

    def _encode(self, texts: Sequence[bytes], device: torch.device) -> list[Tensor]:
        """The tokens of each text and its vector (l + 1, E)."""
        numbers = [self._numbers(text) for text in texts]
        filled = [*numbers, *[[0]] * (_TOGETHER - len(numbers))]
        mask = torch.arange(self.length) < torch.tensor([[len(each)] for each in filled])
        rows = torch.zeros(_TOGETHER, self.length, dtype=torch.int64)
        rows[mask] = torch.tensor([number for each in filled for number in each])
        tokens, vectors = self.encoder(rows.to(device), mask.to(device))
        return [torch.cat([tokens[i, : len(each)], vectors[i, None]]) for i, each in enumerate(numbers)]

    def _numbers(self, text: bytes) -> list[int]:
        """The numbers of the tokens of a text, at least one and at most `length`."""
        encoding = self._tokenizer.encode(text.decode("utf-8", "replace"))
        return self._shortened(encoding.ids, encoding) or [0]

    def _shortened(self, values: list[Any], encoding: Any) -> list[Any]:
        """At most `length` values of tokens; one that ends every text stays the last."""
        if len(values) > self.length and encoding.special_tokens_mask[-1]:
            return [*values[: self.length - 1], values[-1]]
        return values[: self.length]


class _Cache:
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
        return self._rows[(first + steps).to(self._rows.device)], mask.to(self._rows.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Cache:
        return _Cache(self.limit)


def _tokenizer(files: ForeignFiles, num_tokens: int) -> Any:
    """The tokenizer of a foreign model, with no more tokens than its encoder has."""
    from tokenizers import Tokenizer  # which transformers needs, so that it is there

    try:
        tokenizer = Tokenizer.from_str(files.content("tokenizer.json").decode("utf-8", "replace"))
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
