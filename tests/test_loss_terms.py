"""What a loss knows of a batch: which elements and samples count, further terms, and the progress of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import SCHEDULES
from lightning.pytorch import Callback
from small_tasks import fit, records, small_task
from torch import Tensor, nn

from inkdrop.data.toys import Toy, moons
from inkdrop.denoiser import Estimate, NetworkDenoiser
from inkdrop.deviations import small
from inkdrop.losses import DenoisingLoss, Example, HybridLoss, LearnedUncertainty, LossTerms, Term, VariationalLoss
from inkdrop.losses.denoising import Attempt
from inkdrop.noises import Noise
from inkdrop.predictions import DataPrediction, NoisePrediction
from inkdrop.randomness import Generators, same_dropout
from inkdrop.time_samplers import DiscreteUniform, Uniform
from inkdrop.weightings import Unit


class Elementwise(nn.Module):
    """No element sees another."""

    num_calls = 0

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.num_calls += 1
        return torch.tanh(x) + 0.3


class Distance(Term):
    """`|estimate - x_0|`, the mean over the elements that count."""

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        return example.mean((estimate.x_0 - example.x_0).abs())


class Drawn(Term):
    """A random number for each sample, and the shift that a field of the batch asks for."""

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        return generators.uniform().to(attempt.F) + example.batch["shift"]


def denoiser(schedule: str = "linear_beta") -> NetworkDenoiser:
    return NetworkDenoiser(Elementwise(), SCHEDULES[schedule], DataPrediction())


def plain(**options: Any) -> DenoisingLoss:
    return DenoisingLoss(DiscreteUniform(), Unit(), **options)


LOSSES = {
    "denoising": plain(),
    "uncertainty": LearnedUncertainty(plain()),
    "variational": VariationalLoss(plain(), small, 256),
    "hybrid": HybridLoss(VariationalLoss(plain(), small, None), 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_elements_of_weight_zero_leave_no_trace(name: str) -> None:
    """A sample of 5 elements within 8 has the loss of the 5 alone, whatever fills the others."""
    generators, model = Generators.from_seeds(range(6)), denoiser()
    alone = torch.rand(6, 5).double() * 2 - 1
    t = torch.tensor([0.001, 0.002, 0.1, 0.4, 0.7, 1.0]).double()  # the first is the decoder's
    padded = torch.cat([alone, torch.full((6, 3), 0.9)], 1)
    eps = model.noise([8], generators.at("noise"), torch.float64)

    class Given(Noise):
        standard = True

        def __call__(self, shape: Any, generators: Generators, dtype: Any = None) -> Tensor:
            return eps[:, : next(iter(shape))]

    model.noise = Given()
    weight = (torch.arange(8) < 5).double().expand(6, 8)
    expected = LOSSES[name](model, Example(alone), generators, t).loss
    assert torch.allclose(LOSSES[name](model, Example(padded, weight=weight), generators, t).loss, expected, rtol=1e-12)
    assert not torch.allclose(LOSSES[name](model, Example(padded), generators, t).loss, expected, rtol=1e-3)


def test_a_broadcast_weight_and_fractions_give_the_weighted_mean() -> None:
    example = Example(torch.zeros(2, 3, 4), weight=torch.tensor([[0.5], [1.0], [0.0]])[None].expand(2, 3, 1))
    values = torch.arange(24.0).reshape(2, 3, 4)
    expected = (0.5 * values[:, 0].mean(1) + values[:, 1].mean(1)) / 1.5
    assert torch.allclose(example.mean(values), expected)
    assert torch.equal(Example(torch.zeros(2, 3, 4), weight=torch.zeros(2, 3, 4)).mean(values), torch.zeros(2))


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_is_over_the_samples_that_count(name: str) -> None:
    generators, x_0 = Generators.from_seeds(range(4)), torch.rand(4, 3) * 2 - 1
    each = LOSSES[name](denoiser(), Example(x_0), generators).loss
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0])
    weighted = LOSSES[name](denoiser(), Example(x_0, weight=weight), generators).loss
    assert weighted.mean().item() == pytest.approx(((each[0] + 2 * each[2]) / 3).item(), rel=1e-5)
    assert torch.equal(LOSSES[name](denoiser(), Example(x_0, weight=0 * weight), generators).loss, torch.zeros(4))


@pytest.mark.parametrize("name", LOSSES)
def test_further_terms_share_the_call_of_the_network(name: str) -> None:
    terms = {"distance": Distance(0.5), "drawn": Drawn(2.0)}
    made = {
        "denoising": plain(terms=terms),
        "uncertainty": LearnedUncertainty(plain(terms=terms)),
        "variational": VariationalLoss(plain(terms=terms), small, 256),
        "hybrid": HybridLoss(VariationalLoss(plain(terms=terms), small, None), 0.1),
    }[name]
    model, generators = denoiser(), Generators.from_seeds(range(5))
    batch = {"shift": torch.arange(5.0)}
    example = Example(torch.rand(5, 3) * 2 - 1, batch=batch)
    t = torch.linspace(0.1, 0.9, 5).double()
    both, alone = made(model, example, generators, t), LOSSES[name](denoiser(), example, generators, t)
    assert model.network.num_calls == 1
    assert made.logged == ("distance", "drawn")
    assert torch.allclose(both.loss, alone.loss + 0.5 * both.parts["distance"] + 2 * both.parts["drawn"])
    assert torch.equal(both.parts["error"], alone.parts["error"])
    attempt = plain().attempt(model, example, generators, t)
    expected = (model(attempt.x_t, attempt.now, {}).x_0 - example.x_0).abs().mean(1)
    assert torch.allclose(both.parts["distance"], expected)
    again = made(model, example._replace(x_0=-example.x_0), generators, t)
    assert torch.equal(both.parts["drawn"], again.parts["drawn"])
    assert len((both.parts["drawn"] - batch["shift"]).unique()) == 5


def test_a_term_may_not_take_the_name_of_a_part() -> None:
    with pytest.raises(ValueError, match=r"loss\.terms\.error"):
        plain(terms={"error": Distance()})


def test_terms_are_trained_and_logged_by_name(tmp_path: Path) -> None:
    class Offset(Term):
        def __init__(self) -> None:
            super().__init__(0.1)
            self.offset = nn.Parameter(torch.ones(()))

        def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
            assert set(example.batch) == {"x", "position"}
            assert example.codec is task.pipeline.codec
            return (estimate.x_0.mean(1) - self.offset).square()

    task = small_task()
    offset = Offset()
    task.loss = DenoisingLoss(Uniform(), Unit(), terms={"offset": offset, "distance": Distance()})
    fit(task, 4, [], tmp_path, val_check_interval=4)
    assert offset.offset != 1
    for name in ("train/offset", "train/distance", "validation/offset", "validation/distance"):
        assert records(tmp_path, name), name
    (loss,), (error, extra) = (
        [records(tmp_path, f"validation/{name}")[-1][1] for name in names]
        for names in (["loss"], ["offset", "distance"])
    )
    assert loss > 0.1 * error + extra


class Watching(DenoisingLoss):
    """Keeps the progress that it receives."""

    def __init__(self) -> None:
        super().__init__(Uniform(), Unit())
        self.seen: dict[bool, list[float]] = {True: [], False: []}

    def forward(self, model: Any, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
        assert example.progress is not None
        self.seen[t is None] += example.progress.tolist()
        return super().forward(model, example, generators, t)


def test_a_loss_knows_the_progress_of_the_run_without_state(tmp_path: Path) -> None:
    """Position over the total of 6 steps of 2 batches of 8, also after a run was interrupted behind the third."""
    whole, first, rest = Watching(), Watching(), Watching()
    options: dict[str, Any] = {"accumulate_grad_batches": 2, "val_check_interval": 6}
    for loss, checkpoint in ((whole, None), (first, None), (rest, tmp_path / "half.ckpt")):
        task = small_task()
        task.loss = loss
        callbacks: list[Callback] = [_Stop()] if loss is first else []
        trainer = fit(task, 6, callbacks, tmp_path, 8, checkpoint, Toy(moons, 64, [2], 0, 8), **options)
        if loss is first:
            trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert whole.seen[True] == pytest.approx([number / 96 for number in range(96)])
    assert first.seen[True] + rest.seen[True] == whole.seen[True]
    assert set(whole.seen[False]) == {0.5, 1.0}


class _Stop(Callback):
    """Ends a run behind its third step."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 3


def test_two_calls_drop_the_same_elements_where_a_loss_asks_for_it() -> None:
    dropout, generators, x = nn.Dropout(0.5), Generators.from_seeds([4, 5]).at("train"), torch.ones(2, 50)
    same_dropout(generators)
    first, other = dropout(x), dropout(x)
    same_dropout(generators)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, other)
    same_dropout(Generators.from_seeds([6, 5]).at("train"))
    assert not torch.equal(dropout(x), first)


def test_a_step_of_training_begins_with_the_dropout_of_its_generators() -> None:
    class Twice(DenoisingLoss):
        def forward(self, model: Any, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
            x = torch.ones(8)
            first = nn.functional.dropout(x)
            same_dropout(generators)
            assert torch.equal(nn.functional.dropout(x), first)
            return super().forward(model, example, generators, t)

    task = small_task()
    task.loss = Twice(Uniform(), Unit())
    task.log = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    task.training_step({"x": torch.randn(4, 2), "position": torch.arange(4)}, 0)


def test_the_task_takes_weights_from_a_field_of_the_data() -> None:
    task = small_task()
    batch = {"x": torch.randn(4, 2), "position": torch.arange(4), "counts": torch.tensor([1.0, 1.0, 0.0, 0.0])}
    generators = Generators.from_positions(0, range(4))
    each = task.terms(batch, generators).loss
    task.weight = "counts"
    assert task.terms(batch, generators).loss.mean().item() == pytest.approx(each[:2].mean().item())
    batch["counts"] = torch.ones(4, 2, 1)
    with pytest.raises(ValueError, match=r"task\.weight=counts has the shape \[4, 2, 1\]"):
        task.terms(batch, generators)
    task.weight = "mask"
    with pytest.raises(
        ValueError, match=r"task\.weight=mask is not a field of the data: available: x, position, counts"
    ):
        task.terms(batch, generators)


def test_weights_and_the_law_of_the_times_multiply() -> None:
    """A time sampler that draws a time twice as often halves its loss; a weight of the sample still counts in full."""

    class Often(Uniform):
        def __call__(self, schedule: Any, generators: Generators) -> Any:
            times = super().__call__(schedule, generators)
            return times._replace(importance=torch.tensor([0.5, 2.0]).double())

    example = Example(torch.ones(2, 3), weight=torch.tensor([3.0, 1.0]))
    model = NetworkDenoiser(Elementwise(), SCHEDULES["vp"], NoisePrediction())
    terms = DenoisingLoss(Often(), Unit())(model, example, Generators.from_seeds([0, 1]))
    expected = torch.tensor([0.5 * 1.5, 2.0 * 0.5]) * terms.parts["error"]
    assert torch.allclose(terms.loss, expected)
