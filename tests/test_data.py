"""Data sets and the keyed order of their loaders."""

import itertools
import multiprocessing

import pytest
import torch

from inkdrop.data import Digits, Toy
from inkdrop.data.loaders import OrderedLoader, ShuffledLoader, ShuffledPasses
from inkdrop.data.toys import checkerboard, moons, ring

SPLIT = {"x": torch.arange(10)[:, None], "label": torch.arange(10)}


def stream(batches: int, **options: int) -> tuple[list[int], list[int]]:
    """Items and positions of so many batches."""
    drawn = list(itertools.islice(ShuffledLoader(SPLIT, **options), batches))  # type: ignore[arg-type]
    return (
        [item for batch in drawn for item in batch["label"].tolist()],
        [position for batch in drawn for position in batch["position"].tolist()],
    )


def test_every_pass_visits_every_item_once_in_another_order() -> None:
    items, positions = stream(15, batch_size=4, seed=0)
    passes = [items[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert len({tuple(each) for each in passes}) == 6
    assert positions == list(range(60))


def test_the_order_depends_on_the_seed_and_not_on_the_batch_size() -> None:
    assert stream(15, batch_size=4, seed=0)[0] == stream(30, batch_size=2, seed=0)[0]
    assert stream(15, batch_size=4, seed=0)[0] != stream(15, batch_size=4, seed=1)[0]


def test_a_batch_may_be_larger_than_the_data() -> None:
    items, _ = stream(1, batch_size=25, seed=0)
    assert sorted(items[:10]) == sorted(items[10:20]) == list(range(10))


def test_ranks_together_see_what_one_process_sees() -> None:
    whole, _ = stream(5, batch_size=4, seed=3)
    ranks = [stream(5, batch_size=4, seed=3, rank=rank, world_size=2)[0] for rank in (0, 1)]
    together = [item for i in range(0, 10, 2) for rank in ranks for item in rank[i : i + 2]]
    assert together == whole
    with pytest.raises(ValueError, match="3 devices"):
        ShuffledLoader(SPLIT, 4, 0, 0, 3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_where_another_one_was_stopped(num_workers: int) -> None:
    whole = stream(9, batch_size=4, seed=0)
    for batch_size, batches in ((4, 3), (6, 2), (3, 4)):
        rest = stream(batches, batch_size=batch_size, seed=0, first=24, num_workers=num_workers)
        assert rest == tuple(values[24:] for values in whole)


def test_ordered_loader_covers_each_item_once_over_all_ranks() -> None:
    seen = [b["label"].tolist() for rank in (0, 1) for b in OrderedLoader(SPLIT, 2, rank, 2)]
    assert seen == [[0, 2], [4, 6], [8], [1, 3], [5, 7], [9]]


def test_each_rank_has_a_batch_to_validate_or_is_refused() -> None:
    for count in range(1, 8):
        split = {"x": torch.arange(count)[:, None]}
        for world_size in range(1, count + 1):
            loaders = [OrderedLoader(split, 2, rank, world_size) for rank in range(world_size)]
            seen = [batch["position"].tolist() for loader in loaders for batch in loader]
            assert sorted(itertools.chain(*seen)) == list(range(count))
            assert all(seen)
            assert min(map(len, loaders)) > 0
        for rank in range(count + 1):
            with pytest.raises(
                ValueError, match=f"{count} held-out items are too few for {count + 1} devices.* hold out more"
            ):
                OrderedLoader(split, 2, rank, count + 1)


def test_digits_are_split_by_class_without_overlap() -> None:
    from sklearn.datasets import load_digits

    splits = Digits([1, 8, 8], 10, 128).splits
    assert {name: len(split["x"]) for name, split in splits.items()} == {
        "train": 1097,
        "validation": 350,
        "extractor": 350,
    }
    for name in ("validation", "extractor"):
        assert splits[name]["label"].bincount().tolist() == [35] * 10
    ours = torch.cat([torch.cat([s["x"].flatten(1), s["label"][:, None]], 1) for s in splits.values()]).tolist()
    digits = load_digits()
    theirs = [[round(v * 255 / 16) for v in row] + [int(t)] for row, t in zip(digits.data, digits.target, strict=True)]
    assert sorted(ours) == sorted(theirs)


def test_the_split_is_pinned() -> None:
    """Another split would change every figure."""
    assert Digits([1, 8, 8], 10, 1).fingerprint.startswith("0e0ec4ac415f6858")


def test_fingerprint_follows_the_content() -> None:
    first, second = Toy(moons, 50, [2], 0, 10), Toy(moons, 50, [2], 0, 20)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != Toy(ring, 50, [2], 0, 10).fingerprint


def test_stated_facts_are_compared_with_the_data() -> None:
    with pytest.raises(ValueError, match=r"data.shape=\[1, 9, 9\]"):
        _ = Digits([1, 9, 9], 10, 4).splits
    with pytest.raises(ValueError, match="num_classes=9"):
        _ = Digits([1, 8, 8], 9, 4).splits


def test_toys_lie_where_they_should() -> None:
    def draw(make: object) -> torch.Tensor:
        return make(4000, torch.Generator().manual_seed(0))  # type: ignore[operator]

    x, y = draw(checkerboard).T
    assert ((x.floor() + y.floor()) % 2 == 0).all()
    assert x.abs().max() <= 2
    assert y.abs().max() <= 2
    radius = draw(ring).norm(dim=1)
    assert abs(radius.mean() - 2) < 0.02
    upper, lower = (draw(moons) - torch.tensor(center) for center in ([0.0, 0.0], [1.0, 0.5]))
    distance = torch.minimum((upper.norm(dim=1) - 1).abs(), (lower.norm(dim=1) - 1).abs())
    assert distance.max() < 0.25


def test_workers_begin_with_the_first_batch_and_end_with_their_loader() -> None:
    before = set(multiprocessing.active_children())
    loader = ShuffledLoader(SPLIT, 4, 0, num_workers=1)
    batches = iter(loader)
    assert not set(multiprocessing.active_children()) - before
    _ = next(batches)
    assert set(multiprocessing.active_children()) - before
    del loader, batches
    assert not set(multiprocessing.active_children()) - before  # without waiting for the garbage collector


def test_positions_of_several_passes_are_found_in_any_order() -> None:
    order = ShuffledPasses(50, 3)
    whole = order(range(400)).reshape(8, 50)
    assert all(sorted(each.tolist()) == list(range(50)) for each in whole)
    assert len({tuple(each.tolist()) for each in whole}) == 8
    wanted = [399, 0, 51, 50, 0, 120, 399]
    assert order(wanted).tolist() == whole.flatten()[wanted].tolist()
    assert ShuffledPasses(50, 3)([77]).tolist() == whole.flatten()[77:78].tolist()
