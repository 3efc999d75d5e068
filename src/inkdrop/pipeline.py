"""From seeds and conditions to data: what sampling, pictures, evaluation and notebooks all use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.checkpoints import CheckpointError, model_weights, read_checkpoint
from inkdrop.checkpoints.content import require_fit
from inkdrop.codecs import Codec
from inkdrop.conditioners import Conditioner
from inkdrop.configuration import CHECKPOINT_TARGETS, build, check
from inkdrop.constraints import Constraint
from inkdrop.denoiser import Denoiser
from inkdrop.finiteness import require_finite
from inkdrop.guidance import Guidance
from inkdrop.noises import NoiseSource
from inkdrop.randomness import Generators
from inkdrop.samplers import Sampler
from inkdrop.samplers.base import Progress


class Pipeline(nn.Module):
    """A trained model with all that is needed to sample from it.

    `denoiser`, `conditioner` and `codec` are the model; `sampler` and `guidance` say how to sample and may be replaced
    at any time; several guides wrap each other in order. `shape` is that of x without the batch.
    """

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
        self.denoiser, self.conditioner, self.codec = denoiser, conditioner, codec
        self.sampler, self.guidance, self.shape = sampler, dict(guidance or {}), tuple(shape)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """The raw batch for samples with these seeds under a user's condition, such as `label=7`."""
        return self.conditioner.request(seeds, **condition)

    @torch.no_grad()
    def forward(
        self,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        data: Tensor | None = None,
        t_start: float = 1.0,
        constraint: Constraint | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Raw data (B, *), one per seed, under the conditions of the raw batch.

        Sample i depends on the model, its condition and seed i alone. With `data` (B, *) the run starts from it, noised
        to `t_start`. Every sample has `constraint.copies` rows while it is made. `NonFiniteError` names the seeds of
        samples that are not finite.
        """
        device = next(self.parameters(), torch.empty(0)).device
        copies = 1 if constraint is None else constraint.copies
        generators = Generators.from_seeds(seeds).repeat(copies)
        eps = self.denoiser.noise(self.shape, generators.at("start")).to(device)
        batch = {name: value.to(device).repeat_interleave(copies, 0) for name, value in batch.items()}
        x_init = None if data is None else self.codec.encode(data.to(device)).repeat_interleave(copies, 0)
        training = self.training
        self.eval()  # dropout has no place in sampling
        try:
            denoiser = self.denoiser.begin()
            for guide in self.guidance.values():
                denoiser = guide(denoiser, self, batch)
            noise = NoiseSource(denoiser.noise, generators)
            cond = self.conditioner(batch)
            x_0 = self.sampler(denoiser, eps, cond, noise, x_init, t_start, constraint, progress)
        finally:
            self.train(training)
        # Levels of a codec would hide it: NaN decodes to black.
        require_finite(x_0, "the samples with seeds", [seed for seed in seeds for _ in range(len(x_0) // len(seeds))])
        return self.codec.decode(x_0)


def compile_network(pipeline: Pipeline) -> None:
    """Compiles the network in place, so that the names of its weights stay."""
    network: Any = pipeline.denoiser.network
    network.compile()


def load(path: str | Path, weights: str = "ema", allow_targets: Sequence[str] = ()) -> Pipeline:
    """The pipeline of a run folder or checkpoint file, with the sampler it was evaluated with, on the CPU.

    `weights` is `ema`, `raw`, or the decay of another average. The model is built from the configuration inside the
    checkpoint, of inkdrop's own parts and those whose import path begins with one of `allow_targets`. `ValueError` for
    files that cannot be used.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint["config"]["pipeline"]
    allowed = (*CHECKPOINT_TARGETS, *allow_targets)
    check(config, allowed, "pipeline")
    pipeline: Pipeline = build(config, allowed)
    found = model_weights(checkpoint, weights)
    try:
        require_fit(found, pipeline.state_dict())
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    pipeline.load_state_dict(found)
    return pipeline.eval()
