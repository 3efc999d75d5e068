"""Raw data to x and back."""

import pytest
import torch

from inkdrop.codecs import Pixels, Standardize


def test_all_levels_of_a_pixel_survive() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = Pixels().encode(levels)
    assert (x.min(), x.max()) == (-1, 1)
    assert torch.equal(Pixels().decode(x), levels)
    assert torch.equal(Pixels().decode(x + 0.9 / 255), levels)  # to the nearest level
    assert Pixels().decode(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]


def test_standardized_data_have_mean_0_and_deviation_1_and_come_back() -> None:
    data = 5 + 3 * torch.randn(1000, 2)
    codec = Standardize()
    codec.fit(data.split(300))
    x = codec.encode(data)
    assert x.mean().abs() < 1e-5
    assert x.std().item() == pytest.approx(1, rel=1e-3)
    assert torch.allclose(codec.decode(x), data, atol=1e-5)
    fresh = Standardize()
    fresh.load_state_dict(codec.state_dict())
    assert torch.equal(fresh.encode(data), x)


def test_data_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="vary"):
        Standardize().fit([torch.ones(5, 2)])
