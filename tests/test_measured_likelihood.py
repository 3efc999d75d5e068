"""Likelihoods as train.py, sample.py and several processes measure them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_end_to_end import TINY, sampled, script, trained

import inkdrop
from inkdrop.data import Digits
from inkdrop.likelihood import ODELikelihood, VariationalBound
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


def test_training_measures_the_bound_and_sampling_measures_it_again(tmp_path: Path) -> None:
    metrics = trained(tmp_path / "run", *BOUND)["metrics"]
    assert set(metrics) >= PARTS
    parts = [metrics[f"bits_per_dim_bound_9_{part}"] for part in ("prior", "diffusion", "decoder")]
    assert metrics["bits_per_dim_bound_9"] == pytest.approx(sum(parts), rel=1e-9)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1].keys() & PARTS
    _, again = sampled(tmp_path / "run", tmp_path / "s", "num_samples=9", "evaluate=true", "time_grid.num_steps=2")
    assert again["metrics"]["bits_per_dim_bound_9"] == pytest.approx(metrics["bits_per_dim_bound_9"], rel=1e-4)


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
    monkeypatch.setattr("inkdrop.finiteness.from_all_ranks", lambda value: [value])
    for rank in range(4):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        together = evaluation.likelihoods(pipeline, digits(), 3)
    assert shares[3] == {}
    assert together == pytest.approx(whole, rel=1e-6)
    assert set(whole) == {name.replace("9", "3") for name in PARTS}


def test_two_devices_measure_what_one_does(folder: Path, tmp_path: Path) -> None:
    options = ["num_samples=3", "evaluate=true", "likelihood=variational", "likelihood.bound.num_steps=3"]
    _, one = sampled(folder, tmp_path / "one", *options)
    done = script("sample.py", f"checkpoint={folder}", *options, "trainer.devices=2", f"output_dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    for name in ("bits_per_dim_bound_3", "fd_digits_3"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-4)


def test_what_cannot_be_measured_is_refused_before_anything_exists(folder: Path, tmp_path: Path) -> None:
    options = ["schedule=vp", "time_sampler=uniform", "likelihood=variational", f"output_dir={tmp_path / 'out'}"]
    done = script("train.py", *TINY, "logger=none", *options)
    assert done.returncode == 2
    assert "set likelihood.bound.num_steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    done = script("sample.py", f"checkpoint={folder}", "likelihood=ode", f"output_dir={tmp_path / 's'}")
    assert done.returncode == 2
    assert "evaluate=true" in done.stderr
    data = digits()
    with pytest.raises(ValueError, match="num_items=351"):
        Evaluation(Identity(64), {}, likelihood={}).likelihoods(Pipeline.__new__(Pipeline), data, 351)
