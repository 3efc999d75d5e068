"""The classification accuracy score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt, Le

from inkdrop.data.loaders import ShuffledLoader, Split, collect
from inkdrop.metrics.extractors import Classifier, Extractor
from inkdrop.metrics.fitting import fit, recognised
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.randomness import MAX_SEED


@dataclass(frozen=True)
class ClassificationAccuracyScore(Metric):
    """Share of held-out items recognised by a classifier that was fitted to the samples and their labels alone: `cas`.

    The classifier has the extractor's layout and random weights, and is fitted in `num_steps` steps of `batch_size`
    samples, moved by up to `max_shift` pixels, at the highest learning rate `lr`. Weights and order are drawn from
    `seed`. The floor is the score of training items. `ValueError` if there are no labels or the extractor cannot be
    fitted. Source: Ravuri and Vinyals 2019, arXiv 1905.10887.
    """

    num_steps: Annotated[int, Ge(1)] = 2000
    batch_size: Annotated[int, Ge(1)] = 128
    lr: Annotated[float, Gt(0)] = 2e-3
    max_shift: Annotated[int, Ge(0)] = 1
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    stand_in: ClassVar[str] = "train"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        _require_labels(held_out, reference)
        extractor.untrained()

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        _require_labels(samples.items, held_out.items)
        loader = ShuffledLoader(collect(samples.items, torch.arange(samples.count)), self.batch_size, self.seed)
        with torch.inference_mode(False), torch.enable_grad():  # measured where nothing else is fitted
            model = _untrained(extractor, self.seed)
            fit(model, loader, self.num_steps, self.lr, self.max_shift, "classification accuracy score")
        return {"cas": recognised(model, held_out.items["x"], held_out.items["label"])}


def _require_labels(*sets: Split) -> None:
    if any("label" not in items for items in sets):
        raise ValueError(
            "the classification accuracy score takes labelled items, and these have no labels: leave metric "
            "accuracy_score out"
        )


def _untrained(extractor: Extractor, seed: int) -> Classifier:
    """Weights from a seed of their own, on the extractor's device; the numbers that training draws stay the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = extractor.untrained()
    return model.to(extractor.device)
