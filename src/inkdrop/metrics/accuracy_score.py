"""The classification accuracy score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from inkdrop.data.loaders import ShuffledLoader, Split, collect
from inkdrop.metrics.extractors import Classifier, Extractor
from inkdrop.metrics.fitting import fit, recognised
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.randomness import MAX_SEED


@dataclass(frozen=True)
class ClassificationAccuracyScore(Metric):
    """The share of held-out items that a classifier fitted to the samples and their labels alone recognises: `cas`.

    The classifier has the layout of the extractor and random initial weights. The floor is the score of as many
    training items.

    - `num_steps`: optimizer steps of the classifier.
    - `batch_size`: samples of a step.
    - `lr`: highest learning rate.
    - `max_shift`: largest shift of an image in pixels.
    - `seed`: seed of the weights and of the order.

    Raises `ValueError` if there are no labels, or if the extractor cannot be fitted. Source: Ravuri and Vinyals 2019,
    arXiv 1905.10887.
    """

    num_steps: Annotated[int, Ge(1)] = 2000
    batch_size: Annotated[int, Ge(1)] = 128
    lr: Annotated[float, Gt(0)] = 2e-3
    max_shift: Annotated[int, Ge(0)] = 1
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = 0

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    stand_in: ClassVar[str] = "train"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        _require_labels(held_out, reference)
        extractor.untrained()

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        _require_labels(samples.items, held_out.items)
        loader = ShuffledLoader(collect(samples.items, torch.arange(samples.count)), self.batch_size, self.seed)
        with torch.inference_mode(False), torch.enable_grad():  # metrics are computed without gradients
            model = _untrained(extractor, self.seed)
            fit(model, loader, self.num_steps, self.lr, self.max_shift, "classification accuracy score")
        return {"cas": recognised(model, held_out.items["x"], held_out.items["label"])}


def _require_labels(*sets: Split) -> None:
    if any("label" not in items for items in sets):
        raise ValueError(
            "the classification accuracy score needs labelled items, and these have no labels: remove accuracy_score "
            "from metric"
        )


def _untrained(extractor: Extractor, seed: int) -> Classifier:
    """A classifier with weights from this seed, on the device of the extractor; torch's generator is left unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = extractor.untrained()
    return model.to(extractor.device)
