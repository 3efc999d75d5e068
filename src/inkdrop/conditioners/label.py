"""Class labels, by number and by name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.showing import harmless


class Label(Conditioner):
    """A learned vector (B, dim) per class, and one more for "no class", taken with probability `dropout` in training.

    `name` is where a batch has the classes (B). Source: Ho and Salimans 2022, arXiv 2207.12598, section 3.2 (dropout of
    the condition).
    """

    def __init__(
        self,
        num_classes: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "label",
    ):
        super().__init__()
        self.num_classes, self.dim, self.dropout, self.names = num_classes, dim, dropout, (name,)
        self.embedding = nn.Embedding(num_classes + 1, dim)

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        label = batch[name]
        if name in dropped:
            label = torch.where(dropped[name].to(label.device), self.num_classes, label)
        return {"vector": self.embedding(label)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """The condition is a class or a list of classes, taken in turn; without it the classes follow the seeds."""
        (name,) = self.names
        self.require_known(condition)
        return {name: labels(seeds, self.num_classes, condition.get(name), name)}


def class_numbers(wanted: Any, names: Sequence[str], field: str = "label") -> Any:
    """The numbers of the classes that a user names, one or a list; a number that is no name stays, but among numbers.

    Where all names are numbers, 1 is the class of that name, be it the first or not. `ValueError` for other names.
    """
    if isinstance(wanted, list):
        return [class_numbers(each, names, field) for each in wanted]
    text = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)  # as it was written
    if text in names:
        return names.index(text)
    if type(wanted) is int and not all(re.fullmatch("[0-9]+", name) for name in names):
        return wanted
    close = difflib.get_close_matches(text[:200], names, 1) if is_named(names) else []
    known = f"did you mean {harmless(close[0])}?" if close else f"there are {named(names)}"
    raise ValueError(f"condition.{field}={harmless(text)} is none of the classes of this model: {known}")


def is_named(classes: Sequence[str]) -> bool:
    """Whether classes are called otherwise than by their numbers."""
    return list(classes) != [str(number) for number in range(len(classes))]


def named(names: Sequence[str], most: int = 20) -> str:
    """The first names in a sentence, and how many more there are; those that are their numbers from first to last."""
    if len(names) > 1 and not is_named(names):
        return f"0 to {len(names) - 1}"
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*(harmless(name, 60) for name in names[:most]), *more])


def labels(seeds: Sequence[int], num_classes: int, wanted: Any, name: str = "label") -> Tensor:
    """Classes (B) for samples with these seeds: one, or of a list in turn, or all in turn; `ValueError` for others."""
    classes = list(range(num_classes)) if wanted is None else wanted if isinstance(wanted, list) else [wanted]
    if not classes or any(type(each) is not int or not 0 <= each < num_classes for each in classes):
        raise ValueError(f"condition.{name}={wanted} must be one or more classes of 0 to {num_classes - 1}")
    return torch.tensor([classes[seed % len(classes)] for seed in seeds])
