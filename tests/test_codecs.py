"""Raw data to x and back."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest
import torch
from torch import Tensor

from inkdrop.codecs import Binary, Codec, Pixels, Standardize
from inkdrop.randomness import Generators

CPU = torch.device("cpu")
UNLIKE = torch.tensor([1e-3, 20.0, 8e4])[:, None]  # units of three channels


class Data:
    """Items in batches of the size that a codec asks for."""

    def __init__(self, x: Tensor):
        self.x, self.sizes = x, list[int]()

    def __call__(self, size: int, names: Collection[str] | None = None, /) -> Iterator[dict[str, Tensor]]:
        self.sizes.append(size)
        yield from ({"x": part} for part in self.x.split(size))


def fitted(codec: Codec, data: Tensor) -> Codec:
    codec.fit(Data(data), CPU)
    return codec


def test_all_levels_of_a_pixel_survive() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = Pixels().encode({"x": levels})
    assert (x.min(), x.max()) == (-1, 1) == Pixels.range
    assert torch.equal(Pixels().decode(x), levels)
    assert torch.equal(Pixels().decode(x + 0.9 / 255), levels)  # to the nearest level
    assert Pixels().decode(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]


def test_what_is_reconstructed_has_a_gradient_and_the_unit_of_the_data() -> None:
    x = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3).requires_grad_()
    levels = Pixels().reconstruct(x)
    levels.sum().backward()
    assert torch.allclose(levels.flatten().detach(), torch.linspace(0, 255, 9), atol=1e-3)
    assert x.grad is not None
    assert x.grad.unique().tolist() == [127.5]
    codec = fitted(Standardize(), torch.tensor([[1.0], [5.0]]))
    assert codec.reconstruct(torch.tensor([[-1.0], [0.0], [2.0]])).tolist() == [[1.0], [3.0], [7.0]]


def test_binary_pixels_are_on_with_the_probability_of_their_level() -> None:
    levels = torch.tensor([0, 51, 127, 128, 255], dtype=torch.uint8).reshape(1, 1, 1, 5)
    assert Binary().encode({"x": levels}).flatten().tolist() == [-1, -1, -1, 1, 1]
    drawn = Binary().encode({"x": levels.repeat(4000, 1, 1, 1)}, Generators.from_seeds(range(4000)))
    assert drawn.unique().tolist() == [-1, 1]
    share = (drawn > 0).float().mean(0).flatten()
    assert torch.allclose(share, levels.flatten() / 255.0, atol=0.03)
    assert share[[0, 4]].tolist() == [0, 1]
    assert Binary().decode(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="codec=binary encodes images of 8 bits"):
        Binary().check(torch.zeros(1, 3))


@pytest.mark.parametrize("shape", [(2,), (3, 20), (3, 4, 4)])
@pytest.mark.parametrize("channels", [False, True])
def test_standardized_data_have_mean_0_and_deviation_1_and_come_back(shape: tuple[int, ...], channels: bool) -> None:
    data = 5 + 3 * torch.randn(9000, *shape)
    codec = fitted(Standardize(shape[0] if channels else None), data)
    x = codec.encode({"x": data})
    each = x.transpose(0, 1).flatten(1) if channels else x.reshape(1, -1)
    assert each.mean(1).abs().max() < 1e-5
    assert each.std(1, correction=0).tolist() == pytest.approx([1] * len(each), rel=1e-4)
    assert torch.allclose(codec.decode(x), data, atol=1e-5)
    fresh = Standardize(shape[0] if channels else None)
    fresh.load_state_dict(codec.state_dict())
    assert torch.equal(fresh.encode({"x": data}), x)


def test_channels_of_unlike_units_each_keep_their_own_scale() -> None:
    """With one mean for all, a temperature of 21 beside a pressure of 80,000 is lost in rounding."""
    data = UNLIKE * (3 + torch.randn(5000, 3, 10))
    codec = fitted(Standardize(3), data)
    assert codec.encode({"x": data}).std((0, 2)).tolist() == pytest.approx([1, 1, 1], rel=1e-3)
    back = codec.decode(codec.encode({"x": data}))
    assert ((back - data).abs().amax((0, 2)) < 1e-5 * UNLIKE[:, 0]).all()
    density = codec.log_probability(data, torch.zeros_like(data), 1.0)
    exact = torch.distributions.Normal(3 * UNLIKE, UNLIKE).log_prob(data)
    assert density.sum((1, 2)).mean().item() == pytest.approx(exact.sum((1, 2)).mean().item(), rel=1e-3)
    _, log_volume = codec.dequantize(data, None)  # type: ignore[arg-type]
    assert log_volume.flatten().tolist() == pytest.approx((-UNLIKE.log()).flatten().tolist(), abs=0.02)


def test_data_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="vary"):
        fitted(Standardize(), torch.ones(5, 2))
    with pytest.raises(ValueError, match="channel 1 of the training data does not vary"):
        fitted(Standardize(2), torch.stack([torch.randn(50), torch.ones(50)], 1))


@pytest.mark.parametrize(
    "data",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.int16),
        torch.zeros(2, 3, 8, 8, dtype=torch.bool),
        torch.zeros(2, 3, 100, dtype=torch.uint8),
    ],
    ids=["floats", "16 bits", "booleans", "series"],
)
def test_pixels_hold_images_of_8_bits_alone(data: Tensor) -> None:
    with pytest.raises(ValueError, match=r"codec=pixels encodes images of 8 bits.*: set codec=standardize"):
        Pixels().check(data)
    Pixels().check(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))


def test_a_codec_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codec\.channels=3, but samples have the shape \[2, 5\]"):
        Standardize(3).check(torch.zeros(1, 2, 5))
    Standardize(2).check(torch.zeros(1, 2, 5))
    Standardize().check(torch.zeros(1, 2, 5))
