"""The loss of a contrastive model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.models import ContrastiveModel
from inkdrop.randomness import Generators
from inkdrop.time_samplers import Times, TimeSampler


class ContrastiveLoss(Loss):
    """The mean of two cross-entropies: which text of the batch belongs to an item, and which item to a text.

    `-log softmax_j(s_ij)_i / 2 - log softmax_j(s_ji)_i / 2`, over the items of all ranks. Other items with the same
    text are left out: they would not be wrong answers. The part "accuracy" is 1 where the most similar text is the
    item's. Items are noised at the times of the time sampler; without one they stay clean.

    Source: Radford et al. 2021, arXiv 2103.00020, figure 3.
    """

    higher = ("accuracy",)

    def __init__(self, time_sampler: TimeSampler | None = None):
        super().__init__()
        self.time_sampler = time_sampler

    @property
    def logged(self) -> tuple[str, ...]:
        return ("accuracy", "scale")

    def forward(
        self, model: ContrastiveModel, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        x = example.x_0
        times = self._times(model, generators, t, len(x))
        now = model.schedule.point(times.t)
        x_t, _ = model.noise.within(example.batch).corrupt(x, now, generators.at("noise"))
        data, texts = model.data(x_t, now), model.texts(example.batch)
        same = torch.cat([example.batch[name].flatten(1) for name in model.names], 1)
        first, all_data, all_texts, all_same = _of_all_ranks(data, texts, same)
        rows = torch.arange(len(x), device=x.device)
        equal = (same[:, None] == all_same[None]).all(2)
        equal[rows, first + rows] = False
        by_item = model.similarity(data, all_texts).masked_fill(equal, -torch.inf)
        by_text = model.similarity(all_data, texts).T.masked_fill(equal, -torch.inf)
        halves = [nn.functional.cross_entropy(each, first + rows, reduction="none") for each in (by_item, by_text)]
        error = (halves[0] + halves[1]) / 2
        accuracy = (by_item.argmax(1) == first + rows).to(error.dtype)
        factor = example.factor(times.importance)
        parts = {"error": error, "accuracy": accuracy, "scale": model.scale.detach().expand(len(x))}
        return LossTerms(error if factor is None else factor * error, times.t, parts, factor)

    def _times(self, model: ContrastiveModel, generators: Generators, t: Tensor | None, count: int) -> Times:
        if self.time_sampler is None:
            return Times(torch.zeros(count, dtype=torch.float64), None)
        return self.time_sampler(model.schedule, generators.at("time")) if t is None else Times(t, None)


class _Gathered(torch.autograd.Function):
    """The rows of all ranks, in their order; each receives the gradient of the losses of all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        return torch.cat(_gathered(rows))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient[torch.distributed.get_rank() * ctx.count :][: ctx.count]


def _gathered(rows: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return parts


def _of_all_ranks(data: Tensor, texts: Tensor, same: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """The place of the first own row among those of all ranks, and these rows, through which gradients pass.

    In validation, where ranks may have batches of unlike sizes, each rank compares its own rows.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not distributed or not torch.is_grad_enabled():
        return 0, data, texts, same
    first = torch.distributed.get_rank() * len(data)
    all_data, all_texts = (_Gathered.apply(each) for each in (data, texts))
    return first, all_data, all_texts, torch.cat(_gathered(same))
