"""Forecasts of series: windows, codecs with a history, recurrent states, rollouts and their scores."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from series_parts import CHANNELS, STEPS, histories, rollout
from torch import Tensor

from inkdrop.codecs import Codec, Increments, MeanScaled
from inkdrop.data import ExchangeRate, LowRank, SeriesTable, VectorAutoregression
from inkdrop.data.degradations import FutureMask, GapMask
from inkdrop.data.loaders import Split
from inkdrop.data.windows import Windows
from inkdrop.errors import DataError
from inkdrop.metrics import CRPS, EnergyScore, NoFeatures, NormalizedDeviation, SummedCRPS
from inkdrop.metrics.forecasts import Forecast
from inkdrop.metrics.metric import Extracted
from inkdrop.networks import MLP, Dilated, Stepwise
from inkdrop.pictures import Series, fans
from inkdrop.randomness import Generators


class Counting(Windows):
    """Series of which channel c has the value 100 c + k at step k, with gaps."""

    def __init__(self, steps: int, gaps: tuple[int, ...] = (), **options: Any):
        super().__init__(num_classes=0, batch_size=4, **options)
        self.steps, self.gaps = steps, gaps

    def values(self) -> Tensor:
        series = 100.0 * torch.arange(2) + torch.arange(float(self.steps))[:, None]
        series[list(self.gaps), 1] = torch.nan
        return series


def test_windows_follow_the_published_protocol() -> None:
    data = Counting(40, shape=[2, 3], history=5, num_windows=2, train_steps=20)
    train, held = data.splits["train"], data.splits["validation"]
    first = {name: column[torch.tensor([0, 12])] for name, column in train.items()}
    assert len(train["x"]) == 20 - 8 + 1
    assert first["history"][0, 0].tolist() == [0, 1, 2, 3, 4]
    assert first["x"][0, 1].tolist() == [105, 106, 107]
    assert first["x"][1, 0].tolist() == [17, 18, 19]  # the last training step is number 19
    both = held["x"][torch.arange(2)]
    assert both[:, 0].tolist() == [[20, 21, 22], [23, 24, 25]]
    assert held["history"][torch.arange(2)][1, 0].tolist() == [18, 19, 20, 21, 22]


def test_the_forecast_is_the_end_of_a_longer_window() -> None:
    data = Counting(40, shape=[2, 7], history=2, num_windows=2, train_steps=20, horizon=3)
    assert data.splits["validation"]["x"][torch.arange(2)][:, 0, -3:].tolist() == [[20, 21, 22], [23, 24, 25]]


def test_windows_with_missing_numbers_are_left_out_of_training_and_refused_where_held_out() -> None:
    data = Counting(40, (10,), shape=[2, 3], history=5, num_windows=2, train_steps=20)
    starts = data.splits["train"]["history"][torch.arange(len(data.splits["train"]["x"]))][:, 0, 0].tolist()
    assert starts == [0, 1, 2, 11, 12]  # those of steps 3 to 10 contain step 10
    with pytest.raises(DataError, match="held-out window 1 or its history"):
        _ = Counting(40, (24,), shape=[2, 3], history=1 + 1, num_windows=2, train_steps=20).splits
    with pytest.raises(DataError, match="the series have 24 steps"):
        _ = Counting(24, shape=[2, 3], history=5, num_windows=2, train_steps=20).splits


def test_the_fingerprint_of_windows_changes_with_the_series_and_with_their_places() -> None:
    options = {"shape": [2, 3], "history": 5, "num_windows": 2}
    prints = [
        Counting(40, train_steps=20, **options).fingerprint,
        Counting(41, train_steps=20, **options).fingerprint,
        Counting(40, train_steps=21, **options).fingerprint,
    ]
    assert len(set(prints)) == 3
    assert Counting(40, train_steps=20, **options).fingerprint == prints[0]


@pytest.mark.parametrize("codec", [Increments(CHANNELS), MeanScaled(CHANNELS), Increments(CHANNELS, 4)])
def test_a_codec_of_series_returns_what_it_encodes(codec: Codec) -> None:
    batch = {**histories(4), "x": 3 + torch.randn(4, CHANNELS, STEPS).cumsum(-1)}
    x = codec.encode(batch)
    assert torch.allclose(codec.decode(x, batch), batch["x"], atol=1e-5)
    larger = {name: 1000 * values for name, values in batch.items()}
    assert torch.allclose(codec.encode(larger), x, rtol=1e-4, atol=1e-4), "x has no unit"


def test_increments_are_those_of_the_history_in_the_unit_of_its_own() -> None:
    history = torch.tensor([[[0.0, 2, 0, 2]]])
    batch = {"history": history, "x": torch.tensor([[[3.0, 3, -1]]])}
    assert Increments(1).encode(batch).tolist() == [[[0.5, 0, -2]]]
    assert MeanScaled(1).encode(batch).tolist() == [[[3.0, 3, -1]]]


def test_a_channel_that_stood_still_has_a_tenth_of_the_typical_scale() -> None:
    codec = Increments(1)
    batch = {"history": torch.zeros(2, 1, 4), "x": torch.tensor([[[3.0, 6]], [[3.0, 0]]])}
    codec.fit(lambda size, names=None: [batch], torch.device("cpu"))
    assert torch.allclose(codec.encode(batch), torch.tensor([[[10.0, 10]], [[10, -10]]]))


def test_codecs_of_series_refuse_other_data() -> None:
    with pytest.raises(ValueError, match="for series"):
        Increments(3).check(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="2 channels"):
        MeanScaled(3).check(torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="no history"):
        Increments(3).encode({"x": torch.zeros(1, 3, 8)})


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_state_step_by_step_is_that_of_training(cell: str) -> None:
    """What training sees beside step k, having read the data, is what sampling sees that has drawn the same data."""
    pipeline = rollout(cell=cell)
    batch = {**histories(4), "x": 5 + torch.randn(4, CHANNELS, STEPS).cumsum(-1)}
    conditioner: Any = pipeline.conditioner
    with torch.no_grad():
        forced, x = conditioner(batch)["concat"], pipeline.codec.encode(batch)
        cond, state = conditioner.start({"history": batch["history"]})
        for step in range(STEPS):
            assert torch.allclose(cond["concat"][..., 0], forced[..., step], atol=1e-6), step
            cond, state = conditioner.advance(state, x[..., step : step + 1])
    assert (forced[..., 1:] - forced[..., :-1]).abs().amax((1, 2)).min() > 1e-3
    later = {**batch, "x": torch.cat([batch["x"][..., :3], batch["x"][..., 3:] + 1], -1)}
    with torch.no_grad():
        changed = conditioner(later)["concat"]
    assert torch.equal(changed[..., :4], forced[..., :4]), "the state beside a step knows nothing of the step"
    assert not torch.allclose(changed[..., 4], forced[..., 4])


def test_a_rollout_needs_a_state_and_takes_no_constraint_and_no_start() -> None:
    from inkdrop.conditioners import Unconditional
    from inkdrop.constraints import Replacement

    pipeline = rollout()
    pipeline.check()
    batch = histories(1)
    with pytest.raises(ValueError, match="step by step"):
        pipeline.conditioner(batch)
    with pytest.raises(ValueError, match="from noise alone"):
        pipeline(batch, [0], data=torch.zeros(1, CHANNELS, STEPS))
    with pytest.raises(ValueError, match="the history has 3 steps"):
        pipeline({"history": batch["history"][..., :3]}, [0])
    with pytest.raises(ValueError, match=r"condition\.history=FILE"):
        pipeline.request([0])
    pipeline.constraint = Replacement()
    with pytest.raises(ValueError, match="no constraint"):
        pipeline.check()
    pipeline.constraint, pipeline.conditioner = None, Unconditional()
    with pytest.raises(ValueError, match="conditioner=recurrent"):
        pipeline.check()


def test_a_sample_of_a_rollout_is_the_same_alone_and_in_a_batch() -> None:
    pipeline, batch = rollout(), histories(5)
    together = pipeline(batch, range(10, 15))
    for number in range(5):
        alone = pipeline({"history": batch["history"][number : number + 1]}, [10 + number])
        assert torch.allclose(alone[0], together[number], atol=1e-5), number
    longer = pipeline.draw(batch, Generators.from_seeds(range(10, 15)), shape=[CHANNELS, 2 * STEPS])
    assert torch.allclose(longer[..., :STEPS], together, atol=1e-5), "a longer forecast begins like a shorter one"


def test_steps_of_a_rollout_are_independent_under_one_seed() -> None:
    """With a network that says 0, x of each step is noise: correlations are within 3 standard errors of 0."""
    pipeline = rollout()
    for parameter in pipeline.denoiser.parameters():
        torch.nn.init.zeros_(parameter)
    history = {"history": histories(1)["history"].expand(2000, -1, -1)}
    x = pipeline.codec.encode({**history, "x": pipeline(history, range(2000))})
    steps = (x - x.mean(0)) / x.std(0)
    across = (steps[..., :-1] * steps[..., 1:]).mean(0)
    assert across.abs().max() < 4 / 2000**0.5  # the largest of 15
    assert abs(float(across.mean())) < 3 / (2000 * across.numel()) ** 0.5
    assert (steps[..., 0] - steps[..., 1]).abs().mean() > 1


def test_a_network_of_steps_is_that_of_vectors_at_each_step() -> None:
    torch.manual_seed(0)
    inner = Dilated([4], width=4, depth=3, vector_dim=5)
    for parameter in inner.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, now, cond = torch.randn(2, 4, 3), torch.tensor([1.0, 7.0]), torch.randn(2, 5, 3)
    with torch.no_grad():
        whole = Stepwise(inner)(x, now, concat=cond)
        for step in range(3):
            assert torch.allclose(inner(x[..., step], now, vector=cond[..., step]), whole[..., step], atol=1e-6)
        assert not torch.allclose(Stepwise(inner)(x, now + 5, concat=cond), whole, atol=1e-3)
        assert not torch.allclose(Stepwise(inner)(x, now, concat=cond + 1), whole, atol=1e-3)
    with pytest.raises(ValueError, match="lower it"):
        Dilated([2], cycle=3)
    assert not Stepwise(MLP([4], 8, 1))(x, now).any(), "0 at first"


def windows(count: int, samples: int, channels: int = 3, steps: int = 6) -> tuple[Tensor, Tensor]:
    """Truths (count, C, T) and forecasts (count, K, C, T) around them, skewed."""
    generator = torch.Generator().manual_seed(2)
    truth = 4 + torch.randn(count, channels, steps, generator=generator, dtype=torch.float64).cumsum(-1)
    spread = torch.randn(count, samples, channels, steps, generator=generator, dtype=torch.float64)
    return truth, truth[:, None] + 0.3 + spread.exp() - 1


def value(metric: Forecast, truth: Tensor, samples: Tensor) -> float:
    """The value of a metric as an evaluation computes it: sample i belongs to window i modulo their number."""
    count, each = samples.shape[:2]
    items: Split = {"x": samples.transpose(0, 1).flatten(0, 1)}
    unused: Any = None
    (result,) = metric(Extracted(count * each, items), unused, Extracted(count, {"x": truth}), unused).values()
    return result


def test_scores_are_those_of_gluonts() -> None:
    pd = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluation = pytest.importorskip("gluonts.evaluation")
        forecast = pytest.importorskip("gluonts.model.forecast")
        truth, samples = windows(4, 50)
        start = pd.Period("2020-01-01", freq="D")
        index = pd.period_range(start, periods=6, freq="D")
        forecasts = [forecast.SampleForecast(each.transpose(1, 2).numpy(), start) for each in samples]
        series = [pd.DataFrame(each.T.numpy(), index=index) for each in truth]
        evaluator = evaluation.MultivariateEvaluator(
            quantiles=(np.arange(20) / 20)[1:], target_agg_funcs={"sum": np.sum}, num_workers=0
        )
        theirs, _ = evaluator(iter(series), iter(forecasts))
    assert value(SummedCRPS(), truth, samples) == pytest.approx(theirs["m_sum_mean_wQuantileLoss"], rel=1e-9)
    assert value(NormalizedDeviation(), truth, samples) == pytest.approx(theirs["ND"], rel=1e-9)


def test_scores_are_those_of_scoringrules() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    truth, samples = windows(4, 50)
    crps = scoringrules.crps_ensemble(truth.numpy(), samples.permute(0, 2, 3, 1).numpy(), estimator="nrg")
    energy = scoringrules.es_ensemble(truth.transpose(1, 2).numpy(), samples.permute(0, 3, 1, 2).numpy())
    assert value(CRPS(), truth, samples) == pytest.approx(float(crps.mean()), rel=1e-9)
    assert value(EnergyScore(), truth, samples) == pytest.approx(float(energy.mean()), rel=1e-6)


def test_the_crps_of_a_normal_law_is_its_closed_form() -> None:
    """CRPS of N(0, 1) at y = 0 is 2 phi(0) - 1 / sqrt(pi); Gneiting and Raftery 2007, equation 21."""
    samples = torch.randn(1, 200_000, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = 2 / (2 * np.pi) ** 0.5 - 1 / np.pi**0.5
    assert value(CRPS(), torch.zeros(1, 1, 1, dtype=torch.float64), samples) == pytest.approx(exact, abs=2e-3)


def test_only_the_horizon_counts() -> None:
    truth, samples = windows(2, 10)
    for metric in (SummedCRPS, CRPS, NormalizedDeviation, EnergyScore):
        short = value(metric(), truth[..., -2:], samples[..., -2:])
        assert value(metric(horizon=2), truth, samples) == pytest.approx(short, rel=1e-12)


def test_baselines_stand_still_and_walk_like_the_history() -> None:
    history = histories(1)["history"].expand(4000, -1, -1)
    items = {"history": history, "x": torch.zeros(4000, CHANNELS, STEPS)}
    made = CRPS().baselines(items, Generators.from_positions(0, range(4000)))
    assert torch.equal(made["persistence"], history[..., -1:].expand(-1, -1, STEPS))
    moves = torch.cat([history[..., -1:], made["random_walk"]], -1).diff(dim=-1).double()
    own = history[0].double().diff(dim=-1)
    expected = own @ own.T / own.shape[1]
    assert torch.allclose(torch.einsum("bit,bjt->ij", moves, moves) / (4000 * STEPS), expected, atol=0.06)
    assert not CRPS().baselines({"x": items["x"]}, Generators.from_positions(0, range(4000)))


def test_the_known_law_is_a_vector_autoregression() -> None:
    history = torch.tensor([[[0.0, 1.0], [0.0, 2.0]]]).expand(3, -1, -1)
    transition, shock = torch.tensor([[0.5, 0.1], [0.0, 0.5]]), torch.zeros(2, 2)
    items = {"history": history, "x": torch.zeros(3, 2, 2), "transition": transition.expand(3, 2, 2)}
    made = CRPS().baselines({**items, "shock": shock.expand(3, 2, 2)}, Generators.from_positions(0, range(3)))
    assert torch.allclose(made["known_law"][0], torch.tensor([[0.7, 0.45], [1.0, 0.5]]))


def table(tmp_path: Path, text: str, **options: Any) -> SeriesTable:
    (tmp_path / "series.csv").write_text(text)
    settings = {"shape": [2, 2], "num_classes": 0, "batch_size": 4, "history": 2, "num_windows": 1, **options}
    return SeriesTable(str(tmp_path / "series.csv"), **settings)


ROWS = [f"2024-01-{day:02d},{day},{10 * day},note" for day in range(1, 11)]


def test_a_table_is_read_by_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(["day,b,a,remark", *ROWS])
    series = table(tmp_path, text, columns=["a", "b"], time="day").values()
    assert series.tolist() == [[10 * day, day] for day in range(1, 11)]
    assert torch.equal(table(tmp_path, text).values(), series.flip(1))
    np.savez(tmp_path / "series.npz", x=series.numpy())
    arrays = SeriesTable(str(tmp_path / "series.npz"), [1, 2], 0, 4, 2, 1, columns=[1])
    assert torch.equal(arrays.values(), series[:, 1:])
    assert not capsys.readouterr().err


def test_gaps_of_a_table_are_counted_and_do_not_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*ROWS[:3], *ROWS[4:]]
    rows[4] = "2024-01-06,,60,note"
    data = table(tmp_path, "\n".join(["day,b,a,remark", *rows]), time="day", history=2, train_steps=8)
    series = data.values()
    assert series.isnan().any(1).nonzero().flatten().tolist() == [3, 5]
    said = capsys.readouterr().err
    assert "1 steps are left out in 1 gaps, the first after 2024-01-03" in said
    assert "2 of 10 steps have missing numbers" in said
    with pytest.raises(DataError, match="every training window"):
        data.load()
    business = "\n".join(["day,a,b", "2024-01-04,1,2", "2024-01-05,2,3", "2024-01-08,3,4", "2024-01-10,3,4"])
    days = table(tmp_path, business, time="day", frequency="B").values()[:, 0]
    assert days[:3].tolist() == [1, 2, 3]
    assert days[3].isnan()
    assert len(days) == 5


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("day,a,b\n1,2,3\n2,3,4\n", {"columns": ["c"]}, "has no column c"),
        ("day,a,b\nx,2,3\ny,3,4\n", {"time": "day"}, "write times as"),
        ("day,a,b\n2024-01-02,2,3\n2024-01-01,3,4\n", {"time": "day", "frequency": "1D"}, "does not follow"),
        ("day,a,b\n2024-01-02,2,3\n2024-01-02,3,4\n", {"time": "day"}, "do not grow"),
        ("day,a,b\n2024-01-01,2,3\n2024-01-01T05,3,4\n", {"time": "day", "frequency": "2h"}, "lies between"),
        ("day,a,b\n2024-01-01,2,3\n2024-01-02,3,4\n", {"time": "day", "frequency": "often"}, "must be B, or a number"),
        ("day,a,b\nx,2,3\ny,3,4\n", {"columns": ["day", "a"]}, "column day has no numbers"),
        ("a,b\n1,2\n2,3\n", {"shape": [3, 2]}, "the series have 2 channels"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        table(tmp_path, text, **options).load()


def test_missing_files_of_series_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set data\.path"):
        SeriesTable(str(tmp_path / "none.csv"), [2, 2], 0, 4, 2, 1).verify()
    with pytest.raises(DataError, match=r"exchange_rate\.txt\.gz is missing: set data\.root or INKDROP_DATA_DIR"):
        ExchangeRate([8, 30], 0, 4, 251, 5, root=str(tmp_path)).verify()


def test_the_autoregression_has_the_moments_of_its_law() -> None:
    data = VectorAutoregression([3, 4], 0, 4, 4, 2, num_steps=20_000)
    series, (transition, shock) = data.values().double(), data.law()
    assert torch.allclose(torch.linalg.eigvals(transition).abs(), torch.full((3,), 0.9).double())
    left = series[1:] - series[:-1] @ transition.T
    assert torch.allclose(left.T @ left / len(left), shock @ shock.T, atol=0.05)
    assert (left[1:].T @ left[:-1] / len(left)).abs().max() < 0.05
    held = data.splits["validation"]
    assert torch.allclose(held["transition"][torch.tensor([1])][0].double(), transition)


def test_the_known_law_scores_best_on_its_own_series() -> None:
    """CRPS of 50 draws of the law on 200 windows: below that of a walk, which is below that of standing still."""
    data = VectorAutoregression([3, 8], 0, 4, 40, 200, num_steps=4000)
    held = {name: column[torch.arange(200)] for name, column in data.splits["validation"].items()}
    items = {name: each.repeat(50, *[1] * (each.dim() - 1)) for name, each in held.items()}
    made = CRPS().baselines(items, Generators.from_positions(0, range(10_000)))
    truth = held["x"].double()
    crps = {name: value(CRPS(), truth, x.double().unflatten(0, (50, 200)).transpose(0, 1)) for name, x in made.items()}
    assert crps["known_law"] < crps["random_walk"] < crps["persistence"]


def test_series_of_low_rank_follow_few_factors() -> None:
    series = LowRank([50, 4], 0, 4, 4, 2, num_steps=3000, rank=3, noise=0.1).values().double()
    values = torch.linalg.svdvals(series - series.mean(0)) / 3000**0.5
    assert values[2] > 5
    assert values[3] == pytest.approx(0.1, rel=0.2)
    assert 5 < series.mean(0).min() < 7


def test_a_fan_shows_each_window_once_with_its_quantiles() -> None:
    history = torch.arange(2.0).reshape(2, 1, 1).expand(2, 1, 5).repeat(11, 1, 1)
    data = torch.arange(11.0).repeat_interleave(2).reshape(22, 1, 1).expand(22, 1, 3) + history[..., :1]
    batch = {"history": history, "truth": data}
    first, second = fans.fans(data, batch)
    assert (first.first, second.first, second.number) == (0, 1, 11)
    assert first.quantiles[:, 0, 0].tolist() == pytest.approx([0.5, 2.5, 5, 7.5, 9.5])
    assert second.quantiles[2, 0].tolist() == [6, 6, 6]
    names, lines = fans.table(data, batch, range(100, 122))
    rows = list(lines)
    assert len(rows) == 2 * 3
    assert dict(zip(names, rows[3], strict=True)) == {
        "window": 1,
        "seed": 101,
        "samples": 11,
        "step": 0,
        "channel": 0,
        "truth": 1,
        **{f"quantile_{q}": value for q, value in zip(fans.QUANTILES, (1.5, 3.5, 6, 8.5, 10.5), strict=True)},
    }


@pytest.mark.slow
def test_the_picture_of_forecasts_shows_what_was_drawn(tmp_path: Path) -> None:
    view, batch = Series(), {"history": torch.randn(4, 2, 6)}
    data = torch.randn(4, 2, 3)
    picture = view.sheet(data, batch)
    assert not np.array_equal(picture, view.sheet(data + 1, batch))
    assert not np.array_equal(picture, view.sheet(data, {**batch, "truth": data}))
    frames = view.frames([data, data + 1], batch)
    assert frames[0].shape == frames[1].shape
    assert not np.array_equal(*frames)
    view.write(tmp_path, data, batch, range(4))
    assert sorted(file.name for file in tmp_path.iterdir()) == view.files(data, batch, range(4))[::-1]


def test_masks_of_steps_hide_the_future_or_a_gap() -> None:
    fields, streams = {"x": torch.zeros(200, 3, 12)}, Generators.from_positions(0, range(200))
    assert FutureMask(4)(fields, streams)[7].tolist() == [[1] * 8 + [0] * 4]
    gaps = GapMask(0.25, 0.5)(fields, streams)[:, 0]
    hidden = (gaps == 0).sum(1)
    assert set(hidden.tolist()) == {3, 4, 5, 6}
    assert bool(gaps[:, [0, -1]].all())
    assert bool(((gaps[:, 1:] != gaps[:, :-1]).sum(1) == 2).all()), "one run of steps"
    with pytest.raises(ValueError, match="hides all 12 steps"):
        FutureMask(12)(fields, streams)
    with pytest.raises(ValueError, match="hides steps of series"):
        GapMask()({"x": torch.zeros(200, 1, 8, 8)}, streams)


def test_only_hidden_steps_count_and_lines_fill_them() -> None:
    truth, samples = windows(2, 10)
    mask = torch.ones(2, 1, 6, dtype=torch.uint8)
    mask[0, 0, 2:4], mask[1, 0, 1:2] = 0, 0
    items: Any = {"x": samples.transpose(0, 1).flatten(0, 1)}
    unused: Any = None
    result = CRPS(mask_field="mask")(Extracted(20, items), unused, Extracted(2, {"x": truth, "mask": mask}), unused)
    both = [(truth[:1, :, 2:4], samples[:1, ..., 2:4], 6), (truth[1:, :, 1:2], samples[1:, ..., 1:2], 3)]
    expected = sum(count * value(CRPS(), *pair) for *pair, count in both) / 9
    assert result["crps"] == pytest.approx(expected, rel=1e-12)
    line = torch.arange(6.0).expand(2, 3, 6).clone()
    broken = torch.where(mask > 0, line, torch.tensor(99.0))
    made = CRPS(mask_field="mask").baselines({"x": broken, "mask": mask}, Generators.from_positions(0, range(2)))
    assert torch.allclose(made["interpolation"], line)
    with pytest.raises(ValueError, match="mask_field=known"):
        CRPS(mask_field="known").check({"x": truth.float()}, {}, NoFeatures())


def test_baselines_of_a_longer_window_start_where_the_forecast_does() -> None:
    history = histories(3)["history"]
    items = {"history": history[..., :8], "x": history[..., 8:]}
    made = CRPS(horizon=2).baselines(items, Generators.from_positions(0, range(3)))
    assert torch.equal(made["persistence"], torch.cat([history[..., 8:10], history[..., 9:10].expand(-1, -1, 2)], -1))
    assert torch.equal(made["random_walk"][..., :2], history[..., 8:10])
