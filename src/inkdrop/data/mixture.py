"""Several data sets as one, by weight and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.data.captions import NAME as CAPTION
from inkdrop.data.captions import Captions, is_template, of_classes
from inkdrop.data.joined import Joined, JoinedTexts
from inkdrop.data.loaders import Augment, Column, Derive, Order, ShuffledPasses, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files.showing import harmless
from inkdrop.randomness import Generators

ROUND = 10_000  # positions after which the weights hold exactly


class Mixture(DataModule):
    """Several data sets of one shape and type as one; "source" in a batch is the position of the data set in `sources`.

    Of every 10,000 training samples each source contributes its share exactly, in its own order. The other splits that
    all sources have, such as validation, follow one another. Arguments beyond those of `DataModule`:

    - `sources`: data sets by name. They must not state `augment`, and their `batch_size` has no effect.
    - `num_classes`: the number of classes over all sources, in which a class has one number; null is the largest number
      of a source.
    - `class_balanced`: whether the classes of a source are drawn equally often.
    - `weights`: the weight of each source in training; null is its size.
    - `captions`: a template such as `a photo of a {label}` for each source whose captions are made of its classes;
      other sources have captions already.

    Raises `DataError` if fields, shapes or types differ, but for the lengths of texts, or if sources name a class
    differently.
    """

    def __init__(
        self,
        sources: dict[str, DataModule],
        shape: list[int],
        num_classes: Annotated[int, Ge(0)] | None,
        batch_size: Annotated[int, Ge(1)],
        class_balanced: bool,
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        weights: dict[str, Annotated[float, Gt(0)]] | None = None,
        derive: dict[str, Derive] | None = None,
        captions: dict[str, str] | None = None,
    ):
        if not sources:
            raise ValueError("data.sources is empty: add at least one data set")
        self.captions = dict(captions or {})
        for name, template in self.captions.items():
            _check_template(name, template, sources)
        if weights is not None and set(weights) != set(sources):
            raise ValueError(
                f"data.weights names {', '.join(weights)}, but the sources are {', '.join(sources)}: give each a weight"
            )
        if augmented := [name for name, source in sources.items() if source.augment is not None]:
            raise ValueError(f"data.sources.{augmented[0]}.augment is not used: set data.augment for the mixture")
        if derived := [name for name, source in sources.items() if source.derive]:
            raise ValueError(f"data.sources.{derived[0]}.derive is not used: set data.derive for the mixture")
        if num_classes is None:
            num_classes = max(source.num_classes for source in sources.values())
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers, derive=derive)
        self.sources, self.weights, self.class_balanced = sources, weights, class_balanced

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers; raises `DataError` if the names of sources differ."""
        names = list(map(str, range(self.num_classes)))
        for source, data in self.sources.items():
            for number, name in enumerate(data.classes[: self.num_classes]):
                if str(number) not in (name, names[number]) and name != names[number]:
                    raise DataError(
                        f"class {number} is {harmless(name)} in data.sources.{source}, but {harmless(names[number])} "
                        "in an earlier source: give each class the same number and name in all sources"
                    )
                names[number] = name if names[number] == str(number) else names[number]
        return names

    def verify(self) -> None:
        for source in self.sources.values():
            source.verify()

    def load(self) -> dict[str, Split]:
        parts = {name: self._captioned(name, source) for name, source in self.sources.items()}
        _ = self.classes  # raises an error if sources differ
        common = [split for split in next(iter(parts.values())) if all(split in each for each in parts.values())]
        return {split: self._joined({name: each[split] for name, each in parts.items()}) for split in common}

    def _captioned(self, name: str, source: DataModule) -> dict[str, Split]:
        """The splits of a source, with captions that a template makes of its classes if there is one."""
        splits = dict(source.splits)
        if (template := self.captions.get(name)) is None:
            return splits
        for split, columns in splits.items():
            if "label" not in columns or CAPTION in columns:
                has = "captions already" if CAPTION in columns else "no classes"
                raise DataError(f"data.captions.{name} is a template, but the source has {has}: leave it out")
            labels = columns["label"][torch.arange(len(columns["x"]))].tolist()
            splits[split] = {**columns, CAPTION: Captions(of_classes(template, labels, source.classes))}
        return splits

    def order(self) -> Order:
        splits = {name: source.splits["train"] for name, source in self.sources.items()}
        sizes = [len(split["x"]) for split in splits.values()]
        weights = sizes if self.weights is None else [self.weights[name] for name in splits]
        shares = _shares(np.array(weights, float))
        if 0 in shares:
            name = list(splits)[shares.index(0)]
            raise ValueError(f"data.weights: {name} would contribute less than one of {ROUND} samples: leave it out")
        orders = [
            self._within(name, torch.arange(end - size, end), key)
            for name, size, end, key in zip(
                splits, sizes, np.cumsum(sizes).tolist(), _keys(self.seed, len(sizes)), strict=True
            )
        ]
        return Rounds(orders, shares, self.seed)

    def _within(self, name: str, items: Tensor, seed: int) -> Order:
        """The order within one source, whose items have these numbers in the mixture."""
        source = self.sources[name]
        if not self.class_balanced:
            return Among(items, source.order() or ShuffledPasses(len(items), seed))
        split = source.splits["train"]
        if "label" not in split:
            raise DataError(f"data.class_balanced=true needs labels, and data.sources.{name} has none: set it to false")
        labels = split["label"][torch.arange(len(items))]
        members = [items[labels == label] for label in labels.unique()]
        keys = _keys(seed, len(members))
        orders = [Among(each, ShuffledPasses(len(each), key)) for each, key in zip(members, keys, strict=True)]
        return Rounds(orders, [1] * len(orders), seed)

    def _joined(self, parts: Mapping[str, Split]) -> Split:
        first = next(iter(parts.values()))
        for name, part in parts.items():
            if set(part) != set(first):
                raise DataError(
                    f"data.sources.{name} has the fields {', '.join(part)}, but the first source has "
                    f"{', '.join(first)}: all sources must have the same fields"
                )
            for field, column in part.items():
                if (kind := _kind(column)) != (expected := _kind(first[field])):
                    raise DataError(
                        f"data.sources.{name} has {field} of {kind}, but the first source has {expected}: all sources "
                        "must have the same type and shape"
                    )
        columns = {field: [part[field] for part in parts.values()] for field in first}
        joined: dict[str, Column] = {
            field: JoinedTexts(each) if _is_text(each[0]) else Joined(each) for field, each in columns.items()
        }
        sizes = torch.tensor([len(part["x"]) for part in parts.values()])
        return {**joined, "source": torch.arange(len(parts)).repeat_interleave(sizes)}

    def _workers(self, split: Split) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return max(source._workers(source.splits["train"]) for source in self.sources.values())


class Among:
    """An order over the items with these numbers only."""

    def __init__(self, items: Tensor, order: Order):
        self.items, self.order = items, order

    def __call__(self, positions: Sequence[int]) -> Tensor:
        return self.items[self.order(positions)]


class Rounds:
    """Orders that alternate: each gets its number of `shares` in a round, in a sequence keyed by seed and round.

    An order is called with its own positions without gaps, so that it goes through its items as if it were alone.
    """

    def __init__(self, orders: Sequence[Order], shares: Sequence[int], seed: int):
        self.orders, self.shares, self.seed = orders, np.array(shares), seed
        self._latest = (-1, np.empty(0, int), np.empty(0, int))

    def __call__(self, positions: Sequence[int]) -> Tensor:
        rounds, slots = np.divmod(np.array(positions), self.shares.sum())
        turns = [self._round(number) for number in rounds]
        which = np.array([order[slot] for (order, _), slot in zip(turns, slots, strict=True)])
        counts = np.array([count[slot] for (_, count), slot in zip(turns, slots, strict=True)])
        counts += rounds * self.shares[which]
        found = torch.empty(len(which), dtype=torch.long)
        for order in np.unique(which):
            chosen = which == order
            found[torch.from_numpy(chosen)] = self.orders[order](counts[chosen].tolist())
        return found

    def _round(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """For each position of a round, the number of the order that is used, and how often it was used before."""
        if self._latest[0] != number:
            turns = np.repeat(np.arange(len(self.shares)), self.shares)
            key = int(Generators.from_positions(self.seed, [number]).at("turns").keys[0])
            turns = turns[torch.randperm(len(turns), generator=torch.Generator().manual_seed(key)).numpy()]
            before = np.empty_like(turns)
            before[turns.argsort(kind="stable")] = np.concatenate([np.arange(share) for share in self.shares])
            self._latest = number, turns, before
        return self._latest[1:]


def _check_template(name: str, template: str, sources: Mapping[str, DataModule]) -> None:
    """Raises `ValueError` unless this is a template for a source of this name."""
    if name not in sources:
        raise ValueError(f"data.captions names {harmless(name)}, but the sources are {', '.join(sources)}")
    if not is_template(template):
        raise ValueError(
            f"data.captions.{name}={harmless(template, 60)} must have {{label}}, which stands for the name of the class"
        )


def _is_text(column: Column) -> bool:
    return column.dtype == torch.uint8 and len(column.shape) == 2


def _kind(column: Column) -> str:
    if _is_text(column):
        return "texts"
    return f"{column.dtype} {list(column.shape[1:])}"


def _shares(weights: np.ndarray) -> list[int]:
    """The number of positions in a round for each weight, by largest remainder."""
    exact = ROUND * weights / weights.sum()
    shares = np.floor(exact).astype(int)
    shares[(shares - exact).argsort(kind="stable")[: ROUND - shares.sum()]] += 1
    return shares.tolist()


def _keys(seed: int, count: int) -> list[int]:
    """Seeds of parts, which differ so that parts of equal length have different orders."""
    return Generators.from_positions(seed, range(count)).at("part").keys.tolist()
