"""Likelihoods as train.py, sample.py and several processes measure them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from entry_scripts import completed
from runs import TINY, sampled, trained

import inkdrop
from inkdrop.data import Digits
from inkdrop.likelihood import Likelihood, ODELikelihood, VariationalBound
from inkdrop.metrics import Evaluation, Identity
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

BOUND = ["likelihood=variational", "likelihood.bound.num_steps=5", "evaluation.num_items=9"]
PARTS = {f"bits_per_dim_bound_9{part}" for part in ("", "_prior", "_diffusion", "_decoder")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that measured no likelihood."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    trained(folder)
    return folder


@pytest.mark.slow
def test_training_measures_the_bound_and_sampling_measures_it_again(tmp_path: Path) -> None:
    metrics = trained(tmp_path / "run", *BOUND)["metrics"]
    assert set(metrics) >= PARTS
    parts = [metrics[f"bits_per_dim_bound_9_{part}"] for part in ("prior", "diffusion", "decoder")]
    assert metrics["bits_per_dim_bound_9"] == pytest.approx(sum(parts), rel=1e-9)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1].keys() & PARTS
    _, again = sampled(tmp_path / "run", tmp_path / "s", "num_samples=9", "evaluate=true", "time_grid.num_steps=2")
    assert again["metrics"]["bits_per_dim_bound_9"] == pytest.approx(metrics["bits_per_dim_bound_9"], rel=1e-4)


@pytest.mark.slow
def test_a_run_trained_without_one_can_be_measured(folder: Path, tmp_path: Path) -> None:
    assert not any("bits" in name for name in json.loads((folder / "result.json").read_text())["metrics"])
    options = ["num_samples=9", "evaluate=true", "time_grid.num_steps=2"]
    _, result = sampled(folder, tmp_path / "b", *options, "likelihood=variational", "likelihood.bound.num_steps=5")
    assert set(result["metrics"]) >= PARTS
    assert result["network_calls"] == 2
    _, result = sampled(folder, tmp_path / "o", *options, "likelihood=ode", "likelihood.ode.rtol=1e-3")
    items = torch.arange(9)
    batch = {name: column[items] for name, column in digits().splits["validation"].items()}
    generators = Generators.from_positions(0, range(9)).at("likelihood")
    ode = ODELikelihood(rtol=1e-3)(inkdrop.load(folder), batch, generators)
    expected = ode["dequantized"].mean().item()
    assert result["metrics"]["bits_per_dim_ode_9_dequantized"] == pytest.approx(expected, rel=1e-3)
    assert result["metrics"]["bits_per_dim_ode_9_network_calls"] == ode["network_calls"][0]


def test_the_loss_by_noise_level_is_measured_on_held_out_items(folder: Path, tmp_path: Path) -> None:
    options = ["num_samples=9", "evaluate=true", "time_grid.num_steps=2", "likelihood=noise_levels"]
    _, result = sampled(folder, tmp_path / "s", *options, "likelihood.by_t.num_bins=2")
    names = ["loss_by_t_9", "loss_by_t_9_0.00-0.50", "loss_by_t_9_0.50-1.00"]
    whole, *parts = (result["metrics"][name] for name in names)
    assert whole == pytest.approx(sum(parts) / 2)
    assert 0 < parts[0] != parts[1] > 0
    record = result["protocol"]["likelihoods"]
    assert set(record) == set(names)
    assert record[names[0]].items() >= {"likelihood": "LossByNoiseLevel", "num_bins": 2, "num_items": 9}.items()


def test_bits_under_unlike_options_or_of_other_items_have_another_hash(folder: Path) -> None:
    pipeline, data = inkdrop.load(folder), digits()

    def record(count: int = 3, likelihood: Likelihood | None = None, **options: Any) -> dict[str, Any]:
        chosen = {"bound": likelihood or VariationalBound(3)}
        evaluation = Evaluation(Identity(64), {}, likelihood=chosen, **options)
        evaluation.likelihoods(pipeline, data, count)
        return next(iter(evaluation.protocol(data, {"seed": 0})["likelihoods"].values()))

    first = record()
    assert record(num_samples=100, repeats=2, balance="classes", batch_size=2) == first  # of samples, or of no account
    unlike = [record(2), record(seed=1), record(likelihood=VariationalBound(4)), record(likelihood=ODELikelihood())]
    assert len({first["hash"], *(each["hash"] for each in unlike)}) == 5
    data.splits["validation"]["x"][0] += 1
    del data.__dict__["fingerprint"]
    assert record()["hash"] != first["hash"]


def digits() -> Digits:
    return Digits([1, 8, 8], 10, 128)


def test_shares_of_several_ranks_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four ranks in turn, the last without an item."""
    pipeline, shares = inkdrop.load(folder), []
    evaluation = Evaluation(Identity(64), {}, batch_size=2, likelihood={"bound": VariationalBound(3)})
    whole = evaluation.likelihoods(pipeline, digits(), 3)

    def gather(out: list[Any], own: Any) -> None:
        shares.append(own)
        out[: len(shares)] = shares

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    monkeypatch.setattr("inkdrop.distributed.ranks.from_all_ranks", lambda value: [value])
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        together = evaluation.likelihoods(pipeline, digits(), 3)
    assert shares[3] == {}
    assert together == pytest.approx(whole, rel=1e-6)
    assert set(whole) == {name.replace("9", "3") for name in PARTS}


@pytest.mark.slow
def test_two_devices_measure_what_one_does(folder: Path, tmp_path: Path) -> None:
    options = ["num_samples=3", "evaluate=true", "likelihood=variational", "likelihood.bound.num_steps=3"]
    _, one = sampled(folder, tmp_path / "one", *options)
    done = completed(
        "sample.py", f"checkpoint={folder}", *options, "trainer.devices=2", f"output_dir={tmp_path / 'two'}"
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    for name in ("bits_per_dim_bound_3", "fd_digits_3"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-4)


def test_what_cannot_be_measured_is_refused_before_anything_exists(folder: Path, tmp_path: Path) -> None:
    options = ["schedule=vp", "time_sampler=uniform", "likelihood=variational", f"output_dir={tmp_path / 'out'}"]
    done = completed("train.py", *TINY, "logger=none", *options)
    assert done.returncode == 2
    assert "set likelihood.bound.num_steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    done = completed("sample.py", f"checkpoint={folder}", "likelihood=ode", f"output_dir={tmp_path / 's'}")
    assert done.returncode == 2
    assert "evaluate=true" in done.stderr
    data = digits()
    with pytest.raises(ValueError, match="num_items=351"):
        Evaluation(Identity(64), {}, likelihood={}).likelihoods(Pipeline.__new__(Pipeline), data, 351)
