"""Conditioners of texts by a frozen text encoder: tokens by a learned map, or as published models have them.

B batch, L tokens of a text (`length`), E width of the encoder, D width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.frozen_text import FrozenText
from inkdrop.denoiser import Condition
from inkdrop.models import ForeignFiles
from inkdrop.randomness import sent


class Text(FrozenText):
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
        super().__init__(encoder, length, dropout, cache, name)
        if token_dim == dim == 0:
            raise ValueError("conditioner.token_dim=0 and conditioner.dim=0 leave nothing of the text: raise one")
        self.token_dim, self.dim, self.null_text = token_dim, dim, null_text
        width = self.encoder.model.dim
        self.norm = nn.LayerNorm(width)
        self.map = nn.Linear(width, token_dim) if token_dim else None
        self.vector_map = nn.Linear(width, dim) if dim else None
        if null_text is None:  # without dropout they are not trained
            trained = dropout > 0
            self.null_token = nn.Parameter(0.02 * torch.randn(token_dim), trained) if token_dim else None
            self.null_vector = nn.Parameter(0.02 * torch.randn(dim), trained) if dim else None

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        keys, emptied = self._keys(batch), dropped.get(name)
        if emptied is not None and self.null_text is not None:
            keys, emptied = self._replaced(keys, emptied, self.null_text), None
        rows, mask = self._encoded(keys)
        rows = self.norm(rows)
        cond: dict[str, Tensor] = {}
        if self.map is not None:
            cond = {"tokens": self.map(rows[:, :-1]) * mask[:, :, None], "mask": mask}
        if self.vector_map is not None:
            cond["vector"] = self.vector_map(rows[:, -1])
        return cond if emptied is None else self._emptied(cond, sent(emptied, mask.device))

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


class PublishedText(FrozenText):
    """Tokens (B, L, E) of a text as Stable Diffusion has them: the last states of its encoder, padding included.

    Nothing is learned, there is no mask, and a dropped text is the empty one.

    - `encoder`: the configuration, tokenizer and weights of a CLIP text model or of a T5 encoder.
    - `token_dim`: the width E of the encoder.
    - `length`: the number L of tokens of each text; the rest is cut off.
    - `dropout`: the probability with which training drops the text of a sample.
    - `cache`: GiB of encodings that are kept.
    - `name`: the key of the texts in a batch.

    Raises `ValueError` as `Text` does, for another width, and for a tokenizer without a token for padding. Source:
    Rombach et al. 2022, arXiv 2112.10752, and diffusers' `StableDiffusionPipeline`.
    """

    def __init__(
        self,
        encoder: ForeignFiles,
        token_dim: Annotated[int, Ge(1)],
        length: Annotated[int, Ge(2)] = 77,
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        cache: Annotated[float, Ge(0)] = 1.0,
        name: str = "caption",
    ):
        super().__init__(encoder, length, dropout, cache, name, filled=True)
        if token_dim != (width := self.encoder.model.dim):
            raise ValueError(f"conditioner.token_dim={token_dim} is not the width of the encoder: set it to {width}")
        self.token_dim = token_dim

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        keys = self._replaced(self._keys(batch), dropped.get(self.names[0]), "")
        return {"tokens": self._encoded(keys)[0][:, :-1]}
