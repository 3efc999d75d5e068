"""Features of a contrastive model that was trained here, and how well samples fit their texts by such features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.models import ContrastiveModel
from inkdrop.pipeline import load

_BATCH = 256  # texts encoded at a time


class Contrastive(Extractor):
    """Unit vectors of clean data, and of their texts, by a contrastive model, such as a run of experiment=clip.

    - `checkpoint`: the run folder or checkpoint file.
    - `weights`: ema, raw, or the name of another average.
    """

    name = "contrastive"

    def __init__(self, checkpoint: str, weights: str = "ema"):
        super().__init__()
        self._checkpoint, self._weights = checkpoint, weights

    def read(self) -> None:
        model: Any = load(self._checkpoint, self._weights)
        if not hasattr(model, "texts"):
            raise ValueError(
                f"extractor.checkpoint={self._checkpoint} is a {type(model).__name__}, which has no vectors of texts: "
                "choose a run of task=contrastive"
            )
        self.model: ContrastiveModel = model.requires_grad_(False).eval()

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of features."""
        self.ready()
        return self.model.dim

    def forward(self, data: Tensor) -> Tensor:
        return self.model.data(self.model.codec.encode({"x": data}))

    def texts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the unit vectors (B, dim) of the texts of a raw batch."""
        self.ready()
        return self.model.texts({name: batch[name].to(self.device) for name in self.model.names})

    def names(self) -> list[str]:
        """Returns the fields of the data that hold the texts."""
        self.ready()
        return self.model.names


@dataclass(frozen=True)
class _OfTexts(Metric):
    """What both metrics promise: they compare the features of samples with those of their texts."""

    needs: ClassVar[frozenset[str]] = frozenset({"features", "items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def check(self, held_out: Split, reference: Split, extractor: Any) -> None:
        if not hasattr(extractor, "texts"):
            raise ValueError(
                f"extractor {extractor.name} has no vectors of texts: set extractor=contrastive "
                "extractor.checkpoint=RUN"
            )
        super().check(held_out, reference, extractor)
        if missing := [name for name in extractor.names() if name not in held_out]:
            raise ValueError(f"the data have no {missing[0]}, which the contrastive model of the extractor reads")

    @torch.no_grad()
    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        encoder: Any = extractor
        rows = torch.cat([samples.items[name][torch.arange(samples.count)].flatten(1) for name in encoder.names()], 1)
        distinct, index = rows.unique(dim=0, return_inverse=True)
        first = torch.full((len(distinct),), samples.count).scatter_reduce_(
            0, index, torch.arange(samples.count), "amin"
        )
        parts = [{name: samples.items[name][some] for name in encoder.names()} for some in first.split(_BATCH)]
        texts = torch.cat([encoder.texts(part).cpu() for part in parts])
        features = samples.features_on(torch.device("cpu"))
        return {f"{name}_{extractor.name}": value for name, value in self.values(features, texts, index).items()}

    @abstractmethod
    def values(self, features: Tensor, texts: Tensor, index: Tensor) -> Results:
        """Returns results of the features (n, D) of samples, the distinct texts (M, D), and their numbers (n)."""


@dataclass(frozen=True)
class TextSimilarity(_OfTexts):
    """The mean of `max(100 a b, 0)` for the unit vectors a of a sample and b of its text: `clip_score_{extractor}`.

    Raises `ValueError` for an extractor without texts. Source: Hessel et al. 2021, arXiv 2104.08718, section 3, with
    the factor 100 of torchmetrics in place of 2.5.
    """

    def values(self, features: Tensor, texts: Tensor, index: Tensor) -> Results:
        return {"clip_score": float((100 * (features * texts[index]).sum(1)).clamp(min=0).double().mean())}


@dataclass(frozen=True)
class TextRetrieval(_OfTexts):
    """The share of samples whose text is the most similar among all distinct ones of samples: `retrieval_{extractor}`.

    The value of chance is one divided by their number. Raises `ValueError` for an extractor without texts. Source: Park
    et al. 2021 (R-precision), NeurIPS datasets and benchmarks, section 3.
    """

    def values(self, features: Tensor, texts: Tensor, index: Tensor) -> Results:
        found = (features @ texts.T).argmax(1)
        return {"retrieval": float((found == index).double().mean())}
