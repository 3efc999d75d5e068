"""The pipeline from seeds and conditions to data, used by sampling, pictures, evaluation and notebooks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.adapters import Adapter, digest
from inkdrop.codecs import Batches, Codec
from inkdrop.conditioners import Conditioner
from inkdrop.conditioners.label import class_numbers
from inkdrop.constraints import Constraint, ConstraintFactory
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.errors import require_finite
from inkdrop.guidance import Guidance
from inkdrop.models import Model
from inkdrop.noises import NoiseSource
from inkdrop.pictures import Automatic, View
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators
from inkdrop.samplers import Sampler
from inkdrop.samplers.base import Progress
from inkdrop.schedules import Point, Scalar

MAX_NUMBERS = 2**30  # in one sample


class Pipeline(Model):
    """A trained model with everything that sampling from it needs.

    - `denoiser`, `conditioner`, `codec`: the model.
    - `sampler`: the sampler with its time grid. It may be replaced at any time.
    - `shape`: the shape of x without the batch.
    - `guidance`: guides by name, which wrap the denoiser in this order. They may be replaced at any time.
    - `constraint`: makes the constraint of each sampling call, if there is one. It may be replaced at any time.
    - `view`: how samples are looked at and written; None finds it from their type and shape. It may be replaced too.
    - `adapters`: changes of the trained model by name, which `adapt` makes in this order.

    `classes` are the names of the classes in the order of their numbers; it is empty for an older checkpoint that has
    no names. Raises `ValueError` for a shape of no or of too many numbers.
    """

    draws = True

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        codec: Codec,
        sampler: Sampler,
        shape: list[int],
        guidance: dict[str, Guidance] | None = None,
        constraint: ConstraintFactory | None = None,
        view: View | None = None,
        adapters: dict[str, Adapter] | None = None,
    ):
        super().__init__()
        if not all(length >= 1 for length in shape) or math.prod(shape) > MAX_NUMBERS:
            raise ValueError(f"shape={list(shape)} must have 1 to {MAX_NUMBERS:,} numbers: choose another shape")
        self.denoiser, self.conditioner, self.codec = denoiser, conditioner, codec
        self.sampler, self.guidance, self.shape = sampler, dict(guidance or {}), tuple(shape)
        self.constraint, self.view = constraint, view or Automatic()
        self.adapters: dict[str, Adapter] = {}
        self._to_adapt = dict(adapters or {})

    @property
    def network(self) -> nn.Module:  # type: ignore[override]
        """The network of the denoiser."""
        network: nn.Module = self.denoiser.network  # type: ignore[assignment]
        return network

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest value of x, or None if the codec does not bound it."""
        return self.codec.range

    def fit(self, batches: Batches, device: torch.device) -> None:
        """Fits codec and conditioner to the training data."""
        self.codec.fit(batches, device)
        self.conditioner.fit(batches)

    def adapt(self) -> None:
        """Freezes the model, and changes it by its adapters, whose weights alone are then trained; once.

        The weights of the base must be in the model. Its state then has `base_digest`, the SHA-256 of the base.
        """
        if self._to_adapt:
            self.attach(self._to_adapt)
        self._to_adapt = {}

    def attach(self, adapters: Mapping[str, Adapter]) -> None:
        """Changes the model by further adapters."""
        self.sign()
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad and self.adapters]
        self.requires_grad_(False)
        trained += [parameter for name, adapter in adapters.items() for parameter in adapter(self, name)]
        for parameter in trained:
            parameter.requires_grad_(True)
        self.adapters |= adapters

    def sign(self) -> Tensor:
        """Returns the SHA-256 of the model without adapters, as (32), uint8; its state has it from now on."""
        if "base_digest" not in self._buffers:
            self.register_buffer("base_digest", digest(self.state_dict()))
        return self.get_buffer("base_digest")

    @property
    def trained(self) -> list[str]:
        """The names of the weights of adapters in the state of the model."""
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad and self.adapters]

    def _askers(self) -> list[Any]:
        return [self.conditioner, *self.guidance.values(), *([self.constraint] if self.constraint else [])]

    @property
    def names(self) -> list[str]:
        """The names of the conditions that the model, its guidance and its constraint take."""
        return list(dict.fromkeys(name for asker in self._askers() for name in asker.names))

    def coefficients(self, point: Point) -> dict[str, Scalar]:
        """Returns the coefficients between the network and the estimate of x_0, by name."""
        prediction: Prediction = self.denoiser.prediction  # type: ignore[assignment]
        return prediction.coefficients(point)._asdict()

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the raw batch for samples with these seeds under conditions such as `label=7` or `label="cat"`.

        Raises `ValueError` for conditions that neither the model nor its guidance takes.
        """
        known, askers = set(self.names), self._askers()
        if unknown := sorted(set(condition) - known):
            takes = " and ".join(f"condition.{name}" for name in sorted(known))
            wrong = f"is unknown: this model takes {takes}" if known else "has no effect: this model takes no condition"
            raise ValueError(f"condition.{unknown[0]} {wrong}")
        if self.classes and condition.get("label") is not None:
            condition["label"] = class_numbers(condition["label"], self.classes)
        batch: dict[str, Tensor] = {}
        for asker in askers:
            batch |= asker.request(seeds, **{name: condition[name] for name in asker.names if name in condition})
        return batch

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` if fields of a raw batch are missing or do not suit the conditioner."""
        with torch.no_grad():
            self.conditioner({name: values.to(self.device) for name, values in batch.items()})

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns a raw batch of any valid condition, by which the parts are tried together."""
        batch = {"position": torch.arange(count), **self.denoiser.noise.example(self.shape, count)}
        batch |= {**self.codec.example(count), **self.conditioner.example(count)}
        for guide in self.guidance.values():
            batch |= guide.example(count)
        return {name: value.to(self.device) for name, value in batch.items()}

    def guided(self, batch: Mapping[str, Tensor]) -> tuple[Denoiser, Condition]:
        """Returns the denoiser of one sampling run, wrapped in all guidance, and its condition for a raw batch."""
        denoiser = self.denoiser.begin()
        with torch.inference_mode(False), torch.no_grad():  # guides may need gradients through what they keep of it
            for guide in self.guidance.values():
                denoiser = guide(denoiser, self, batch)
            return denoiser, self.conditioner(batch)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Returns the noise (B, *) from which samples with these seeds start, on the CPU."""
        return self.denoiser.noise(self.shape, Generators.from_seeds(seeds).at("start"))

    @torch.no_grad()
    def check(self) -> None:
        """Raises `ValueError` if the parts do not fit each other.

        This is so if the network does not accept a sample with its condition or returns another shape, if guidance does
        not fit the model, or if the time grid does not fit the schedule or the sampler.
        """
        points = self.sampler.points(self.denoiser.schedule)
        self.denoiser.noise.check(self.denoiser.schedule)
        self.sampler.check_noise(self.denoiser.noise)
        if self.constraint is not None:
            self.constraint.check(self.sampler, points)
        for guide in self.guidance.values():
            guide.check(self)
        denoiser, cond = self.guided(self.example(1))
        try:
            estimate = denoiser(torch.zeros(1, *self.shape), denoiser.schedule.points([1.0])[0], cond)
        except (AssertionError, IndexError, RuntimeError, TypeError) as error:  # torch's errors for what does not fit
            raise ValueError(f"the network does not fit data.shape={list(self.shape)}: {error}") from None
        if (shape := list(estimate.x_0.shape[1:])) != list(self.shape):
            raise ValueError(f"the network returns shape {shape}, but data.shape={list(self.shape)}: make them equal")

    @torch.no_grad()
    def invert(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the noise (B, *) from which the sampler reproduces the raw data `batch["x"]` under their conditions.

        Raises `ValueError` if the sampler draws noise.
        """
        batch = {name: value.to(self.device) for name, value in batch.items()}
        training = self.training
        self.eval()
        try:
            denoiser, cond = self.guided(batch)
            return self.sampler.invert(denoiser, self.codec.encode(batch), cond)
        finally:
            self.train(training)

    def forward(
        self,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        data: Tensor | None = None,
        t_start: float = 1.0,
        constraint: Constraint | None = None,
        progress: Progress | None = None,
        eps: Tensor | None = None,
    ) -> Tensor:
        """Draws raw data (B, *), one sample per seed, under the conditions of the raw batch; see `draw`.

        Sample i is a function of the model, its condition and seed i alone. `NonFiniteError` names the seeds of samples
        that are not finite.
        """
        batch = {"position": torch.tensor(list(seeds)), **batch}  # as in batches of data: none is empty
        return self.draw(
            batch, Generators.from_seeds(seeds), None, data, t_start, constraint, progress, eps, named=list(seeds)
        )

    @torch.no_grad()
    def draw(
        self,
        batch: Mapping[str, Tensor],
        generators: Generators,
        shape: Sequence[int] | None = None,
        data: Tensor | None = None,
        t_start: float = 1.0,
        constraint: Constraint | None = None,
        progress: Progress | None = None,
        eps: Tensor | None = None,
        named: Sequence[int] | None = None,
    ) -> Tensor:
        """Draws raw data (B, *), one sample per random stream, under the conditions of the raw batch.

        - `batch`: the raw batch of conditions.
        - `generators`: the random streams; other ones, such as those of the next step of a rollout, are independent.
        - `shape`: the shape of x without the batch, if it is another one than the model's.
        - `data`: raw data (B, *) to start from, noised to `t_start`.
        - `t_start`: the time at which the run starts.
        - `constraint`: acts on every move instead of the pipeline's own; a sample has `constraint.copies` rows.
        - `progress`: `progress(done, total, x)` is called after each move.
        - `eps`: the noise (B, *) to start from, in place of that of the streams.
        - `named`: the numbers by which `NonFiniteError` names samples; None counts them.
        """
        device, count = self.device, len(generators)
        maker = None if constraint is not None else self.constraint
        copies = getattr(constraint or maker, "copies", 1)
        raw = {name: value.to(device) for name, value in batch.items()}
        batch = {name: value.repeat_interleave(copies, 0) for name, value in raw.items()}
        generators = generators.repeat(copies)
        law = self.denoiser.noise.within(batch)
        eps = law(shape or self.shape, generators.at("start")) if eps is None else eps.repeat_interleave(copies, 0)
        given = {} if data is None else {**batch, "x": data.to(device).repeat_interleave(copies, 0)}
        x_init = self.codec.encode(given) if given else None
        training = self.training
        self.eval()  # sampling uses no dropout
        try:
            denoiser, cond = self.guided(batch)
            denoiser = last = _LastExtras(denoiser)
            made = constraint if maker is None else maker(self, batch)
            denoiser = denoiser if made is None else made.around(denoiser)
            noise = NoiseSource(law, generators)
            x_0 = self.sampler(denoiser, eps.to(device), cond, noise, x_init, t_start, made, progress)
        finally:
            self.train(training)
        # After decoding it would be hidden: NaN becomes a black pixel.
        rows = [name for name in (range(count) if named is None else named) for _ in range(len(x_0) // count)]
        require_finite(x_0, "the samples with seeds", rows)
        # A constraint may have chosen one of the copies.
        return self.codec.decode(x_0, batch, last.extras) if len(x_0) == len(eps) else self.codec.decode(x_0, raw)


class _LastExtras(Wrapper):
    """Keeps the further outputs of the network's last call, for the codec to decode samples with."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.extras: Mapping[str, Tensor] = {}

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        estimate = self.denoiser(x_t, now, cond)
        self.extras = estimate.extras
        return estimate

    def select(self, index: Tensor) -> None:
        super().select(index)
        self.extras = {name: value[index] for name, value in self.extras.items()}
