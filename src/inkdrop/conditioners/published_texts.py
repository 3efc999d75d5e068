"""A text by several frozen encoders, as Stable Diffusion 3 has it.

B batch, L tokens of each text for CLIP (`length`), M for T5 (`t5_length`), D width of a token, E and F widths of both
CLIPs, P and Q those of their vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.conditioners.encoders import PROJECTED, T5
from inkdrop.conditioners.frozen_text import FrozenText
from inkdrop.denoiser import Condition
from inkdrop.models import ForeignFiles


class _Reader(FrozenText):
    """The tokens and the vector of one encoder, with all positions and without a mask."""

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        rows, _ = self._encoded(self._replaced(self._keys(batch), dropped.get(self.names[0]), ""))
        model = self.encoder.model
        return {"tokens": rows[:, :-1, : model.dim], "vector": rows[:, -1, : model.vector_dim]}


class PublishedTexts(Conditioner):
    """Tokens (B, L + M, D) and a vector (B, P + Q) of a text by two CLIPs and a T5, as Stable Diffusion 3 has them.

    The first L tokens are the states (B, L, E) and (B, L, F) before the last layer of each CLIP side by side, and zeros
    up to D; the last M are those of T5, or zeros without one. The vector is that of both CLIPs side by side. Nothing is
    learned, there is no mask, and a dropped text is the empty one for each encoder.

    - `clip`, `clip_2`: configuration, tokenizer and weights of two `CLIPTextModelWithProjection`.
    - `t5`: those of an encoder of T5, or None.
    - `token_dim`: the width D, which is that of T5.
    - `dim`: the width P + Q of the vector.
    - `length`: the number L of tokens of each text for both CLIPs; the rest is cut off.
    - `t5_length`: the number M of tokens of each text for T5; the rest is cut off.
    - `dropout`: the probability with which training drops the text of a sample.
    - `cache`: GiB of encodings that are kept of each encoder.
    - `name`: the key of the texts in a batch.

    Raises `ValueError` for data without texts of this name, for other encoders and other widths, for a tokenizer
    without a token for padding, and if transformers is not installed. Source: Esser et al. 2024, arXiv 2403.03206,
    section 4 and appendix B.3, and diffusers' `StableDiffusion3Pipeline`.
    """

    def __init__(
        self,
        clip: ForeignFiles,
        clip_2: ForeignFiles,
        t5: ForeignFiles | None,
        token_dim: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        length: Annotated[int, Ge(2)] = 77,
        t5_length: Annotated[int, Ge(2)] = 256,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        cache: Annotated[float, Ge(0)] = 1.0,
        name: str = "caption",
    ):
        super().__init__()
        self.token_dim, self.dim, self.t5_length, self.dropout, self.names = token_dim, dim, t5_length, dropout, (name,)
        clips = [_Reader(each, length, dropout, cache, name, PROJECTED, filled=True) for each in (clip, clip_2)]
        self.clips: Any = nn.ModuleList(clips)
        self.t5: Any = None if t5 is None else _Reader(t5, t5_length, dropout, cache, name, T5, filled=True)
        models: list[Any] = [each.encoder.model for each in clips]
        if dim != (vectors := sum(each.vector_dim for each in models)):
            raise ValueError(f"conditioner.dim={dim} is not the width of both vectors: set it to {vectors}")
        if self.t5 is not None and token_dim != (width := self.t5.encoder.model.dim):
            raise ValueError(f"conditioner.token_dim={token_dim} is not the width of T5: set it to {width}")
        if token_dim < (widths := sum(each.dim for each in models)):
            raise ValueError(f"conditioner.token_dim={token_dim} is less than the {widths} of both CLIPs: raise it")

    @property
    def _longest(self) -> FrozenText:
        """The encoder that reads the most tokens of a text."""
        readers: list[FrozenText] = [self.clips[0], *([] if self.t5 is None else [self.t5])]
        return max(readers, key=lambda each: each.length)

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def fit(self, batches: Batches) -> None:
        self.clips[0].fit(batches)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch as that of `Text`."""
        return self._longest.request(seeds, **condition)

    def example(self, count: int) -> dict[str, Tensor]:
        return self._longest.example(count)

    def cut(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._longest.cut(batch)

    def token_words(self, batch: Mapping[str, Tensor]) -> list[list[str]]:
        first: list[list[str]] = self.clips[0].token_words(batch)
        last = [[""] * self.t5_length] * len(first) if self.t5 is None else self.t5.token_words(batch)
        return [[*one, *other] for one, other in zip(first, last, strict=True)]

    def add_words(self, name: str, words: Mapping[str, str | None], num_vectors: int) -> nn.Parameter:
        """Raises `ValueError`, since a new word would have a vector in each encoder."""
        raise ValueError(
            "adapter=new_words teaches one text encoder, but this model has several: choose adapter=lora instead"
        )

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        parts = [each.condition(batch, dropped) for each in self.clips]
        tokens = torch.cat([each["tokens"] for each in parts], dim=2)
        tokens = nn.functional.pad(tokens, (0, self.token_dim - tokens.shape[2]))
        if self.t5 is None:
            tokens = nn.functional.pad(tokens, (0, 0, 0, self.t5_length))
        else:
            tokens = torch.cat([tokens, self.t5.condition(batch, dropped)["tokens"]], dim=1)
        return {"tokens": tokens, "vector": torch.cat([each["vector"] for each in parts], dim=1)}
