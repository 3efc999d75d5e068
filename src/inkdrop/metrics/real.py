"""What metrics use of real data, computed once and stored on disk, and samples of a trivial generator."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.data.module import DataModule
from inkdrop.distributed.ranks import from_all_ranks, place, raised_together, share
from inkdrop.errors import UnreadableError
from inkdrop.files.locations import cache_dir
from inkdrop.files.tensors import read_torch
from inkdrop.files.texts import is_text
from inkdrop.files.writing import replacing
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Collector, Extracted
from inkdrop.metrics.moments import Statistics
from inkdrop.metrics.texts import independent_words
from inkdrop.randomness import Generators

_TRIVIAL_FROM = 10_000  # largest number of items to which the trivial generator is fitted


def real(
    extractor: Extractor, data: DataModule, split: str, count: int, needs: frozenset[str], batch_size: int
) -> Extracted:
    """Returns what metrics use of the first `count` items of a split, computed by all ranks and stored on disk.

    - `extractor`: the extractor of the features.
    - `data`, `split`: the items.
    - `count`: number of items.
    - `needs`: fields of `Extracted` that are filled.
    - `batch_size`: items at a time.

    The name of the file is a hash of the fingerprint of the data, the split, the count, the needs and the weights of
    the extractor, on which alone the result depends.
    """
    facts = {"data": data.fingerprint, "split": split, "count": count, "extractor": extractor.digest()}
    key = hashlib.sha256(json.dumps({**facts, "needs": sorted(needs)}, sort_keys=True).encode()).hexdigest()
    file = cache_dir() / "extracted" / f"{key}.pt"
    items = data.splits[split]
    kept = _read(file, items)
    if all(from_all_ranks(kept is not None)) and kept is not None:  # else all ranks compute it together
        return kept
    result = extracted(extractor, items, count, needs, batch_size, f"{split} items")
    if place()[0] == 0:
        _store(file, result)
    return result


def extracted(
    extractor: Extractor, items: Split, count: int, needs: frozenset[str], batch_size: int, what: str
) -> Extracted:
    """Returns what metrics use of the first `count` items, of which each rank processes a share.

    The arguments are those of `real`, with `items` that every rank has and `what` as their name in errors.
    """
    collector = Collector(extractor, needs, count)
    with raised_together():
        for positions in share(count, batch_size) if needs - {"items"} else ():
            collector.update(items["x"][positions], positions, what, positions.tolist())
    return collector.compute(items)


def trivial_items(data: DataModule, split: str, conditions: Split, count: int, batch_size: int) -> Split:
    """Returns `count` items of a trivial generator, which draws each element of the data independently.

    Every value is normal with the mean and the deviation of its element over the split (over 10,000 evenly spread items
    where there are more), and is rounded where the data are whole numbers. Texts have independent words.

    - `data`, `split`: the items to which the generator is fitted.
    - `conditions`: fields that are added to the items.
    - `count`: number of items.
    - `batch_size`: items at a time.
    """
    x = data.splits[split]["x"]
    if is_text(x[torch.arange(1)]):
        parts = (x[items] for items in torch.arange(len(x)).split(batch_size))
        return {"x": independent_words(parts, count, x.shape[1]), **conditions}
    sums: list[Tensor] = []
    chosen = torch.linspace(0, len(x) - 1, min(len(x), _TRIVIAL_FROM)).long()
    for items in chosen.split(batch_size):
        part = x[items].double()
        sums.append(torch.stack([part.sum(0), part.square().sum(0)]))
    mean, square = torch.stack(sums).sum(0) / len(chosen)
    deviation = (square - mean.square()).clamp(min=0).sqrt()
    values = mean + deviation * Generators.from_positions(0, range(count)).at("trivial").normal(mean.shape)
    return {"x": (values.round().clamp(0, 255) if x.dtype == torch.uint8 else values).to(x.dtype), **conditions}


def _read(file: Path, items: Split) -> Extracted | None:
    try:
        kept = read_torch(file)
        statistics = Statistics(*kept["statistics"]) if kept["statistics"] else None
        return Extracted(kept["count"], items, statistics, kept["features"], kept["class_sums"])
    except (IndexError, KeyError, TypeError, UnreadableError):  # missing, or damaged and computed again
        return None


def _store(file: Path, result: Extracted) -> None:
    statistics = list(result.statistics) if result.statistics else None
    content = {"count": result.count, "features": result.features, "class_sums": result.class_sums}
    with contextlib.suppress(OSError, RuntimeError):  # a cache that cannot be written must not end a run
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            torch.save({**content, "statistics": statistics}, stream)
