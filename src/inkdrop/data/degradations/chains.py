"""A field as it is, and several degradations in turn."""

from __future__ import annotations

from torch import Tensor

from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators


class Copy(Derive):
    """A copy of another field, such as of the data as those that a constraint knows.

    - `field`: the name of the field.
    """

    def __init__(self, field: str = "x"):
        self.field = field

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        return fields[self.field]


class Chain(Derive):
    """Several degradations in turn, such as blur, downscaling and JPEG: each receives the result of the last one as x.

    - `steps`: the degradations.
    - `field`: the field that the first one receives as x.

    Raises `ValueError` without a step.
    """

    def __init__(self, steps: list[Derive], field: str = "x"):
        if not steps:
            raise ValueError("steps=[] is a chain of no degradations: name at least one")
        self.steps, self.field = list(steps), field

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = fields[self.field]
        for number, step in enumerate(self.steps):
            x = step({**fields, "x": x}, generators.at("step", number))
        return x
