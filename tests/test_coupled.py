"""Flows between two distributions: the source, pairs in groups, and the exact distance of what is sampled."""

from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from inkdrop.codecs import Unchanged
from inkdrop.data import CoupledPoints
from inkdrop.data.toys import moons_in_order
from inkdrop.losses import assignment, independent, minibatch_ot
from inkdrop.losses.coupling import Coupling
from inkdrop.metrics.wasserstein import exact_squared_wasserstein, squared_wasserstein
from inkdrop.networks import ResidualPerceptron
from inkdrop.noises import Modes, Paired
from inkdrop.randomness import Generators


def points(coupling: Coupling = independent, seed: int = 0, first: int = 0) -> CoupledPoints:
    data = CoupledPoints(moons_in_order, Modes(), 64, 640, 50, [2], 0, 16, coupling, seed)
    data.num_samples_seen = first
    return data


def batches(data: CoupledPoints, count: int) -> list[dict[str, Tensor]]:
    batches = iter(data.train_dataloader())
    return [next(batches) for _ in range(count)]


def test_modes_have_their_means_and_deviations_one_by_one_and_from_one_stream() -> None:
    noise = Modes(num_modes=4, radius=5.0, std=0.5)
    for eps in (noise([2], Generators.from_seeds(range(8000))), noise.points(8000, torch.Generator().manual_seed(0))):
        for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
            mode = eps[sign * eps[:, axis] > 2.5]
            expected = torch.zeros(2)
            expected[axis] = 5 * sign
            assert torch.allclose(mode.mean(0), expected, atol=0.06)
            assert torch.allclose(mode.T.cov(), 0.25 * torch.eye(2), atol=0.03)
            assert len(mode) == pytest.approx(2000, abs=160)  # four standard deviations
    with pytest.raises(ValueError, match=r"noise=modes has points in the plane, but x has the shape \[3\]"):
        noise([3], Generators.from_seeds([0]))


def test_pairs_have_a_law_of_their_own_for_sampling() -> None:
    generators = Generators.from_seeds(range(5))
    noise = Paired(law=Modes())
    assert torch.equal(noise([2], generators), Modes()([2], generators))
    assert not noise.standard
    given = torch.rand(5, 2)
    assert torch.equal(noise.within({"x": given, "eps": given})([2], generators), given)


def test_without_a_coupling_each_batch_is_the_next_part_of_the_moons() -> None:
    first, second, third, fourth, again = (each["x"] for each in batches(points(), 5))
    assert first[:, 1].min() > -1.01
    assert first[:, 0].min() > second[:, 0].max() - 0.7  # from the right end of the upper moon to its left end
    assert third[:, 0].max() < fourth[:, 0].min() + 0.7
    assert torch.allclose(first, again, atol=0.61)  # at the same angles, with other noise
    assert not torch.equal(first, again)


def test_a_coupling_pairs_a_group_at_the_least_cost_and_leaves_the_noise_as_it_was_drawn() -> None:
    free, coupled = (batches(points(each), 4) for each in (independent, minibatch_ot))
    assert torch.equal(*(torch.cat([each["eps"] for each in some]) for some in (free, coupled)))
    x, y, eps = (
        torch.cat([each[name] for each in some]) for some, name in ((free, "x"), (coupled, "x"), (free, "eps"))
    )
    assert sorted(x.tolist()) == sorted(y.tolist())
    cost = torch.cdist(x.double(), eps.double()).square()
    rows, columns = linear_sum_assignment(cost.numpy())
    assert float((y - eps).square().sum()) == pytest.approx(float(cost[rows, columns].sum()), rel=1e-5)


def test_points_depend_on_the_seed_and_the_position_alone() -> None:
    whole = batches(points(), 8)
    later = batches(points(first=6 * 16), 2)
    assert all(
        torch.equal(a["x"], b["x"]) and torch.equal(a["eps"], b["eps"]) for a, b in zip(whole[6:], later, strict=True)
    )
    assert not torch.equal(whole[0]["x"], batches(points(seed=1), 1)[0]["x"])
    one, other = points(), points(seed=1)
    assert torch.equal(one.splits["test"]["x"][torch.arange(50)], other.splits["test"]["x"][torch.arange(50)])
    assert one.fingerprint == other.fingerprint != points(minibatch_ot).fingerprint


def test_a_group_that_does_not_divide_the_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.num_points=100 is not a multiple of data\.group=64"):
        CoupledPoints(moons_in_order, Modes(), 64, 100, 50, [2], 0, 16)


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_the_exact_distance_is_that_of_sorted_numbers_and_of_scipy(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With and without the dual solution of a part of the points."""
    monkeypatch.setattr(assignment, "FEWEST", 100)
    monkeypatch.setattr(assignment, "APART", share)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(150, 1, generator=generator), 3 * torch.rand(150, 1, generator=generator)
    expected = float(squared_wasserstein(x.double().T, y.double().T))
    assert exact_squared_wasserstein(x, y) == pytest.approx(expected, rel=1e-6)  # whose widths are float32
    x, y = torch.randn(150, 3, generator=generator), torch.randn(150, 3, generator=generator) * 0.1 + 1
    cost = torch.cdist(x.double(), y.double()).square().numpy()
    rows, columns = linear_sum_assignment(cost)
    assert exact_squared_wasserstein(x, y) == pytest.approx(cost[rows, columns].mean(), rel=1e-9)
    assert exact_squared_wasserstein(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="equally many points, not 150 and 149"):
        exact_squared_wasserstein(x, y[1:])


def test_the_network_has_the_published_number_of_weights_and_depends_on_the_time_linearly() -> None:
    network = ResidualPerceptron([2], width=128, num_blocks=3)
    assert sum(each.numel() for each in network.parameters()) == 396_034  # as the published code prints it
    small = ResidualPerceptron([2], width=4, num_blocks=1)
    x, t = torch.randn(3, 2), torch.rand(3)
    hidden = small.input(x) + small.time((1 - t)[:, None])
    block = small.blocks[0].layers
    expected = small.output(hidden + block[2](torch.nn.functional.gelu(block[0](hidden))))
    assert torch.allclose(small(x, 1000 * t), expected, atol=1e-6)


def test_data_that_are_not_changed_are_x() -> None:
    codec, data = Unchanged(), torch.randn(4, 2)
    assert torch.equal(codec.encode({"x": data}), data)
    assert torch.equal(codec.decode(data), data)
    expected = torch.distributions.Normal(0.5, 2.0).log_prob(data)
    assert torch.allclose(codec.log_probability(data, torch.full((4, 2), 0.5), 2.0).float(), expected)
    assert torch.equal(codec.dequantize(data, Generators.from_seeds(range(4)))[0], data)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_an_assignment_is_that_of_scipy_for_sets_that_are_alike_and_for_others(shift: float) -> None:
    x, y = torch.randn(2, 1200, 2, generator=torch.Generator().manual_seed(0)).double()
    cost = torch.cdist(x, y * (1 + shift)).square()
    assert assignment.assigned(cost).tolist() == linear_sum_assignment(cost.numpy())[1].tolist()
    assert (assignment._reduced(cost) is cost) == (shift == 0)
