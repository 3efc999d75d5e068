"""Distance to real data while training goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.ema import averaged_weights, profile_name
from inkdrop.callbacks.step import AfterStep
from inkdrop.guidance import Guidance
from inkdrop.metrics import Evaluation
from inkdrop.metrics.protocol import sampling_facts
from inkdrop.pipeline import Pipeline
from inkdrop.samplers import Sampler


class Variant:
    """Another way to sample the same network: an average of other length, another sampler, other guidance.

    `weights` is `raw` or the name of an average; null is as in the run, and so for the others.
    """

    def __init__(
        self,
        weights: str | None = None,
        sampler: Sampler | None = None,
        guidance: Mapping[str, Guidance] | None = None,
    ):
        self.weights, self.sampler, self.guidance = weights, sampler, guidance

    @contextmanager
    def within(self, pipeline: Pipeline) -> Iterator[None]:
        """The pipeline samples in this way within the block."""
        before = pipeline.sampler, pipeline.guidance
        pipeline.sampler = self.sampler or before[0]
        pipeline.guidance = before[1] if self.guidance is None else dict(self.guidance)
        try:
            yield
        finally:
            pipeline.sampler, pipeline.guidance = before


class Evaluate(AfterStep):
    """Measures the averaged weights every so often and when training ends; `results` holds the latest values.

    They are those of step `measured_at`. Each of the `variants` is measured as well, on samples with the same seeds,
    and adds `{metric}_{n}@{variant}`. `evaluation/share_of_time` is the share of the run's time so far that all this
    took, and `evaluation/{part}_seconds` how the latest was spent.
    """

    def __init__(self, every: Every, evaluation: Evaluation, variants: Mapping[str, Variant] | None = None):
        self.every, self.evaluation, self.variants = every, evaluation, dict(variants or {})
        self.results: dict[str, float] = {}
        self.measured_at = -1
        self.protocol: dict[str, Any] = {}
        self._start = self._spent = 0.0

    def check(self, data: Any) -> None:
        """`ValueError` if these data do not suffice for the evaluation."""
        self.evaluation.check(data)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start, self._spent = time.monotonic(), 0.0
        for variant in self.variants.values():
            profile_name(trainer, variant.weights)

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every.due(trainer):
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.measured_at != trainer.global_step:
            self._measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"results": self.results, "measured_at": self.measured_at, "protocol": self.protocol}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.results, self.measured_at = state_dict["results"], state_dict["measured_at"]
        self.protocol = state_dict["protocol"]

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measured_at, start = trainer.global_step, time.monotonic()
        pipeline: Any = pl_module.pipeline
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with averaged_weights(trainer, pl_module):
            self.results = self.evaluation(pipeline, data)
        seconds = dict(self.evaluation.seconds)
        weights, calls = profile_name(trainer), self.evaluation.network_calls
        sampler: Any = pl_module.config.get("pipeline", {})  # type: ignore[operator, union-attr]
        facts = sampling_facts(sampler, weights, self.evaluation.seed, calls, str(trainer.precision))
        self.protocol = self.evaluation.protocol(data, facts)
        for name, variant in self.variants.items():
            with ExitStack() as stack:
                stack.enter_context(averaged_weights(trainer, pl_module, variant.weights))
                stack.enter_context(variant.within(pipeline))
                values = self.evaluation.of_samples(pipeline, data)
            self.results |= {f"{metric}@{name}": value for metric, value in values.items()}
        self._spent += time.monotonic() - start
        spent = {f"evaluation/{part}_seconds": value for part, value in seconds.items()}
        spent["evaluation/share_of_time"] = self._spent / (time.monotonic() - self._start)
        for logger in trainer.loggers:
            logger.log_metrics({**self.results, **spent}, step=trainer.global_step)
