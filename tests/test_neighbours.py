"""Metrics of nearest neighbours against independent libraries and by hand."""

import numpy as np
import pytest
import torch
from observed import clouds, value
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from torch import Tensor
from torch_fidelity.metric_prc import prc_features_to_metric

from inkdrop.metrics import DensityCoverage, NearestNeighbours, PrecisionRecall, pairwise
from inkdrop.metrics.neighbours import ball_radii, density_coverage, nearest, precision_recall
from inkdrop.metrics.pairwise import evenly, squared_distances


def neighbouring(count: int, other: int) -> tuple[Tensor, Tensor]:
    """Clouds that cover each other in part."""
    return torch.randn(count, 4), 1.4 * torch.randn(other, 4) + 0.5


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall_equal_torch_fidelitys(neighbours: int) -> None:
    x, real = neighbouring(150, 90)
    options = {"prc_neighborhood": neighbours, "prc_batch_size": 40, "save_cpu_ram": True, "verbose": False}
    theirs = prc_features_to_metric(x.double(), real.double(), **options)
    ours = value(PrecisionRecall(neighbours), x, real)
    assert ours["precision_scores"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall_scores"] == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0.1 < ours["recall_scores"] < ours["precision_scores"] < 1


@pytest.mark.parametrize("neighbours", [1, 5])
def test_density_and_coverage_equal_those_of_the_authors(neighbours: int) -> None:
    x, real = neighbouring(150, 90)
    theirs = compute_prdc(real.double().numpy(), x.double().numpy(), neighbours)
    ours = value(DensityCoverage(neighbours), x, real)
    assert ours["density_scores"] == pytest.approx(theirs["density"], rel=1e-6)
    assert ours["coverage_scores"] == pytest.approx(theirs["coverage"], rel=1e-6)
    assert 0.1 < ours["coverage_scores"] < 1


@pytest.mark.parametrize("block", [1, 130, 2**22])
def test_distances_do_not_depend_on_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "BLOCK", block)
    x, y = clouds(50, 70, 8)
    blocks = list(squared_distances(x, y))
    assert len(blocks) == {1: 50, 130: 50, 2**22: 1}[block]
    direct = cdist(x.double(), y.double())
    assert np.allclose(torch.cat(blocks).sqrt(), direct, rtol=1e-10)
    assert np.allclose(nearest(x, y), direct.min(1), rtol=1e-12)
    own = np.sort(cdist(x.double(), x.double()), 1)
    assert np.allclose(ball_radii(x, 4), own[:, 4], rtol=1e-6)


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    x, y = torch.randn(20, 3).double(), torch.randn(30, 3).double()
    far = torch.cat(list(squared_distances(x + 1e6, y + 1e6))).sqrt()
    assert np.allclose(far, cdist(x, y), atol=1e-8)


def test_neighbours_on_a_line_by_hand() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0]])  # radii to the nearest 1, 1, 2
    x = torch.tensor([[0.9], [2.0], [5.0], [9.0]])  # radii 1.1, 1.1, 3, 4
    assert ball_radii(real, 1).tolist() == [1, 1, 2]
    # 0.9 in the balls of 0 and 1; 2 on the edge of that of 1 and inside that of 3; 5 on the edge of that of 3
    assert precision_recall(x, real, 1) == (3 / 4, 3 / 3)
    density, coverage = density_coverage(x, real, 1)
    assert density == 3 / 4
    assert coverage == 1
    assert density_coverage(torch.tensor([[2.0]]), real, 1) == (1, 1 / 3)  # on the edge of 1, inside 3, outside 0
    assert nearest(x, real).tolist() == pytest.approx([0.1, 1, 2, 6], rel=1e-6)


def test_copies_of_the_reference_are_all_within_it_and_no_denser() -> None:
    """Every distance occurs twice there, so that any rounding would show."""
    real = 7 + torch.randn(200, 16)
    for neighbours in (1, 3, 5):
        assert precision_recall(real.clone(), real, neighbours) == (1, 1)
        assert density_coverage(real[torch.randperm(200)], real, neighbours) == (1, 1)
    assert nearest(real[:7], real).eq(0).all()


def test_copies_are_told_from_new_items() -> None:
    real, held_out, new = torch.randn(3, 1000, 3)
    copied = real[:1000].clone()
    copied[500:] = new[500:]
    metric = NearestNeighbours(quantile=0.05)
    own, half, same = (value(metric, each, real, held_out) for each in (held_out, copied, new))
    assert own["copies_scores"] == pytest.approx(0.05, abs=1e-3)
    assert same["copies_scores"] == pytest.approx(0.05, abs=0.03)
    assert half["copies_scores"] == pytest.approx(0.525, abs=0.02)
    assert half["nearest_scores"] == pytest.approx(0.5 * same["nearest_scores"], rel=0.1)


def test_reference_items_are_left_out_evenly() -> None:
    items = torch.arange(10.0)[:, None]
    assert evenly(items, 5).flatten().tolist() == [0, 2, 4, 6, 8]
    assert evenly(items, 4).flatten().tolist() == [0, 2, 5, 7]
    assert evenly(items, None) is items
    x, real = neighbouring(60, 120)
    for kind in (PrecisionRecall, DensityCoverage):
        assert value(kind(max_items=40), x, real) == value(kind(), x, real[::3])


def test_fewer_items_than_neighbours_are_refused_in_words() -> None:
    x, real = neighbouring(60, 3)
    for kind in (PrecisionRecall, DensityCoverage):
        with pytest.raises(ValueError, match="neighbours=3 must be at most 2 for 3 items"):
            value(kind(3), x, real)
    assert PrecisionRecall(5).fewest(None) == 6  # type: ignore[arg-type]
