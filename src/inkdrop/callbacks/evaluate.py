"""Evaluation during training."""

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
from inkdrop.loggers.rows import record
from inkdrop.metrics import Evaluation
from inkdrop.metrics.protocol import sampling_facts
from inkdrop.pipeline import Pipeline
from inkdrop.samplers import Sampler


class Variant:
    """A variant of sampling the same network: another average, another sampler, other guidance.

    `weights` is `raw` or the name of an average. For all arguments null means as in the run.
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
        """Makes a pipeline sample by this variant within the block."""
        before = pipeline.sampler, pipeline.guidance
        pipeline.sampler = self.sampler or before[0]
        pipeline.guidance = before[1] if self.guidance is None else dict(self.guidance)
        try:
            yield
        finally:
            pipeline.sampler, pipeline.guidance = before


class Evaluate(AfterStep):
    """Measures samples of the averaged weights at a cadence and when training ends; `results` has the latest values.

    They are those of step `measured_at`. Each of the `variants` is measured on samples with the same seeds, and adds
    `{metric}_{n}@{variant}`; `protocol` records its options under `variants`. `evaluation/share_of_time` is the share
    of the time since the run started or resumed that all evaluations took, and `evaluation/{part}_seconds` are the
    durations of the parts of the latest one.
    """

    def __init__(self, every: Every, evaluation: Evaluation, variants: Mapping[str, Variant] | None = None):
        self.every, self.evaluation, self.variants = every, evaluation, dict(variants or {})
        self.results: dict[str, float] = {}
        self.measured_at = -1
        self.protocol: dict[str, Any] = {}
        self.share_of_time = 0.0
        self._start = self._spent = 0.0

    def verify(self) -> None:
        """Raises `ValueError` if weights of an extractor are missing."""
        self.evaluation.verify()

    def check(self, data: Any) -> None:
        """Raises `ValueError` if the data are not sufficient for the evaluation."""
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
        if self.evaluation.is_empty:
            return
        self.measured_at, start = trainer.global_step, time.monotonic()
        pipeline: Any = pl_module.pipeline
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with averaged_weights(trainer, pl_module):
            self.results = self.evaluation(pipeline, data)
        seconds = dict(self.evaluation.seconds)
        self.protocol = self._protocol(trainer, pl_module)
        for name, variant in self.variants.items():
            with ExitStack() as stack:
                stack.enter_context(averaged_weights(trainer, pl_module, variant.weights))
                stack.enter_context(variant.within(pipeline))
                values = self.evaluation.of_samples(pipeline, data)
            self.results |= {f"{metric}@{name}": value for metric, value in values.items()}
            own = self._protocol(trainer, pl_module, name)  # the same measurement, but its own sampling
            self.protocol.setdefault("variants", {})[name] = {part: own[part] for part in ("hash", "sampling")}
        self._spent += time.monotonic() - start
        spent = {f"evaluation/{part}_seconds": value for part, value in seconds.items()}
        self.share_of_time = self._spent / (time.monotonic() - self._start)
        spent["evaluation/share_of_time"] = self.share_of_time
        record(trainer, {**self.results, **spent})

    def _protocol(self, trainer: Trainer, pl_module: LightningModule, variant: str | None = None) -> dict[str, Any]:
        """Returns the protocol of the latest measurement, of the run's sampling or of a variant."""
        config: Any = pl_module.config
        configured = {**config.get("pipeline", {}), **_configured(config, variant)}
        weights = profile_name(trainer, self.variants[variant].weights if variant else None)
        evaluation = self.evaluation
        # Lightning calls callbacks outside autocast, so that their samples are computed in float32.
        precision = "32-true" if "-mixed" in str(trainer.precision) else str(trainer.precision)
        calls = evaluation.network_calls
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return evaluation.protocol(data, sampling_facts(configured, weights, evaluation.seed, calls, precision))


def _configured(config: Mapping[str, Any], variant: str | None) -> dict[str, Any]:
    """Returns the sampler and the guidance of a variant in the configuration of a run."""
    variants = (config.get("callbacks", {}).get("evaluate") or {}).get("variants") or {}
    return {option: value for option, value in variants.get(variant, {}).items() if value is not None}
