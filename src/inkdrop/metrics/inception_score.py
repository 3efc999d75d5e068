"""The Inception score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import SPLITS, Extracted, Metric, Results


@dataclass(frozen=True)
class InceptionScore(Metric):
    """How clear and how varied the classes of samples are: `inception_score`, or else `class_score_{extractor}`.

    The value is the mean of `exp(E KL(p(y|x) || p(y)))` over consecutive parts of the samples, and `_std` is the
    standard deviation over them. Higher is better, up to the number of classes; real data are not used. Source:
    Salimans et al. 2016, arXiv 1606.03498.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"class_sums"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def fewest(self, extractor: Extractor) -> int:
        return SPLITS

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        extractor.logits(torch.zeros(1, extractor.dim, device=extractor.device))  # raises an error without classes

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        assert samples.class_sums is not None
        scores = class_scores(samples.class_sums)
        name = "inception_score" if extractor.name == "inception" else f"class_score_{extractor.name}"
        return {name: scores.mean().item(), f"{name}_std": scores.std(correction=0).item()}


def class_scores(class_sums: Tensor) -> Tensor:
    """Returns `exp(E KL(p(y|x) || p(y)))` of each part (SPLITS), p(y) its mean; see `Extracted.class_sums`."""
    means = class_sums[:, :-1] / class_sums[:, -1:]
    return (means[:, -1] + torch.special.entr(means[:, :-1]).sum(1)).exp()
