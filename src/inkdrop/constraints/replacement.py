"""Known elements of x are replaced by those of given data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory, Stepping
from inkdrop.denoiser import Estimate
from inkdrop.files.pictures import read_images
from inkdrop.noises import Draw, Noise, Transition
from inkdrop.schedules import Point


class _Replaced(Constraint):
    def __init__(self, known: Tensor, mask: Tensor, law: Noise):
        self.known, self.mask, self.law = known, mask, law

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        return self._replaced(x, points[0], noise)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        return self._replaced(transition.draw(noise), next, noise), None

    def _replaced(self, x: Tensor, point: Point, noise: Draw) -> Tensor:
        eps = noise(x, "known")
        return torch.where(self.mask, self.law.mixed(self.known.to(x), eps, point, noise.streams("mix")), x)


class Replacement(ConstraintFactory):
    """Inpainting by replacement: after each move the known elements are those of the data, noised anew to its end.

    `condition.known` are the data, in the raw form of the training data, and `condition.mask` is 1 where they are known
    and 0 where they are to be filled in; both are files, or lists of files that samples take in turn. The known
    elements of a sample are exactly those of the data. The law of the others is not the exact conditional one, because
    a step does not see how the known elements will continue. Source: Song et al. 2021, arXiv 2011.13456, appendix I.2.
    """

    names = ("known", "mask")

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        if missing := [name for name in self.names if name not in batch]:
            raise ValueError(
                f"constraint=replacement needs condition.{missing[0]}: set condition.known=FILE condition.mask=FILE"
            )
        known, mask = pipeline.codec.encode({**batch, "x": batch["known"]}), batch["mask"] > 0
        if known.shape[1:] != pipeline.shape:
            shapes = f"{list(known.shape[1:])}, but samples have the shape {list(pipeline.shape)}"
            raise ValueError(f"condition.known has the shape {shapes}: give data of the same shape")
        try:
            mask = mask.expand_as(known)
        except RuntimeError:
            shapes = f"{list(mask.shape[1:])}, but samples have the shape {list(pipeline.shape)}"
            raise ValueError(f"condition.mask has the shape {shapes}: give one channel, or as many as those") from None
        return _Replaced(known, mask, pipeline.denoiser.noise)

    def check(self, sampler: Stepping, points: Sequence[Point]) -> None:
        if len(points) < 3:
            raise ValueError(
                "constraint=replacement needs at least two steps: after one, the known elements have had no influence "
                "on the others; raise time_grid.num_steps"
            )

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from their files."""
        return {name: self._read(name, condition.get(name), seeds) for name in self.names}

    def _read(self, name: str, wanted: Any, seeds: Sequence[int]) -> Tensor:
        files: list[Any] = wanted if isinstance(wanted, list) else [wanted]
        if not files or not all(isinstance(file, str) for file in files):
            raise ValueError(
                f"condition.{name}={wanted} must be a file, or a list of files, for constraint=replacement"
            )
        images = [read_images(file, f"condition.{name}") for file in files]
        if len({each.shape[1:] for each in images}) > 1:
            raise ValueError(f"the files of condition.{name} have different shapes: make them equal")
        together = torch.cat(images)
        together = together[[seed % len(together) for seed in seeds]]
        return (
            together
            if name == "known"
            else (together > (127 if together.dtype == torch.uint8 else 0.5)).to(torch.uint8)
        )
