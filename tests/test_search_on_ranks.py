"""A search whose trials have two ranks each: one folder, one run in W&B and one record for each trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from swept import Sweep
from tracked import each, history, options, segments

from inkdrop.commands.sweep.record import read_trials

RANKS = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]
# Each rank writes what it computes with: the configuration, and what was built from it.
SEEN = """
import json
from pathlib import Path
from lightning.pytorch import Callback
class Seen(Callback):
    def on_train_start(self, trainer, module):
        built = [module.seed, module.optimizer.keywords["lr"], module.pipeline.network.input.out_features]
        content = {"config": module.config, "built": built, "ranks": trainer.world_size}
        folder = Path(module.config["output_dir"])
        (folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(content))
"""


@pytest.mark.slow
def test_a_trial_of_two_ranks_is_one_trial(tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(SEEN)
    few = ["trainer.max_steps=3", "scheduler.num_steps=3", "hydra.launcher.jobs=1", "logger=wandb"]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.trials=2", "objective=train/loss"]
    space = ["optimizer.lr=tag(log,interval(1e-3,1e-1))", "network.width=16,32"]
    seen = ["allow_targets=[slow.,seen.]", "+callbacks.seen._target_=seen.Seen"]
    sweep = Sweep(tmp_path)
    code, out = sweep.run(*RANKS, *few, *search, *space, *seen)
    assert code == 0, out
    assert not sweep.processes()
    trials = read_trials(sweep.folder)
    assert [each.state for each in trials] == ["finished"] * 2
    assert {folder.name for folder in sweep.folder.iterdir() if folder.is_dir()} == {each.name for each in trials}
    assert sweep.steps() == {each.name: [1, 2, 3] for each in trials}
    assert len((sweep.folder / "study.journal").read_text().splitlines()) > 2
    names = set()
    for trial in trials:
        folder = sweep.folder / trial.name
        ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
        assert ranks[0] == ranks[1]
        assert ranks[0]["ranks"] == 2
        chosen = dict(override.split("=") for override in trial.overrides)
        _, lr, width = ranks[0]["built"]
        assert (lr, width) == (float(chosen["optimizer.lr"]), int(chosen["network.width"]))
        assert [file.name for file in folder.glob("run*.json")] == ["run.json"]
        (record,) = segments(folder)
        assert [row["trainer/global_step"] for row in history(record)] == [1, 2, 3]
        assert options(record)["optimizer"]["lr"] == lr
        (start,) = each("run", record)
        assert (start["run_id"], start["run_group"]) == (
            json.loads((folder / "run.json").read_text())["run_id"],
            sweep.folder.name,
        )
        names.add(start["display_name"])
    assert len(names) == 2
