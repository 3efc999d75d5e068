"""The conditioner of images by their own vectors, as in the decoder of unCLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.pictures import read_in_turn
from inkdrop.models import Frozen, Model
from inkdrop.randomness import sent


class Embedding(Conditioner):
    """A learned map of the vector of data by a contrastive model to a vector (B, dim); a learned one where dropped.

    In training it is the vector of each item's own data, so that samples vary what the vector leaves open. A request
    is a file, `condition.x=FILE`, whose variations are drawn, or the samples of a model of vectors in a cascade.

    - `model`: the contrastive model, which travels in the checkpoint.
    - `dim`: the width of the vector.
    - `dropout`: the probability with which training drops the vector of a sample.

    Raises `ValueError` for a model without vectors. Source: Ramesh et al. 2022, arXiv 2204.06125, section 2.1.
    """

    names = ("x",)
    images = ("x",)

    def __init__(self, model: Model, dim: Annotated[int, Ge(1)] = 64, dropout: Annotated[float, Ge(0), Le(1)] = 0.1):
        super().__init__()
        if not hasattr(model, "texts"):
            raise ValueError(
                f"conditioner.model is a {type(model).__name__}, which has no vectors: choose a run of task=contrastive"
            )
        self.model, self.dim, self.dropout = Frozen(model), dim, dropout
        width: Any = model.dim
        self.map = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.absent = nn.Parameter(torch.randn(dim))

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {"x": self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        vectors = self._vectors(batch["x"].to(self.absent.device))
        # Unit vectors of D numbers have elements of about D^(-1/2).
        mapped = self.map(vectors * vectors.shape[1] ** 0.5)
        # Both branches run in every step, because distributed training needs a gradient of every weight.
        empty = sent(dropped.get("x", torch.zeros(len(mapped), dtype=torch.bool)), mapped.device)
        return {"vector": torch.where(empty[:, None], self.absent, mapped)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a file, a list of files that samples take in turn, or data (B, *)."""
        self.require_known(condition)
        given = condition.get("x")
        if given is None:
            raise ValueError("condition.x=FILE is needed, the image whose variations are drawn, or a cascade")
        if isinstance(given, Tensor):
            return {"x": given}
        images = read_in_turn(given, "condition.x", seeds, len(self.model.model.shape))
        self._vectors(images[:1].to(self.absent.device))
        return {"x": images}

    def example(self, count: int) -> dict[str, Tensor]:
        return {"x": torch.zeros(count, self.model.model.dim)}

    @torch.no_grad()
    def _vectors(self, data: Tensor) -> Tensor:
        """The vectors (B, D) of raw data (B, *), or what is given if it is vectors already."""
        model = self.model.model
        if data.dim() == 2 and data.shape[1] == model.dim and len(model.shape) > 1:
            return nn.functional.normalize(data.float(), dim=1)
        x = model.codec.encode({"x": data})
        if tuple(x.shape[1:]) != model.shape:
            shapes = f"x of {list(x.shape[1:])}, but conditioner.model knows x of {list(model.shape)}"
            raise ValueError(f"condition.x becomes {shapes}: give data of the shape of its training data")
        vectors: Tensor = model.data(x)
        return vectors
