"""From seeds and conditions to data: what sampling, pictures, evaluation and notebooks all use."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.conditioners import Conditioner
from inkdrop.configuration import CHECKPOINT_TARGETS, build, check
from inkdrop.constraints import Constraint
from inkdrop.denoiser import Denoiser
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
        to `t_start`. Every sample has `constraint.copies` rows while it is made.
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
        return self.codec.decode(x_0)


def compile_network(pipeline: Pipeline) -> None:
    """Compiles the network in place, so that the names of its weights stay."""
    network: Any = pipeline.denoiser.network
    network.compile()


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself, or the latest of a run folder; `ValueError` if there is none."""
    path = Path(path)
    if path.is_file():
        return path
    if not path.exists():
        raise ValueError(f"checkpoint={path} does not exist")
    files = sorted(path.glob("checkpoints/step-*.ckpt"))
    if not files:
        raise ValueError(f"{path} is no run folder: it has no checkpoints/step-*.ckpt")
    return files[-1]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, as tensors and plain data; nothing in the file is ever executed.

    `ValueError` if the file is damaged, or was not written by inkdrop.
    """
    file = find_checkpoint(path)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or foreign"
        raise ValueError(f"{file} cannot be read as a checkpoint: {reason}") from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "config"} <= checkpoint.keys():
        raise ValueError(f"{file} is no checkpoint of inkdrop: it lacks the model's configuration")
    return checkpoint


def model_weights(checkpoint: Mapping[str, Any], weights: str = "ema") -> dict[str, Tensor]:
    """The state of the pipeline in a checkpoint: `raw`, `ema` for the first average, or an average by its decay.

    `ValueError` names what there is.
    """
    state = dict(checkpoint["state_dict"])
    averages = checkpoint.get("ema", {})
    if weights != "raw":
        chosen = next(iter(averages), None) if weights == "ema" else str(weights)
        if chosen not in averages:
            raise ValueError(
                f"weights={weights} is not in the checkpoint: it has raw, {', '.join(averages) or 'no EMA'}"
            )
        state.update(averages[chosen])
    prefix = "pipeline."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


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
    pipeline.load_state_dict(model_weights(checkpoint, weights))
    return pipeline.eval()
