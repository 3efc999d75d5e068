"""The conditioner of class labels, and labels by name."""

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
from inkdrop.randomness import sent


class Label(Conditioner):
    """A learned vector (B, dim) for each class, and one for "no class", used with probability `dropout` in training.

    `name` is the key of the classes (B) in a batch. Source: Ho and Salimans 2022, arXiv 2207.12598, section 3.2
    (dropout of the condition).
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
            label = torch.where(sent(dropped[name], label.device), self.num_classes, label)
        return {"vector": self.embedding(label)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a class, or from a list of classes that samples take in turn; by default all."""
        (name,) = self.names
        self.require_known(condition)
        return {name: labels(seeds, self.num_classes, condition.get(name), name)}


def class_numbers(wanted: Any, names: Sequence[str], field: str = "label") -> Any:
    """Returns the number of the class that a user names, or a list of numbers for a list.

    An integer that is not a name is returned unchanged, unless all names are integers: then 1 is the class named 1, at
    whichever position. Raises `ValueError` for unknown names.
    """
    if isinstance(wanted, list):
        return [class_numbers(each, names, field) for each in wanted]
    text = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)  # as it was written
    if text in names:
        return names.index(text)
    if type(wanted) is int and not all(re.fullmatch("[0-9]+", name) for name in names):
        return wanted
    close = difflib.get_close_matches(text[:200], names, 1) if is_named(names) else []
    known = f"did you mean {harmless(close[0])}?" if close else f"available: {named(names)}"
    raise ValueError(f"condition.{field}={harmless(text)} is not one of the classes of this model: {known}")


def is_named(classes: Sequence[str]) -> bool:
    """Returns whether the classes have names other than their numbers."""
    return list(classes) != [str(number) for number in range(len(classes))]


def named(names: Sequence[str], most: int = 20) -> str:
    """Returns the first names as a list in words, and the number of those left out; a range if names are numbers."""
    if len(names) > 1 and not is_named(names):
        return f"0 to {len(names) - 1}"
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*(harmless(name, 60) for name in names[:most]), *more])


def labels(seeds: Sequence[int], num_classes: int, wanted: Any, name: str = "label") -> Tensor:
    """Returns classes (B) for samples with these seeds: one class, or the classes of a list in turn, or all in turn.

    Raises `ValueError` for what is not a class.
    """
    classes = list(range(num_classes)) if wanted is None else wanted if isinstance(wanted, list) else [wanted]
    if not classes or any(type(each) is not int or not 0 <= each < num_classes for each in classes):
        raise ValueError(f"condition.{name}={wanted} must be a class from 0 to {num_classes - 1} or a list of them")
    return torch.tensor([classes[seed % len(classes)] for seed in seeds])
