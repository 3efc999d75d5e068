"""Data that are too large for one machine: shards in the tar format of WebDataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from lightning.pytorch.utilities import rank_zero_warn

from inkdrop.data.captions import NAME, Captions, is_template, of_classes
from inkdrop.data.classes import numbered
from inkdrop.data.decoding import Decoder
from inkdrop.data.findings import Findings
from inkdrop.data.loaders import Augment, Column, Derive, Order, Split
from inkdrop.data.module import DataModule
from inkdrop.data.shard_store import Shard, ShardStore
from inkdrop.data.shards import ShardColumn, ShardTexts
from inkdrop.errors import DataError
from inkdrop.files.locations import Location, cache_dir
from inkdrop.randomness import Generators

_NAMED = 5  # broken samples that an error lists


class WebDataset(DataModule):
    """Samples in uncompressed tar shards, for data that are too large for one machine.

    A sample is the members of one name with several extensions, such as 0001.png and 0001.cls. The positions of the
    members are read once and stored in `INKDROP_CACHE_DIR`. Arguments beyond those of `DataModule`:

    - `train`, `validation`: patterns such as shards/train-{000000..000099}.tar, of local files or of URLs that
      webdataset opens (http, https, gs, hf, ...).
    - `x`: extensions of the data, images or .npy; the first that a sample has is used.
    - `label`: extension of the class, a whole number; null means no labels.
    - `num_classes`: null counts the labels. Labels that start at 1 or have gaps become 0, 1, ... and keep their names.
    - `shards_at_once`: shards that are read at a time, in an order keyed by seed and pass; their samples are mixed.
    - `cache_size`: gigabytes of downloaded shards that stay in `INKDROP_CACHE_DIR`.
    - `decoder`: how image files become pixels of `shape`.
    - `captions`: what the field `caption` is: the extension of a text with a caption in each line, such as `txt`, a key
      of a JSON file, such as `json.caption`, or a template such as `a photo of a {label}`; null leaves it out. Of
      several captions, training draws one.
    - `max_broken`: the largest share of samples without a valid caption that is left out; more are an error.

    Raises `DataError` for a shard that cannot be downloaded or read, for samples without a valid caption, and, when it
    is read, for a member that is broken or has another shape. Raises `ValueError` if webdataset is not installed.
    """

    def __init__(
        self,
        train: Location,
        validation: Location,
        x: list[str],
        label: str | None,
        shape: list[int],
        num_classes: Annotated[int, Ge(0)] | None,
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        shards_at_once: Annotated[int, Ge(1)] = 4,
        cache_size: Annotated[float, Gt(0)] = 100.0,
        decoder: Decoder | None = None,
        derive: dict[str, Derive] | None = None,
        captions: str | None = None,
        max_broken: Annotated[float, Ge(0), Le(1)] = 0.0,
    ):
        self.max_broken = max_broken
        self._template = captions if captions and is_template(captions) else None
        if self._template and label is None:
            raise ValueError(f"data.captions={captions} needs classes: set data.label to the extension of the class")
        there = None if self._template else captions
        self.store = ShardStore(cache_dir() / "shards", int(cache_size * 1e9), tuple(x), label, there)
        self.urls = {"train": self.store.expand(train), "validation": self.store.expand(validation)}
        self._shards: dict[str, list[Shard]] = {}
        self.shards_at_once, self.decoder = shards_at_once, decoder or Decoder(shape)
        if num_classes is None:
            shards = [shard for part in self.urls for shard in self._index(part)] if label else []
            num_classes = len(numbered({each for shard in shards for each in np.unique(shard.labels).tolist()}, None))
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers, derive=derive)

    def verify(self) -> None:
        for url in self.urls["train"] + self.urls["validation"]:
            self.store.verify(url)

    def load(self) -> dict[str, Split]:
        broken, shards = self._broken(), self._shards_by_url().values()
        count = len(broken) + sum(len(shard.offsets) for shard in shards)
        none_left = any(not any(len(shard.offsets) for shard in self._index(name)) for name in self.urls)
        if len(broken) > self.max_broken * count or none_left:
            lines = [f"  {path}: {reason}" for path, reason in list(broken.items())[:_NAMED]]
            more = [f"  and {len(broken) - _NAMED} more"] if len(broken) > _NAMED else []
            raise DataError(
                "\n".join([f"{len(broken)} of {count} samples have no valid caption:", *lines, *more])
                + "\n`python -m inkdrop check-data` with the same data options lists all of them; repair or remove "
                f"them, raise data.max_broken={self.max_broken}, the largest share that may be left out, or set "
                "data.captions=null for no captions"
            )
        if broken:
            rank_zero_warn(
                f"{len(broken)} of {count} samples have no valid caption and are left out; `python -m inkdrop "
                "check-data` lists them"
            )
        return {name: self._split(self._index(name)) for name in self.urls}

    def examine(self) -> Findings:
        self.max_broken = 1.0  # what is broken is listed, and not an error
        return Findings(self.splits, broken=self._broken())

    def _shards_by_url(self) -> dict[str, Shard]:
        return {shard.url: shard for part in self.urls for shard in self._index(part)}

    def _broken(self) -> dict[str, str]:
        """The reasons of samples without a valid caption by shard and file."""
        shards = self._shards_by_url().values()
        return {f"{shard.url}: {name}": str(reason) for shard in shards for name, reason in shard.broken}

    def order(self) -> Order:
        return ShardPasses([len(shard.offsets) for shard in self._index("train")], self.shards_at_once, self.seed)

    def _index(self, part: str) -> list[Shard]:
        if part not in self._shards:
            self._shards[part] = [self.store.index(url) for url in self.urls[part]]
        return self._shards[part]

    def _split(self, shards: list[Shard]) -> Split:
        split: dict[str, Column] = {"x": ShardColumn(self.store, shards, self.shape, self.decoder)}
        if self.store.label is not None:
            split["label"] = torch.cat([torch.from_numpy(shard.labels) for shard in shards])
        if self._template is not None:
            labels, places = np.unique(np.concatenate([shard.labels for shard in shards]), return_inverse=True)
            split[NAME] = Captions(of_classes(self._template, places.tolist(), [*map(str, labels.tolist())]))
        elif self.store.captions is not None:
            split[NAME] = ShardTexts(self.store, shards)
        return split


class ShardPasses:
    """An order in passes over groups of `shards_at_once` shards, one group after another, with mixed samples.

    The groups and the order within a group are keyed by seed and pass, so that they depend on the position alone.
    """

    def __init__(self, counts: Sequence[int], shards_at_once: int, seed: int):
        self.counts, self.shards_at_once, self.seed = torch.tensor(counts), shards_at_once, seed
        self.num_items = int(self.counts.sum())
        self._latest_pass: tuple[int, list[torch.Tensor], torch.Tensor] = (-1, [], torch.empty(0))
        self._latest_group: tuple[tuple[int, int], torch.Tensor] = ((-1, -1), torch.empty(0))

    def __call__(self, positions: Sequence[int]) -> torch.Tensor:
        return torch.stack([self._item(*divmod(position, self.num_items)) for position in positions])

    def _item(self, number: int, place: int) -> torch.Tensor:
        groups, ends = self._groups(number)
        group = int(torch.searchsorted(ends, place, right=True))
        items = self._items(number, group, groups[group])
        return items[place - (int(ends[group]) - len(items))]

    def _groups(self, number: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The shards of each group of a pass, and the position in the pass where each group ends."""
        if self._latest_pass[0] != number:
            order = torch.randperm(len(self.counts), generator=self._generator("shards", number))
            groups = list(order.split(self.shards_at_once))
            ends = torch.stack([self.counts[group].sum() for group in groups]).cumsum(0)
            self._latest_pass = number, groups, ends
        return self._latest_pass[1:]

    def _items(self, number: int, group: int, shards: torch.Tensor) -> torch.Tensor:
        """The items of these shards in mixed order."""
        if self._latest_group[0] != (number, group):
            ends = self.counts.cumsum(0)
            items = torch.cat([torch.arange(int(ends[s] - self.counts[s]), int(ends[s])) for s in shards])
            mixed = torch.randperm(len(items), generator=self._generator("samples", number, group))
            self._latest_group = (number, group), items[mixed]
        return self._latest_group[1]

    def _generator(self, purpose: str, number: int, *place: int) -> torch.Generator:
        key = int(Generators.from_positions(self.seed, [number]).at(purpose, *place).keys[0])
        return torch.Generator().manual_seed(key)
