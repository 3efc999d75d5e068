"""Keyed randomness: purity, independence, no collisions."""

import numpy as np
import pytest
import torch
from scipy import stats

from inkdrop.randomness import Generators


def test_numbers_depend_on_the_key_alone() -> None:
    whole = Generators.from_seeds(range(8)).at("noise", 3)
    some = Generators.from_seeds([5, 2]).at("noise", 3)
    assert torch.equal(whole.normal((2, 3))[[5, 2]], some.normal((2, 3)))
    assert torch.equal(whole.uniform()[[5, 2]], some.uniform())
    assert torch.equal(some.normal((2, 3)), some.normal((2, 3)))


def test_streams_of_other_purposes_and_positions_differ() -> None:
    seeds = Generators.from_seeds(range(4))
    streams = [seeds, seeds.at("a"), seeds.at("b"), seeds.at("a", 0), seeds.at("a", 1), seeds.at("a", 1, 0)]
    draws = torch.stack([stream.normal((1000,)) for stream in streams]).flatten(0, 1)
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.15  # 5 standard deviations of independent streams


def test_keys_are_pinned() -> None:
    """A changed key would silently change every run and every sample."""
    assert Generators.from_seeds([0, 7]).at("noise", 3).keys.tolist() == [2107120055, 4026139158]
    assert Generators.from_positions(0, [5, 2**40 + 5]).keys.tolist() == [3423425485, 3423425485]
    assert Generators.from_positions(1, [0, 2**40]).keys.tolist() == [2462723854, 2462723854]


@pytest.mark.slow
def test_no_two_seeds_and_no_two_positions_share_a_key() -> None:
    many = 300_000  # of 2**32; random keys would collide about ten times
    assert len(np.unique(Generators.from_seeds(range(many)).at("x", 1, 2).keys)) == many
    assert len(np.unique(Generators.from_positions(3, range(many)).at("x").keys)) == many


@pytest.mark.slow
def test_runs_of_other_seeds_share_no_stream() -> None:
    """Not even in another order: the noises of a batch under one seed are not those of a batch under another."""
    many, seeds = 2**14, range(20)
    keys = [Generators.from_positions(seed, range(many)).at("train").keys for seed in seeds]
    assert len(np.unique(np.concatenate(keys))) == many * len(seeds)


def test_laws() -> None:
    generators = Generators.from_seeds(range(20_000)).at("law")
    assert stats.kstest(generators.uniform().numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(generators.normal((1,)).flatten().numpy(), "norm").pvalue > 0.01


def test_the_first_copy_of_a_sample_is_the_sample() -> None:
    generators = Generators.from_seeds([4, 9])
    repeated = generators.repeat(3)
    assert repeated.keys[[0, 3]].tolist() == generators.keys.tolist()
    assert len(set(repeated.keys.tolist())) == 6


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=str(seed)):
        Generators.from_seeds([0, seed])
