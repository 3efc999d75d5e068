"""From seeds and conditions to data: what sampling, pictures, evaluation and notebooks all use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.classifier import NoisyClassifier
from inkdrop.codecs import Codec
from inkdrop.conditioners import Conditioner
from inkdrop.conditioners.label import class_numbers
from inkdrop.constraints import Constraint
from inkdrop.denoiser import Condition, Denoiser
from inkdrop.errors import require_finite
from inkdrop.guidance import Guidance
from inkdrop.noises import NoiseSource
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators
from inkdrop.samplers import Sampler
from inkdrop.samplers.base import Progress
from inkdrop.schedules import Point, Scalar

MAX_NUMBERS = 2**30  # in one sample


class Pipeline(nn.Module):
    """A trained model with all that is needed to sample from it.

    `denoiser`, `conditioner` and `codec` are the model; `sampler` and `guidance` say how to sample and may be replaced
    at any time; several guides wrap each other in order. `shape` is that of x without the batch. `classes` are the
    names of the classes in the order of their numbers; a checkpoint that is older than these has none.
    """

    classes: Sequence[str] = ()

    def __init__(
        self,
        denoiser: Denoiser,
        conditioner: Conditioner,
        codec: Codec,
        sampler: Sampler,
        shape: list[int],
        guidance: dict[str, Guidance] | None = None,
    ):
        super().__init__()
        if not all(length >= 1 for length in shape) or math.prod(shape) > MAX_NUMBERS:
            raise ValueError(f"shape={list(shape)}: a sample has 1 to {MAX_NUMBERS:,} numbers")
        self.denoiser, self.conditioner, self.codec = denoiser, conditioner, codec
        self.sampler, self.guidance, self.shape = sampler, dict(guidance or {}), tuple(shape)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters(), torch.empty(0)).device

    @property
    def network(self) -> nn.Module:
        """The network of the denoiser."""
        network: nn.Module = self.denoiser.network  # type: ignore[assignment]
        return network

    def fit(self, column: Callable[[str], Iterable[Tensor]]) -> None:
        """Lets codec and conditioner learn statistics of raw training data, of which `column(name)` gives batches."""
        self.codec.fit(column("x"))
        self.conditioner.fit(column)

    def coefficients(self, point: Point) -> dict[str, Scalar]:
        """The numbers between the network and the estimate of x_0, by name."""
        prediction: Prediction = self.denoiser.prediction  # type: ignore[assignment]
        return prediction.coefficients(point)._asdict()

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """The raw batch for samples with these seeds under a user's condition, such as `label=7` or `label="cat"`.

        `ValueError` for conditions that neither the model nor its guidance knows.
        """
        askers: list[Any] = [self.conditioner, *self.guidance.values()]
        known = {name for asker in askers for name in asker.names}
        if unknown := sorted(set(condition) - known):
            takes = " and ".join(f"condition.{name}" for name in sorted(known))
            told = f"is unknown: this model takes {takes}" if known else "is of no use: this model takes no condition"
            raise ValueError(f"condition.{unknown[0]} {told}")
        if self.classes and condition.get("label") is not None:
            condition["label"] = class_numbers(condition["label"], self.classes)
        batch: dict[str, Tensor] = {}
        for asker in askers:
            batch |= asker.request(seeds, **{name: condition[name] for name in asker.names if name in condition})
        return batch

    def guided(self, batch: Mapping[str, Tensor]) -> tuple[Denoiser, Condition]:
        """The denoiser of one sampling run with all guidance around it, and its condition, for a raw batch."""
        denoiser = self.denoiser.begin()
        with torch.inference_mode(False), torch.no_grad():  # guides may want gradients through what they keep of it
            for guide in self.guidance.values():
                denoiser = guide(denoiser, self, batch)
            return denoiser, self.conditioner(batch)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """The noise (B, *) that samples with these seeds begin with, on the CPU."""
        return self.denoiser.noise(self.shape, Generators.from_seeds(seeds).at("start"))

    @torch.no_grad()
    def check(self) -> None:
        """`ValueError` if the parts do not fit each other.

        The network may not take a sample with its condition or give back another shape, guidance may not fit the model,
        or the time grid the schedule or the sampler.
        """
        self.sampler.points(self.denoiser.schedule)
        try:
            batch = self.request([0])
        except ValueError:  # only the user can say what this model is told
            return
        denoiser, cond = self.guided(batch)
        try:
            estimate = denoiser(torch.zeros(1, *self.shape), denoiser.schedule.points([1.0])[0], cond)
        except (AssertionError, IndexError, RuntimeError, TypeError) as error:  # torch's words for what does not fit
            raise ValueError(f"the network does not fit data.shape={list(self.shape)}: {error}") from None
        if (shape := list(estimate.x_0.shape[1:])) != list(self.shape):
            raise ValueError(f"the network makes samples of shape {shape}, but data.shape={list(self.shape)}")

    @torch.no_grad()
    def invert(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The noise (B, *) from which the sampler comes back to the raw data `batch["x"]`, under their conditions.

        `ValueError` if the sampler draws noise.
        """
        batch = {name: value.to(self.device) for name, value in batch.items()}
        training = self.training
        self.eval()
        try:
            denoiser, cond = self.guided(batch)
            return self.sampler.invert(denoiser, self.codec.encode(batch["x"]), cond)
        finally:
            self.train(training)

    @torch.no_grad()
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
        """Raw data (B, *), one per seed, under the conditions of the raw batch.

        Sample i depends on the model, its condition and seed i alone. With `data` (B, *) the run starts from it, noised
        to `t_start`; with `eps` (B, *) it begins with this noise in place of that of the seeds. Every sample has
        `constraint.copies` rows while it is made. `NonFiniteError` names the seeds of samples that are not finite.
        """
        device = self.device
        copies = 1 if constraint is None else constraint.copies
        generators = Generators.from_seeds(seeds).repeat(copies)
        if eps is None:
            eps = self.denoiser.noise(self.shape, generators.at("start"))
        else:
            eps = eps.repeat_interleave(copies, 0)
        batch = {"position": torch.tensor(list(seeds)), **batch}  # as batches of data have it: none is without rows
        batch = {name: value.to(device).repeat_interleave(copies, 0) for name, value in batch.items()}
        x_init = None if data is None else self.codec.encode(data.to(device)).repeat_interleave(copies, 0)
        training = self.training
        self.eval()  # dropout has no place in sampling
        try:
            denoiser, cond = self.guided(batch)
            noise = NoiseSource(denoiser.noise, generators)
            x_0 = self.sampler(denoiser, eps.to(device), cond, noise, x_init, t_start, constraint, progress)
        finally:
            self.train(training)
        # Levels of a codec would hide it: NaN decodes to black.
        require_finite(x_0, "the samples with seeds", [seed for seed in seeds for _ in range(len(x_0) // len(seeds))])
        return self.codec.decode(x_0)


class _Counted(nn.Module):
    """A network, and for how many samples it was called: a hook would be compiled with it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.num_samples = network, 0

    def forward(self, x: Tensor, *args: Tensor, **cond: Tensor) -> Any:
        self.num_samples += len(x)
        return self.network(x, *args, **cond)


@contextmanager
def calls_counted(pipeline: Pipeline) -> Iterator[Callable[[int], int]]:
    """Counts calls of the network within the block; what it gives says how many each of so many samples had.

    A call for 2 B rows, as in classifier-free guidance, is two for each of B samples.
    """
    network = pipeline.network
    pipeline.denoiser.network = counted = _Counted(network)
    try:
        yield lambda num_samples: counted.num_samples // max(1, num_samples)
    finally:
        pipeline.denoiser.network = network


def compile_network(pipeline: Pipeline | NoisyClassifier, cuda_graphs: bool = False) -> None:
    """Compiles the network in place, so that the names of its weights stay; CUDA graphs replay its launches."""
    pipeline.network.compile(mode="reduce-overhead" if cuda_graphs else None)
