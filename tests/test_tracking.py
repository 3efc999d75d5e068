"""What a run looks like in W&B, read from offline runs."""

from __future__ import annotations

import bisect
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from entry_scripts import ROOT, completed
from runs import POINTS, TINY, as_a_command, interrupted, run
from tracked import Records, each, history, options, segments, summary
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args
from wandb.sdk.lib.config_util import save_config_file_from_dict

import inkdrop
from inkdrop.callbacks.measured import direction
from inkdrop.checkpoints import read_checkpoint
from inkdrop.commands.tracking import label
from inkdrop.losses import NoisyCrossEntropy
from inkdrop.runs.sweep_of import Sweep

TRACKED = [
    *(option for option in POINTS if option not in ("~callbacks.evaluate", "~callbacks.pictures", "logger=none")),
    "evaluation.num_samples=20",
    "metric.frechet.min_samples=2",
    "callbacks.evaluate.every.steps=4",
    "callbacks.pictures.every.steps=4",
    "callbacks.pictures.num_samples=4",
    "callbacks.loss_by_noise_level.every.steps=4",
    "time_grid.num_steps=3",
    "trainer.max_steps=8",
    "trainer.log_every_n_steps=2",
    "trainer.val_check_interval=4",
    "trainer.enable_progress_bar=false",
]
UNMEASURED = ("evaluat", "pictures", "frechet")
BARE = [option for option in TRACKED if not any(part in option for part in UNMEASURED)]
BARE += ["~callbacks.evaluate", "~callbacks.pictures"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked") / "run"
    run(folder, "objective=validation/loss", "logger.wandb.tags=[mine]", "logger.wandb.notes=first", model=TRACKED)
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> Records:
    (record,) = segments(folder)
    return record


@pytest.mark.slow
def test_a_logged_step_is_one_row(folder: Path, record: Records) -> None:
    rows = history(record)
    assert [row["trainer/global_step"] for row in rows] == [2, 4, 6, 8]
    assert [row["_step"] for row in rows] == [2, 4, 6, 8]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line, row in zip(lines, rows, strict=True):
        assert row["train/loss"] == line["train/loss"]
        assert "train/samples_per_second" in row
        for name in ("validation/loss", "fd_raw_20", "samples.caption", "loss_by_t.values"):
            assert (name in row) == (line["step"] in (4, 8)), name


def test_the_axis_and_the_summaries_are_declared(record: Records) -> None:
    metrics = {content.get("name") or content["glob_name"]: content for content in each("metric", record)}
    assert metrics["*"]["step_metric"] == "trainer/global_step"
    for name in ("train/loss", "validation/loss", "fd_raw_20"):
        assert metrics[name]["step_metric"] == "trainer/global_step"
        assert metrics[name]["summary"] == {"last": True, "min": True}
    assert metrics.keys() == {"trainer/global_step", "*", "train/loss", "validation/loss", "fd_raw_20"}


def test_pictures_say_how_they_were_made_and_the_loss_by_noise_level_is_one_chart(record: Records) -> None:
    rows = history(record)
    assert [row.get("samples.caption") for row in rows] == [
        None,
        "step 4, weights 0.9, sampler abm with 3 steps, guidance none",
        None,
        "step 8, weights 0.9, sampler abm with 3 steps, guidance none",
    ]
    assert not any(name.startswith("loss_by_t/") for row in rows for name in row)
    charts = [row["loss_by_t.bins"] for row in rows if "loss_by_t.bins" in row]
    assert charts == [pytest.approx([n / 10 for n in range(11)])] * 2


def test_the_configuration_has_each_option_once(folder: Path, record: Records) -> None:
    kept = options(record)
    assert kept["optimizer"]["lr"] == 0.004
    assert "lr" not in str({**kept, "optimizer": None, "overrides": None})
    assert kept["network"]["width"] == 16
    assert kept["overrides"] == ["experiment=moons", *(o for o in kept["overrides"] if o != "experiment=moons")]
    assert not any(option.startswith("output_dir") for option in kept["overrides"])
    assert str(folder.parent) not in json.dumps(kept)
    assert kept["versions"]["inkdrop"]
    assert "git_commit" in kept
    (start,) = each("run", record)
    assert start["run_id"] == json.loads((folder / "run.json").read_text())["run_id"]


def test_the_summary_has_the_result(folder: Path, record: Records) -> None:
    result, kept = json.loads((folder / "result.json").read_text()), summary(record)
    metrics, lines = result["metrics"], [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert kept["exit_code"] == 0
    for name in ("steps", "seconds", "seed", "versions", "threads", "git_commit", "protocol"):
        assert kept[name] == result[name]
    assert kept["checkpoint"] == "step-00000008.ckpt"
    for name in ("train/loss", "validation/loss", "fd_raw_20"):
        best = min(line[name] for line in lines if name in line)
        assert kept[name] == pytest.approx({"min": best, "last": metrics[name]})
    assert kept["fd_raw_20_floor"] == metrics["fd_raw_20_floor"]
    assert kept["ratios"] == {"fd_raw_20": pytest.approx(metrics["fd_raw_20"] / metrics["fd_raw_20_floor"])}
    assert kept["protocol_hashes"] == {"fd_raw_20": result["protocol"]["metrics"]["fd_raw_20"]["hash"]}
    assert kept["objective"] == metrics["validation/loss"]
    assert str(folder) not in json.dumps(kept)
    (end,) = each("exit", record)
    assert end["exit_code"] == 0  # W&B leaves out a runtime below a second


def test_a_run_has_a_name_a_type_tags_and_notes(record: Records) -> None:
    (start,) = each("run", record)
    assert start["job_type"] == "train"
    assert start["tags"] == ["moons", "mine"]
    assert start["notes"] == "first"
    assert start["display_name"].startswith("max_steps=8,")
    assert "run_group" not in start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["name=mine"], "seed=1,lr=0.002"),
        (["name=mine", "logger.wandb.name=yours"], "yours"),
    ],
)
def test_a_trial_is_named_by_its_sweep(
    given: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep(tmp_path / "sweep", "seed=1,lr=0.002")
    for variable, value in sweep.variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("WANDB_RUN_ID", "inherited")
    folder = sweep.folder / sweep.trial
    folder.mkdir(parents=True)
    as_a_command(inkdrop.train, *BARE, "trainer.max_steps=2", *given, f"output_dir='{folder}'")
    (start,) = each("run", segments(folder)[0])
    assert start["run_group"] == "sweep"
    assert start["display_name"] == name
    assert start["run_id"] == json.loads((folder / "run.json").read_text())["run_id"]
    assert start["run_id"] != "inherited"


@pytest.mark.slow
def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        as_a_command(inkdrop.train, *BARE, "optimizer.lr=1e30", f"output_dir={tmp_path}")
    (record,) = segments(tmp_path)
    kept = summary(record)
    assert kept["exit_code"] == 5
    assert each("exit", record)[0]["exit_code"] == 5
    assert "not finite" in kept["error"]
    assert kept["seconds"] >= 0
    assert kept["steps"] >= 1
    (alert,) = each("alert", record)
    assert alert["title"].startswith("not finite: moons")
    assert alert["level"] == "ERROR"
    assert alert["text"] == kept["error"]


@pytest.mark.slow
def test_a_resumed_run_has_its_identity_and_no_step_twice(tmp_path: Path) -> None:
    run(tmp_path / "whole", "trainer.max_steps=12", model=BARE)
    whole = history(segments(tmp_path / "whole")[0])
    halved = interrupted(tmp_path / "whole", 6, tmp_path / "halved")
    shutil.copy(tmp_path / "whole" / "run.json", halved)
    (own,) = (tmp_path / "whole" / "wandb").glob("offline-run-*")
    (copied,) = [halved / "wandb" / own.name]
    copied.mkdir(parents=True)
    (file,) = own.glob("run-*.wandb")

    def kept(size: int) -> list[int]:
        """The steps in what a killed process leaves: blocks, without the last rows."""
        (copied / file.name).write_bytes(file.read_bytes()[:size])
        return [row["_step"] for row in history(segments(halved)[0])]

    sizes = range(0, file.stat().st_size, 200)
    size = sizes[bisect.bisect_left(sizes, 2, key=lambda size: len(kept(size)))]
    assert kept(size) == [2, 4]
    run(halved, "trainer.max_steps=12", model=BARE)
    first, second = segments(halved)
    steps = [row["_step"] for row in history(first) + history(second)]
    assert steps == [row["_step"] for row in whole] == [2, 4, 6, 8, 10, 12]
    assert {start["run_id"] for record in (first, second) for start in each("run", record)} == {
        each("run", segments(tmp_path / "whole")[0])[0]["run_id"]
    }
    for row, again in zip(whole, history(first) + history(second), strict=True):
        assert row["train/loss"] == again["train/loss"]
    lines = [json.loads(line) for line in (halved / "metrics.jsonl").read_text().splitlines()]
    assert summary(second)["train/loss"] == pytest.approx(
        {"min": min(line["train/loss"] for line in lines), "last": lines[-1]["train/loss"]}
    )
    run(halved, "trainer.max_steps=12", model=BARE)
    assert len(segments(halved)) == 2, "a finished run starts nothing"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "named"), [("-train/loss", True), ("[train/loss,validation/loss]", False), ("null", False)]
)
def test_one_objective_is_called_so(objective: str, named: bool, tmp_path: Path) -> None:
    run(tmp_path, f"objective={objective}", "trainer.max_steps=4", model=BARE)
    (record,) = segments(tmp_path)
    losses = [row["train/loss"] for row in history(record)]
    assert len(losses) == 2
    assert [row.get("objective") for row in history(record)] == (losses if named else [None, None])
    assert summary(record).get("objective") == (losses[-1] if named else None)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["best", "last", "none"])
def test_the_chosen_checkpoint_is_an_artifact(kind: str, tmp_path: Path) -> None:
    best = "callbacks.checkpoint.best=validation/loss"
    run(tmp_path, f"logger.wandb.checkpoints={kind}", best, "callbacks.checkpoint.keep=1", model=BARE)
    artifacts = each("artifact", segments(tmp_path)[0])
    if kind == "none":
        assert artifacts == []
        return
    (artifact,) = artifacts
    assert {kind, "latest"} <= set(artifact["aliases"])
    (content,) = artifact["manifest"]["contents"]
    index: dict[str, Any] = json.loads((tmp_path / "checkpoints" / "index.json").read_text())
    files = index["files"]
    chosen = files[-1] if kind == "last" else min(files, key=lambda f: f["metrics"].get("validation/loss", 9.0))
    assert content["local_path"] == str(tmp_path / "checkpoints" / chosen["name"])


def test_the_best_checkpoint_needs_a_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        as_a_command(inkdrop.train, *BARE, "logger.wandb.checkpoints=best", f"output_dir={tmp_path / 'run'}")
    assert ended.value.code == 2
    assert "logger.wandb.checkpoints=best requires the metric" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sweep", ["agents", None])
def test_the_agent_of_wandb_gives_the_identity_and_an_inherited_one_does_not(sweep: str | None, tmp_path: Path) -> None:
    variables = {"WANDB_RUN_ID": "fromagent", "WANDB_SWEEP_ID": sweep}
    done = completed("train.py", *BARE, "trainer.max_steps=2", f"output_dir={tmp_path / 'run'}", **variables)
    assert done.returncode == 0, done.stderr
    own = json.loads((tmp_path / "run" / "run.json").read_text())["run_id"]
    (start,) = each("run", segments(tmp_path / "run")[0])
    assert start["run_id"] == own
    assert (own == "fromagent") == (sweep is not None)
    assert start.get("sweep_id") == sweep


@pytest.mark.slow
def test_samples_are_a_run_with_a_picture(folder: Path, tmp_path: Path) -> None:
    asked = ["num_samples=20", "evaluate=true", "sampler=ddim", "time_grid.num_steps=4", "logger=wandb"]
    done = completed("sample.py", "-m", f"checkpoint={folder}", *asked, "seed=0,20", f"output_dir={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    for number, seed in enumerate((0, 20)):
        (record,) = segments(tmp_path / "out" / str(number))
        (start,), kept = each("run", record), options(record)
        assert (start["job_type"], start["run_group"], start["display_name"]) == ("sample", "out", f"seed={seed}")
        assert kept["seed"] == seed
        assert kept["trained"] == json.loads((folder / "run.json").read_text())["run_id"]
        assert kept["time_grid"]["num_steps"] == 4
        assert "num_steps" not in str({**kept, "time_grid": None, "overrides": None})
        assert str(tmp_path) not in json.dumps(kept)
        assert str(folder) not in json.dumps(kept)
        result, final = json.loads((tmp_path / "out" / str(number) / "result.json").read_text()), summary(record)
        assert final["fd_raw_20"] == result["metrics"]["fd_raw_20"]
        assert final["protocol_hashes"]["fd_raw_20"] == result["protocol"]["metrics"]["fd_raw_20"]["hash"]
        assert final["network_calls"] == 4
        assert final["samples.captions"] == ["weights 0.9, sampler DDIM with 4 steps, guidance none"]
        assert each("exit", record)[0]["exit_code"] == 0


def test_a_logger_of_steps_is_refused_for_samples(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        as_a_command(inkdrop.sample, f"checkpoint={folder}", "logger=csv", f"output_dir={tmp_path / 'out'}")
    assert ended.value.code == 2
    assert "logger=csv has no effect on samples" in capsys.readouterr().err


@pytest.mark.slow
def test_the_sweep_file_of_wandb_runs_as_its_agent_runs_it(tmp_path: Path) -> None:
    """W&B's own functions make the command and the file of parameters from what its server would choose."""
    config = yaml.safe_load((ROOT / "sweeps" / "wandb.yaml").read_text())
    first = {"optimizer.lr": 0.00123, "schedule": "cosine", "seed": 2}
    assert first.keys() == config["parameters"].keys()
    assert config["parameters"]["optimizer.lr"]["min"] < 0.00123 < config["parameters"]["optimizer.lr"]["max"]
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in first.items()}})
    made |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [config["program"]]}
    words = [made.get(word[2:-1], []) if word.startswith("${") else [word] for word in config["command"]]
    env, python, *command = [word for part in words for word in part]
    assert (env, python, command[0]) == ("/usr/bin/env", "python", "train.py")
    save_config_file_from_dict(str(tmp_path / "chosen.yaml"), {name: {"value": value} for name, value in first.items()})
    agent = {
        "WANDB_SWEEP_ID": "abcd1234",
        "WANDB_RUN_ID": "ofagent1",
        "WANDB_SWEEP_PARAM_PATH": str(tmp_path / "chosen.yaml"),
    }
    short = [*TINY, "trainer.max_steps=4", "~callbacks.evaluate", "~callbacks.pictures", f"output_dir={tmp_path / 'r'}"]
    done = completed(*command, *(option for option in short if not option.startswith("prediction")), **agent)
    assert done.returncode == 0, done.stderr
    (record,) = segments(tmp_path / "r")
    (start,) = each("run", record)
    assert (start["run_id"], start["sweep_id"]) == ("ofagent1", "abcd1234")
    assert json.loads((tmp_path / "r" / "run.json").read_text())["run_id"] == "ofagent1"
    (checkpoint,) = (tmp_path / "r" / "checkpoints").glob("step-*.ckpt")
    content = read_checkpoint(checkpoint)
    assert content["config"]["run_id"] == "ofagent1"
    assert content["config"]["optimizer"]["lr"] == 0.00123
    assert content["config"]["seed"] == 2
    assert "cosine" in content["config"]["schedule"]["_target_"]
    metrics = json.loads((tmp_path / "r" / "result.json").read_text())["metrics"]
    assert summary(record)["objective"] == metrics["validation/loss"]
    assert [row["objective"] for row in history(record) if "objective" in row][-1] == metrics["validation/loss"]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["optimizer.lr=2e-3", "seed=1"], "lr=2e-3,seed=1"),
        (["seed=1", "optimizer.lr=1", "seed=2"], "seed=2,lr=1"),
        (["callbacks.ema.every_steps=2", "a.steps=1", "b.steps=2"], "every_steps=2,a.steps=1,b.steps=2"),
        (["~callbacks.evaluate", "+trainer.limit_val_batches=2"], "~evaluate,limit_val_batches=2"),
        (["experiment=moons", "output_dir=/tmp/x", "logger.wandb.tags=[a]", "trainer.devices=2", "name=x"], ""),
        (["init_from=runs/x", "data.path=photos", "+mine.api_key=abc"], "api_key=***"),
        ([f"option{number}=value" for number in range(9)], "option0=value,option1=value,option2=value,option3=value,"),
    ],
)
def test_options_in_short(overrides: list[str], name: str) -> None:
    shown = label(overrides)
    assert shown == name or (shown.startswith(name) and name.endswith(",") and shown.endswith("…") and len(shown) == 80)


def test_a_value_knows_the_direction_in_which_it_improves() -> None:
    metrics = {"fd_raw_20": {"hash": "a"}, "precision_20": {"hash": "b", "better": "higher"}}
    trainer: Any = SimpleNamespace(callbacks=[SimpleNamespace(protocol={"metrics": metrics}), object()])
    loss: Any = SimpleNamespace(logged=("accuracy", "bound"), higher=NoisyCrossEntropy.higher)
    least = ["train/loss", "validation/loss", "validation/bound", "fd_raw_20", "fd_raw_20@raw"]
    most = ["validation/accuracy", "precision_20", "precision_20@raw"]
    none = ["train/learning_rate", "fd_raw_20_floor", "precision_20_baseline", "evaluation/share_of_time", "other_20"]
    for names, expected in ((least, "min"), (most, "max"), (none, None)):
        assert {name: direction(trainer, loss, name) for name in names} == dict.fromkeys(names, expected)
