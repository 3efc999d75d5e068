"""The laws of eps."""

import torch

from inkdrop.noises import Gaussian, Offset
from inkdrop.randomness import Generators

GENERATORS = Generators.from_seeds(range(20_000))


def test_offset_noise_has_a_common_part_in_each_channel() -> None:
    """Covariance I + strength^2 within a channel, 0 between channels."""
    eps = Offset(0.5)([2, 2, 1], GENERATORS).flatten(1).double()
    covariance = eps.T.cov()
    within = torch.eye(2).double() + 0.25
    expected = torch.block_diag(within, within)
    assert torch.allclose(covariance, expected, atol=0.04)
    assert eps.mean(0).abs().max() < 0.03


def test_offset_of_strength_0_is_gaussian() -> None:
    assert torch.equal(Offset(0.0)([3, 2], GENERATORS), Gaussian()([3, 2], GENERATORS))
