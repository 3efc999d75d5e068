"""Groups of small differences: `debug` shows in seconds whether everything works, `budget` says how long a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from choices import composed
from runs import recorded, trained

from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration.compose import GLOBAL
from inkdrop.configuration.help import show

EXPERIMENTS = ("digits", "digits_classifier", "moons", "cifar10_jpeg")
SMALL = ["experiment=moons", "network.width=32", "network.num_blocks=2"]
QUIET = ["callbacks.pictures=null", "callbacks.evaluate=null", "callbacks.loss_by_noise_level=null"]


@pytest.mark.parametrize(
    ("choice", "steps"), [("budget=cpu", 300), ("budget=1gpu", 30_000), ("budget=paper", 800_000), ("debug=fast", 20)]
)
def test_the_length_wins_over_that_of_the_experiment(choice: str, steps: int) -> None:
    for experiment in EXPERIMENTS:
        plain = composed([f"experiment={experiment}", choice])
        assert plain["trainer"]["max_steps"] == plain["task"]["scheduler"]["num_steps"] == steps
        assert all("_target_" in each for each in plain["callbacks"].values())


def test_debug_wins_over_budget_and_the_command_line_over_both() -> None:
    both = ["budget=1gpu", "debug=fast"]
    assert composed(both)["trainer"]["max_steps"] == 20
    assert composed(both)["trainer"]["precision"] == "bf16-mixed"
    assert composed([*both, "trainer.max_steps=7"])["trainer"]["max_steps"] == 7


def test_the_budgets_of_the_published_experiment_are_what_they_say() -> None:
    cpu, gpu, paper = (composed(["experiment=cifar10_jpeg", f"budget={each}"]) for each in ("cpu", "1gpu", "paper"))
    published = composed(["experiment=cifar10_jpeg"])
    for option in ("max_steps", "precision"):
        assert paper["trainer"][option] == published["trainer"][option]
    assert paper["data"]["batch_size"] == published["data"]["batch_size"] == gpu["data"]["batch_size"] == 128
    assert paper["callbacks"]["ema"] | {"folder": ""} == published["callbacks"]["ema"] | {"folder": ""}
    assert paper["evaluation"]["per_item"] * 10_000 == 50_000
    assert (cpu["trainer"]["precision"], gpu["trainer"]["precision"]) == ("32-true", "bf16-mixed")


def test_help_lists_the_groups(capsys: pytest.CaptureFixture[str]) -> None:
    from choices import CONF

    show(CONF, "train", "Trains.", ["debug=fast"])
    lines = {
        line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")
    }
    assert lines["debug"] == ["[fast]", "overfit", "profile"]
    assert lines["budget"] == ["1gpu", "cpu", "paper"]
    assert {"debug", "budget"} < set(GLOBAL)


@pytest.mark.slow
def test_fast_runs_everything(tmp_path: Path) -> None:
    result = trained(tmp_path / "run", "debug=fast", options=[*SMALL, "callbacks.pictures.num_samples=20"])
    assert len(result["metrics"]) > 0
    assert {file.name for file in (tmp_path / "run" / "checkpoints").glob("*.ckpt")} != set()
    assert (tmp_path / "run" / "pictures" / "samples-00000020.png").is_file()
    rows = recorded(tmp_path / "run")
    assert any("validation/loss" in row for row in rows)
    assert max(row["step"] for row in rows) == 20


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in recorded(run) if "train/loss" in row]


@pytest.mark.slow
def test_overfit_learns_one_batch_by_heart(tmp_path: Path) -> None:
    options = [*SMALL, *QUIET, "trainer.max_steps=200"]
    trained(tmp_path / "one", "debug=overfit", options=options)
    trained(tmp_path / "many", "debug=overfit", "trainer.overfit_batches=0", options=options)
    one, many = losses(tmp_path / "one"), losses(tmp_path / "many")
    assert one[-1] < 0.02 * one[0]
    assert many[-1] > 0.2 * many[0]


@pytest.mark.slow
def test_overfit_repeats_its_batch_after_a_resumption(tmp_path: Path) -> None:
    every = [
        "trainer.log_every_n_steps=1",
        "optimizer.lr=0",
        "scheduler.num_steps=5",
    ]  # the same batch has the same loss
    options = [*SMALL, *QUIET, *every, "debug=overfit"]
    trained(tmp_path / "run", "trainer.max_steps=3", options=options)
    import inkdrop

    changed = [
        "trainer.max_steps=5",
        "resume_allow=[trainer.max_steps]",
        "logger=none",
        f"output_dir={tmp_path / 'run'}",
    ]
    inkdrop.train(*options, *changed)
    found = losses(tmp_path / "run")
    assert len(found) == 5
    assert len(set(found)) == 1
    assert read_checkpoint(str(tmp_path / "run"), "checkpoint")["global_step"] == 5


@pytest.mark.slow
def test_profile_is_of_the_steps_after_the_first(tmp_path: Path) -> None:
    trained(tmp_path / "run", "debug=profile", options=[*SMALL, *QUIET])
    table = (tmp_path / "run" / "profile" / "steps.txt").read_text()
    assert table.startswith("5 training steps\n")
    assert "aten::addmm" in table
    trace: Any = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    names = [each.get("name", "") for each in trace["traceEvents"]]
    assert sum(each.startswith("Optimizer.step#") for each in names) == 5


@pytest.mark.slow
def test_a_run_that_ends_early_leaves_the_profile_of_its_steps(tmp_path: Path) -> None:
    trained(tmp_path / "run", "debug=profile", "trainer.max_steps=12", options=[*SMALL, *QUIET])
    assert (tmp_path / "run" / "profile" / "steps.txt").read_text().startswith("2 training steps\n")
    trained(tmp_path / "short", "debug=profile", "trainer.max_steps=4", options=[*SMALL, *QUIET])
    assert not (tmp_path / "short" / "profile").exists()
