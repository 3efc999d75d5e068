"""Bad configurations, C1 to C39, through the entry scripts: what is refused, how it is told, and what is created."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import ROOT, Ended, Script, completed
from hydra.core.utils import JobReturn
from image_files import GREY, encoded, pixels
from omegaconf import OmegaConf
from runs import IN_PROCESS, TINY, trained

from inkdrop.commands.train.prepare import PreparedTraining
from inkdrop.configuration import check_settings
from inkdrop.configuration.compose import composed, resolved
from inkdrop.configuration.secrets import from_environment, masked
from inkdrop.data import Digits
from inkdrop.errors import DataError
from inkdrop.runs.machine import check_held_out, check_items


def refuse(*arguments: Any) -> None:
    raise AssertionError("it ran")


def assert_refused(ended: Ended, *parts: str, code: int = 2) -> None:
    """This code, one screen that holds these texts, no traceback, and nothing created."""
    assert ended.code == code, ended.err
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    assert "Warning" not in ended.err
    assert len(ended.err.splitlines()) < 32
    for part in parts:
        assert part in ended.err
    assert not list(Path.cwd().iterdir())


HUGE = "1" + "0" * 30
ON_CPU = "trainer.accelerator=cpu"
NAME = "characters A-Z a-z 0-9 . _ = -"
# name: (overrides of train.py, parts of the message)
TRAIN: dict[str, tuple[list[str], list[str]]] = {
    "C1 option": (["data.batchsize=4"], ["data.batchsize", "did you mean batch_size"]),
    "C1 part": (["evalution.num_samples=4"], ["did you mean evaluation"]),
    "C1 unlike any": (["optimizer.qqq=4"], ["unknown option optimizer.qqq: the options here are", "weight_decay"]),
    "C1 below a number": (["optimizer.lr.foo=4"], ["unknown option optimizer.lr.foo"]),
    "C2 close to one": (["+data.batchsize=4"], ["data.batchsize", "did you mean batch_size"]),
    "C2 forced": (["++data.batchsize=4"], ["did you mean batch_size"]),
    "C2 optimizer": (["+optimizer.momentun=1"], ["unknown option task.optimizer.momentun"]),
    "C2 trainer": (["+trainer.max_step=4"], ["did you mean max_steps"]),
    "C2 top": (["+batchsize=4"], ["unknown option batchsize"]),
    "C2 top, forced": (["++seeds=4"], ["did you mean seed?"]),
    "C2 top, nested": (["+optimiser.lr=4"], ["did you mean optimizer?"]),
    "C2 group": (["+experiment.lr=4"], ["unknown option experiment"]),
    "C3": (["network=nope"], ["network/nope", "unet", "mlp"]),
    "C3 close to one": (["experiment=moons_flwo"], ["experiment/moons_flwo': did you mean experiment=moons_flow?"]),
    "C4": (["networks=unet"], ["networks", "did you mean network?"]),
    "C5": (["schedule.num_timesteps=abc"], ["schedule.num_timesteps=abc", "integer"]),
    "C5 truth": (["data.batch_size=true"], ["data.batch_size=True", "integer"]),
    "C6 float": (["schedule.num_timesteps=1000.0"], ["schedule.num_timesteps=1000.0", "integer"]),
    "C6 fraction": (["schedule.num_timesteps=1000.5"], ["schedule.num_timesteps=1000.5", "integer"]),
    "C7 empty": (["schedule.num_timesteps="], ["schedule.num_timesteps=", "integer"]),
    "C7 null": (["schedule.num_timesteps=null"], ["schedule.num_timesteps=None", "integer"]),
    "C8 zero": (["schedule.num_timesteps=0"], ["schedule.num_timesteps=0", "greater than or equal to 1"]),
    "C8 negative": (["schedule.num_timesteps=-5"], ["schedule.num_timesteps=-5"]),
    "C8 huge": ([f"schedule.num_timesteps={HUGE}"], ["schedule.num_timesteps=1000", "1000000"]),
    "C8 huge elsewhere": ([f"data.batch_size={HUGE}"], ["data.batch_size=1000", "too large: the largest integer"]),
    "C9 zero": (["time_grid.num_steps=0"], ["time_grid.num_steps=0"]),
    "C9 negative": (["time_grid.num_steps=-3"], ["time_grid.num_steps=-3", "greater than or equal to 1"]),
    "C9 huge": ([f"time_grid.num_steps={HUGE}"], ["time_grid.num_steps=1000"]),
    "C10": (["time_grid.num_steps=1001"], ["time_grid.num_steps=1001", "lower it"]),
    "C11": (["schedule.beta_end=1.0"], ["schedule.beta_end=1.0", "less than 1"]),
    "C12 end": (["schedule.beta_end=1.2"], ["schedule.beta_end=1.2", "less than 1"]),
    "C12 start": (["schedule.beta_start=-1e-4"], ["schedule.beta_start=-0.0001", "greater than 0"]),
    "C13 order": (["schedule.beta_start=0.02", "schedule.beta_end=1e-4"], ["beta_start=0.02", "beta_end=0.0001"]),
    "C13 zeros": (["schedule.beta_start=0", "schedule.beta_end=0"], ["schedule.beta_start=0", "greater than 0"]),
    "C14 beta": (["schedule.beta_end=nan"], ["schedule.beta_end=nan", "finite"]),
    "C14 infinite rate": (["optimizer.lr=inf"], ["optimizer.lr=inf", "finite"]),
    "C14 rate": (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    "C15": (["optimizer.lr=-1"], ["optimizer.lr=-1", "greater than or equal to 0"]),
    "C16 above": (["callbacks.ema.decays=[1.5]"], ["callbacks.ema.decays", "less than 1"]),
    "C16 below": (["callbacks.ema.decays=[-0.1]"], ["callbacks.ema.decays", "greater than 0"]),
    "C16 one": (["callbacks.ema.decays=[1.0]"], ["callbacks.ema.decays", "less than 1"]),
    "C16 none": (["callbacks.ema.decays=[]"], ["callbacks.ema.decays=[]"]),
    "C16 length": (["callbacks.ema.lengths=[0.3]"], ["callbacks.ema.lengths", "less than or equal to 0.288"]),
    "C16 snapshots": (
        ["callbacks.ema.snapshots={_target_:inkdrop.callbacks.Every,steps:5}"],
        ["set callbacks.ema.lengths"],
    ),
    "C16 cadence": (["+callbacks.pictures.every.epochs=1"], ["exactly one of steps, epochs"]),
    "C17": (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "greater than or equal to 0"]),
    "C18 fraction": (["trainer.max_steps=2.5"], ["trainer.max_steps=2.5", "integer"]),
    "C18 negative": (["trainer.max_steps=-5"], ["trainer.max_steps=-5", "greater than or equal to 0"]),
    "C19": (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0"]),
    "C20 unknown": (["trainer.precision=fp8"], ["trainer.precision=fp8", "bf16-mixed"]),
    "C20 on a CPU": ([ON_CPU, "trainer.precision=16-mixed"], ["trainer.precision=16-mixed", "choose bf16-mixed"]),
    "C21 none": (["trainer.devices=0"], ["trainer.devices=0"]),
    "C21 cores": ([ON_CPU, "trainer.devices=4096"], ["trainer.devices=4096", f"{os.cpu_count()} CPU cores"]),
    "C21 list": ([ON_CPU, "trainer.devices=[0,4096]"], ["trainer.devices=[0, 4096]"]),
    "C21 accelerator": (["trainer.accelerator=abacus"], ["abacus"]),
    "C22 text": (["seed=abc"], ["seed=abc", "integer"]),
    "C22 negative": (["seed=-1"], ["seed=-1", "greater than or equal to 0"]),
    "C22 large": (["seed=4294967296"], ["seed=4294967296", "4294967295"]),
    "C22 fraction": (["seed=1.5"], ["seed=1.5", "integer"]),
    "C22 octal": (["seed=08"], ["seed=08", "integer"]),
    "C23 case": (["schedule=Linear"], ["schedule/Linear", "linear_beta"]),
    "C23 unknown": (["schedule=bogus"], ["schedule/bogus", "linear_beta"]),
    "C23 list": (["schedule=[1,2]"], ["schedule=[1,2]", "choose a name that --help lists"]),
    "C24": (["optimizer.lr=0.1,0.2"], ["optimizer.lr=0.1,0.2", "--multirun"]),
    "C25": (["data=5"], ["data=5", "choose a name that --help lists"]),
    "C25 null": (["data=null"], ["data=null", "choose a name that --help lists"]),
    "C25 optimizer": (["optimizer=5"], ["optimizer=5", "dictionary"]),
    "C25 callbacks": (["callbacks=5"], ["callbacks=5", "dictionary"]),
    "C25 trainer": (["trainer=5"], ["`trainer` is not a container"]),
    "C25 task": (["task=null"], ["task=null", "choose a name that --help lists"]),
    "C25 allowed": (["allow_targets=x"], ["allow_targets=x: input should be a valid list"]),
    "C25 class": (["task._target_=inkdrop.codecs.Pixels"], ["unknown option"]),
    "C25 coupling": (["++task.loss.coupling=true"], ["task.loss={'coupling': True}", "an instance of Loss"]),
    "C25 loss": (["++task.loss=3"], ["task.loss=3: input should be an instance of Loss"]),
    "C25 other loss": (["task.loss=${codec}"], ["task.loss=Pixels: input should be an instance of Loss"]),
    "C25 points": (
        ["experiment=moons", "data.num_points=1000000000000"],
        ["data.num_points=1000000000000: input should be less than or equal to 100000000"],
    ),
    "C25 codec": (["++pipeline.codec=3"], ["pipeline.codec=3: input should be an instance of Codec"]),
    "C25 weighting": (["++loss.weighting=1"], ["loss.weighting=1: input should be an instance of Weighting"]),
    "C25 time grid": (["++sampler.time_grid=[1]"], ["sampler.time_grid=[1]: input should be an instance of TimeGrid"]),
    "C25 cadence": (["++callbacks.pictures.every=5"], ["every=5: input should be an instance of Every"]),
    "C25 callback": (["++callbacks.ema=3"], ["callbacks={", "valid dictionary"]),
    "C25 callback without a class": (["++callbacks.mine={a: 1}"], ["callbacks={", "class of this part, is missing"]),
    "C25 metric": (["++metric.frechet=true"], ["metric={", "valid dictionary"]),
    "C25 data": (["~data._target_"], ["data={", "the class of this part, is missing"]),
    "C26 argument": (["~time_grid.num_steps"], ["time_grid.num_steps is missing"]),
    "C26 rate": (["~optimizer.lr"], ["optimizer.lr is missing"]),
    "C26 partial": (["~scheduler.num_steps"], ["optimizer or scheduler", "missing", "num_steps"]),
    "C26 range": (["optimizer.betas=[2.0,0.9]"], ["optimizer or scheduler: Invalid beta parameter at index 0: 2.0"]),
    "C26 top": (["~compile"], ["compile is missing"]),
    "C26 reference": (["~trainer.max_steps"], ["trainer.max_steps"]),
    "C27 octal": (["schedule.num_timesteps=010"], ["schedule.num_timesteps=010", "integer"]),
    "C27 base sixty": (["schedule.num_timesteps=12:30"], ["schedule.num_timesteps=12:30", "integer"]),
    "C27 yes": (["compile=yes"], ["compile=yes", "boolean"]),
    "C27 two": (["compile=2"], ["compile=2", "boolean"]),
    "C29 missing": (["project.name=${nope}"], ["unknown option project"]),
    "C29 reference": (["evaluation.num_samples=${nope}"], ["'nope' not found", "evaluation.num_samples"]),
    "C29 cycle": (["evaluation.num_items=${evaluation.num_samples}", "evaluation.num_samples=${evaluation.num_items}"],
                  ["Recursive", "evaluation.num_"]),
    "C29 cycle of the seed": (["seed=${evaluation.seed}", "evaluation.seed=${seed}"], ["Recursive", "seed"]),
    "C29 left": (["optimizer.lr=???"], ["optimizer.lr"]),
    "C29 left seed": (["seed=???"], ["seed"]),
    "C30 os": (["optimizer._target_=os.system"], ["optimizer._target_=os.system is not allowed", "torch.optim"]),
    "C30 torch": (["optimizer._target_=torch.load"], ["optimizer._target_=torch.load is not allowed"]),
    "C30 open": (["data._target_=builtins.open"], ["data._target_=builtins.open is not allowed"]),
    "C30 nested": (["+loss.weighting.x={_target_: os.system}"], ["os.system is not allowed"]),
    "C30 absent": (["sampler._target_=inkdrop.samplers.Nothing"], ["cannot be imported"]),
    "C30 private": (["sampler._target_=inkdrop.samplers.base._select"], ["not allowed"]),
    "C32 up": (["name=../../x"], ["name=../../x", NAME]),
    "C32 absolute": (["name=/tmp/x"], ["name=/tmp/x", NAME]),
    "C32 folder": (["name=a/b"], ["name=a/b", NAME]),
    "C32 long": ([f"name={'x' * 300}"], ["name=xxx", "1 to 120"]),
    "C32 shell": (["name='$(id)'"], ["name=$(id)", NAME]),
    "C32 shell, bare": (["name=$(id)"], ["name=$(id)"]),
    "C32 lines": (['name="x\ny"'], ["name=x\ny", NAME]),
    "C32 here": (["name=."], ["name=.", NAME]),
    "C32 above": (["name=.."], ["name=..", NAME]),
    "C32 empty": (["name="], ["name=", NAME]),
    "C32 number": (["name=5"], ["name=5", "string"]),
    "C36 halves": (
        [
            *("data=arrays", "data.path=nowhere", "data.shape=[1,9,9]", "data.num_classes=10"),
            "network.channel_multipliers=[1,2]",
        ],
        ["[9, 9] cannot be halved"],
    ),
    "C36 channels": (["network.shape=[3,8,8]"], ["the network does not fit data.shape=[1, 8, 8]"]),
    "C36 channels made": (["+network.out_channels=3"], ["the network returns shape [3, 8, 8]", "data.shape=[1, 8, 8]"]),
    "C36 data": (["data.shape=[3,8,8]"], ["data.shape=[3, 8, 8]", "must be [1, 8, 8] for Digits"]),
    "C36 groups": (["network.norm_groups=5"], ["network.norm_groups=5", "[32, 64]"]),
    "C36 heads": (["network.head_dim=5"], ["network.head_dim=5", "[32, 64]"]),
    "C37 guidance": (["guidance.static_threshold.low=nan"], ["guidance.static_threshold.low=nan", "finite"]),
    "C37 no classes": (["data.num_classes=0"], ["num_classes=0", "greater than or equal to 1"]),
    "batch over devices": ([ON_CPU, "trainer.devices=2", "data.batch_size=7"], ["data.batch_size=7", "2 devices"]),
    "prediction": (["schedule=linear"], ["choose prediction=flow"]),
    "times": (["schedule=vp"], ["choose time_sampler=uniform"]),
    "repeated time": (["sampler=heun", "time_grid=explicit", "time_grid.times=[0.7,0.7,0.5]"],
                      ["has no corrector", "the time grid repeats t = 0.7"]),
    "no signal": (["sampler=euler_maruyama", "schedule=linear", "prediction=flow", "time_sampler=uniform"],
                  ["infinite drift at alpha = 0: choose sampler=reverse_diffusion"]),
    "likelihood": (["noise=offset", "likelihood=variational"], ["the likelihood needs"]),
    "eta": (["sampler=ddim", "sampler.eta=1.5"], ["sampler.eta=1.5"]),
}  # fmt: skip


@pytest.mark.many
@pytest.mark.parametrize(("overrides", "parts"), TRAIN.values(), ids=TRAIN)
def test_train_refuses(overrides: list[str], parts: list[str], script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.commands.train.run.train", refuse)
    assert_refused(script("train.py", *overrides), *parts)


NO_CHECKPOINT = ": set resume=auto to start a run"
# name: (script and overrides, where there are a file, an empty folder and another run; exit code, part of the message)
PLACES: dict[str, tuple[list[str], int, str]] = {
    "C33 output_dir": (["train.py", "output_dir=other"], 2, "  optimizer.lr: 0.1 -> 0.004\n"),
    "C33 hydra": (["train.py", "hydra.run.dir=other"], 2, "  optimizer.lr: 0.1 -> 0.004\n"),
    "C33 never": (["train.py", "output_dir=other", "resume=never"], 2, "output_dir=other contains another run"),
    "C34 empty": (["train.py", "output_dir=empty", "resume=must"], 4, f"empty{NO_CHECKPOINT}"),
    "C34 missing": (["train.py", "output_dir=nowhere", "resume=must"], 4, f"nowhere{NO_CHECKPOINT}"),
    "C34 unsaved": (["train.py", "output_dir=other", "resume=must"], 4, f"other{NO_CHECKPOINT}"),
    "C34 file": (["train.py", "output_dir=file", "resume=must"], 2, "output_dir=file cannot be created, because"),
    "C34 below a file": (["train.py", "output_dir=file/run"], 2, "file/run cannot be created, because file is"),
    "C34 init_from missing": (["train.py", "init_from=nowhere"], 4, "init_from=nowhere does not exist"),
    "C34 init_from empty": (["train.py", "init_from=empty"], 4, "empty is not a run folder"),
    "C34 init_from unsaved": (["train.py", "init_from=other"], 4, "other is not a run folder"),
    "C34 init_from address": (
        ["train.py", "init_from=https://example.org/a"],
        4,
        "is a URL: download the file",
    ),
    "C34 checkpoint missing": (["sample.py", "checkpoint=nowhere"], 4, "checkpoint=nowhere does not exist"),
    "C34 checkpoint empty": (["sample.py", "checkpoint=empty"], 4, "empty is not a run folder"),
}


@pytest.mark.many
@pytest.mark.parametrize(("arguments", "code", "part"), PLACES.values(), ids=PLACES)
def test_a_place_is_refused(
    arguments: list[str], code: int, part: str, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.run.train", "sample.run.sample"):
        monkeypatch.setattr(f"inkdrop.commands.{name}", refuse)
    Path("file").touch()
    for name in ("empty", "other"):
        Path(name).mkdir()
    OmegaConf.save(resolved(composed("train", ["optimizer.lr=0.1"])), "other/config.yaml")
    before = sorted(Path.cwd().rglob("*"))
    ended = script(*arguments)
    assert ended.code == code, ended.err
    assert part in ended.err
    assert "Traceback" not in ended.err
    assert sorted(Path.cwd().rglob("*")) == before


SAMPLE: dict[str, tuple[list[str], list[str]]] = {
    "C39 negative": (["seed=-1"], ["seed=-1"]),
    "C39 none": (["num_samples=0"], ["num_samples=0"]),
    "C39 beyond": (["seed=4294967290", "num_samples=7"], ["num_samples=7", "largest seed, 4294967295"]),
    "C39 many": (["num_samples=1000000000"], ["num_samples=1000000000", "10000000"]),
    "C39 range": (["seed=5-1"], ["seed=5-1", "integer"]),
    "C2": (["+network=unet"], ["unknown option network"]),
}


@pytest.mark.parametrize(("overrides", "parts"), SAMPLE.values(), ids=SAMPLE)
def test_sample_refuses(
    overrides: list[str], parts: list[str], script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdrop.commands.sample.run.sample", refuse)
    assert_refused(script("sample.py", "checkpoint=nowhere", *overrides), *parts)


FILES = {
    "C27 yes": ("seed: yes", "seed=True"),
    "C27 octal": ("name: 010", "name=8"),
    "C27 base sixty": ("name: 12:30", "name=750"),
    "C28 twice": ("seed: 1\nseed: 2", "duplicate key seed"),
    "C28 tab": ("optimizer:\n\tlr: 1.0", "cannot start any token"),
    "C28 python": ("seed: !!python/object/apply:os.getcwd []", "python/object/apply:os.getcwd"),
    "C2 in a file": ("optimiser:\n  lr: 1.0", "did you mean optimizer"),
}


@pytest.mark.parametrize(("text", "message"), FILES.values(), ids=FILES)
def test_a_file_is_refused(
    text: str, message: str, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdrop.commands.train.run.train", refuse)
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "bad.yaml").write_text(f"# @package _global_\n{text}\n")
    searchpath = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    assert_refused(script("train.py", searchpath, "experiment=bad"), message)


def test_an_option_of_a_file_that_something_refers_to_is_read(script: Script, tmp_path: Path) -> None:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "good.yaml").write_text(
        "# @package _global_\nwidth: 16\nnetwork:\n  base_channels: ${width}\n"
    )
    searchpath = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
    ended = script("train.py", searchpath, "experiment=good", "trainer.max_steps=0")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["train.py", "data.batchsize=4"], 2, "did you mean batch_size"),
        (["train.py", "schedule.beta_end=1.2"], 2, "schedule.beta_end=1.2: input should be less than 1"),
        (["train.py", "sampler=nope", "--help"], 2, "ancestral"),
        (["train.py", "resume=must", "output_dir=run"], 4, "resume=must requires a checkpoint in run: set"),
        (["sample.py", "checkpoint=nowhere"], 4, "checkpoint=nowhere does not exist"),
    ],
    ids=["C1", "C12", "C3 help", "C34", "sample.py"],
)
def test_scripts_end_with_a_code(arguments: list[str], code: int, part: str, tmp_path: Path) -> None:
    done = completed(str(ROOT / arguments[0]), *arguments[1:], cwd=tmp_path)
    assert done.returncode == code
    assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_c15_c17_c18_what_is_odd_but_allowed(script: Script) -> None:
    ended = script("train.py", "optimizer.lr=0", "trainer.gradient_clip_val=0", "trainer.max_steps=0")
    assert ended.code == 0
    assert "warning: optimizer.lr=0" in ended.err
    assert "warning: trainer.max_steps=0" in ended.err
    assert not list(Path.cwd().iterdir())


def test_c19_more_accumulation_than_a_pass_has_batches() -> None:
    data = Digits([1, 8, 8], 10, 128)
    check_items(data, {"devices": 1, "accumulate_grad_batches": 9})
    with pytest.warns(UserWarning, match="trainer.accumulate_grad_batches=10 exceeds the 9 batches of an epoch"):
        check_items(data, {"devices": 1, "accumulate_grad_batches": 10})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_c21_no_gpu(script: Script) -> None:
    assert_refused(script("train.py", "trainer.accelerator=gpu", "trainer.devices=2"), "trainer.devices=2")


@pytest.mark.slow
def test_c22_a_seed_is_drawn_told_and_kept(script: Script) -> None:
    ended = script("train.py", *TINY, "logger=none", "seed=null", "output_dir=run", "callbacks.evaluate=null")
    assert ended.code == 0, ended.err
    config, result = (OmegaConf.load(f"run/{name}") for name in ("config.yaml", "result.json"))
    assert f"seed       {config.seed} (drawn)" in ended.out
    assert config.seed == config.data.seed == config.task.seed == result.seed
    assert config.seed > 100  # not by chance but once in twenty million times


def test_c31_a_mapping_is_merged_into_that_of_the_file() -> None:
    optimizer = composed("train", ["optimizer={lr:1}"]).optimizer
    assert optimizer.lr == 1
    assert optimizer._target_ == "torch.optim.AdamW"
    assert optimizer.betas == [0.9, 0.99]


def test_c32_good_names() -> None:
    for name in ("digits", "lr=1e-3", "-rf", "v1.0", "x" * 120, "..x"):
        check_settings({"name": name})


FAILING = """
from lightning.pytorch import Callback
class Fine(Callback): ...
class Value(Callback):
    def on_train_start(self, *_): raise ValueError("no value")
class Exit(Callback):
    def on_train_start(self, *_): raise SystemExit
"""


@pytest.mark.slow
def test_c35_a_failing_trial_does_not_stop_the_others(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    options = ["logger=none", "callbacks.evaluate=null", "callbacks.pictures=null", "output_dir=sweep", *TINY]
    kinds = "+callbacks.kind._target_=failing.Exit,failing.Value,failing.Nothing,failing.Fine"
    options = [option for option in options if not option.startswith("callbacks.pictures.")]
    ended = script("train.py", "-m", *IN_PROCESS, kinds, "allow_targets=[failing.]", *options)
    assert ended.code == 1
    assert "no value" in ended.err
    assert "failing.Nothing cannot be imported" in ended.err
    assert "error: trial 0 failed" in ended.err
    assert [path.parent.name for path in Path("sweep").glob("*/result.json")] == ["3"]


@pytest.mark.slow
def test_c35_a_sweep_ends_with_the_table_of_the_trials_that_worked(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(prepared: PreparedTraining) -> dict[str, Any]:
        result = {"metrics": {"loss": float(prepared.plain["seed"])}}
        (prepared.asked.path / "result.json").write_text(json.dumps(result))
        return result

    monkeypatch.setattr("inkdrop.commands.train.run.train", train)
    Path("sweep/1").mkdir(parents=True)
    Path("sweep/1/result.json").write_text('{"metrics": {"loss": 9.0}}')  # of another sweep
    ended = script("train.py", "-m", *IN_PROCESS, "seed=3,4,5", "output_dir=sweep")
    assert ended.code == 2
    assert "error: output_dir=" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: trial 1 failed with exit code 2")
    rows = [line.split(",") for line in Path("sweep/report.csv").read_text().splitlines()]
    assert [line[:6] for line in rows] == [
        ["folder", "n", "seeds", "folders", "loss", "loss low"],
        ["0", "1", "", "0", "3.0", ""],
        ["2", "1", "", "2", "5.0", ""],
    ]
    assert "| 2 | 1 | 5 |" in ended.out


@pytest.mark.slow
def test_c35_a_sweep_of_samples_needs_a_folder_without_others(script: Script, tmp_path: Path) -> None:
    trained(tmp_path / "run", "callbacks.evaluate=null", "trainer.max_steps=1")
    checkpoint, options = f"checkpoint={tmp_path / 'run'}", ["num_samples=2", "time_grid.num_steps=2"]
    ended = script("sample.py", "-m", checkpoint, *options, "seed=0,1", "output_dir=sweep")
    assert ended.code == 0, ended.err
    before = {file: file.read_bytes() for file in Path("sweep").rglob("*") if file.is_file()}
    assert {str(file.parent) for file in before} == {"sweep", "sweep/0", "sweep/1"}
    for checkpoints in (checkpoint, f"{checkpoint},{tmp_path / 'run'}"):
        ended = script("sample.py", "-m", checkpoints, *options, "seed=7", "output_dir=sweep")
        assert ended.code == 2
        assert ended.err == "error: output_dir=sweep contains other samples: choose a new folder\n"
    ended = script("sample.py", "-m", checkpoint, *options, "seed=7", "output_dir=sweep,other")
    assert ended.code == 2
    assert f"error: output_dir={Path('sweep/0').absolute()} contains other samples" in ended.err
    assert Path("other/1/result.json").exists()
    assert before == {file: file.read_bytes() for file in Path("sweep").rglob("*") if file.is_file()}


@pytest.mark.slow
def test_c35_an_objective_is_one_number(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a sweeper that searches is given it: a trial without one fails, and the others go on."""
    given: list[Any] = []
    results = iter([{"fd": float("nan")}, {"loss": 1.0}, {"fd": 2.0}, {"fd": 3.0}])
    monkeypatch.setattr("inkdrop.commands.train.run.train", lambda prepared: {"metrics": next(results)})
    told = property(lambda job: given.append(job._return_value), JobReturn.return_value.fset)  # type: ignore[attr-defined]
    monkeypatch.setattr(JobReturn, "return_value", told)
    basic = ["-m", *IN_PROCESS, "hydra/sweeper=basic"]
    ended = script("train.py", *basic, "seed=0,1,2", "objective=fd", "output_dir=sweep")
    assert "error: not finite: the objective fd" in ended.err
    assert "error: objective=fd is not measured; available: loss" in ended.err
    assert [str(each) for each in given] == [
        "trial 0 failed with exit code 5",
        "trial 1 failed with exit code 2",
        "2.0",
    ]
    assert script("train.py", *basic, "seed=0", "output_dir=other").code == 0
    assert given[-1] == {"metrics": {"fd": 3.0}}


def test_c35_a_sweep_of_runs_with_several_devices_is_refused(script: Script) -> None:
    ended = script("train.py", "-m", *IN_PROCESS, "seed=0,1", ON_CPU, "trainer.devices=2")
    assert_refused(ended, "trainer.devices=2 does not work with this launcher", "hydra/launcher=processes")


def test_c37_another_number_of_folders(script: Script, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        (tmp_path / "images" / str(number) / "x.png").write_bytes(encoded(GREY))
    options = [f"data.path={tmp_path / 'images'}", "data.num_classes=10", "data.shape=[1,8,8]"]
    assert_refused(script("train.py", "data=image_folder", *options), "data.num_classes=10", "12 folders")


@pytest.mark.slow
def test_c38_secrets_are_used_but_not_written_down(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    options = ["callbacks.pictures.folder=${oc.env:PLACE}/here", "callbacks.evaluate=null", "logger=csv"]
    ended = script("train.py", *TINY, *options, "output_dir=run")
    assert ended.code == 0, ended.err
    assert list((tmp_path / "place" / "here").glob("*.png"))
    checkpoint = torch.load(next(Path("run/checkpoints").glob("*")), weights_only=True)
    assert checkpoint["config"]["callbacks"]["pictures"]["folder"] == "***"
    assert OmegaConf.load("run/config.yaml").callbacks.pictures.folder == "***"
    for file in Path("run").rglob("*"):
        assert file.is_dir() or b"place" not in file.read_bytes(), file


def test_c38_what_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "7")
    config = OmegaConf.create(
        {
            "direct": "${oc.env:SECRET}",
            "inside": {"list": [1, "x${oc.env:SECRET}"], "reference": "${direct}", "number": "${oc.decode:${direct}}"},
            "whole": "${inside}",
            "other": 7,
            "api_key": "abc",
            "hf_token": "abc",
            "token_dim": 64,
            "tokenizer": "abc",
            "password": None,
            "secrets": ["abc"],
        }
    )
    plain = OmegaConf.to_container(config, resolve=True)
    inside = {"list": [1, "***"], "reference": "***", "number": "***"}
    assert masked(plain, from_environment(config)) == {
        "direct": "***",
        "inside": inside,
        "whole": inside,
        "other": 7,
        "api_key": "***",
        "hf_token": "***",
        "token_dim": 64,
        "tokenizer": "abc",
        "password": None,
        "secrets": ["***"],
    }
    assert plain["inside"]["number"] == 7
    assert OmegaConf.create({"x": "${oc.env:SECRET}"}).x == "7"


@pytest.mark.slow
def test_null_switches_parts_off(script: Script) -> None:
    off = [f"callbacks.{name}=null" for name in ("pictures", "evaluate", "ema", "checkpoint", "progress")]
    options = [option for option in TINY if not option.startswith(("callbacks", "guidance"))]
    ended = script("train.py", *options, *off, "guidance.static_threshold=null", "logger.wandb=null", "output_dir=run")
    assert ended.code == 0, ended.err
    assert "now try" not in ended.out
    assert sorted(path.name for path in Path("run").iterdir()) == [
        "config.yaml",
        "lock",
        "metrics.jsonl",
        "result.json",
        "run.json",
    ]
    assert OmegaConf.load("run/result.json").checkpoint is None


@pytest.mark.parametrize("count", [0, 1, 3, 4], ids="{} items".format)
def test_less_than_a_batch_ends_with_code_3(count: int, script: Script, tmp_path: Path) -> None:
    for name, size in (("train", count), ("held", 2)):
        np.savez(tmp_path / f"{name}.npz", x=pixels(0, size, 1, 8, 8))
    data = ["data=arrays", f"data.path={tmp_path}/train.npz", f"data.validation={tmp_path}/held.npz"]
    options = ["data.shape=[1,8,8]", "conditioner=none", "logger=none", "callbacks.evaluate=null", "output_dir=run"]
    ended = script("train.py", *TINY, *data, *options, "data.batch_size=4")
    assert ended.code == (0 if count == 4 else 3), ended.err
    if count == 4:
        assert OmegaConf.load("run/result.json").steps == 6
    elif count:
        assert f"train has {count} items, fewer than 4: with trainer.devices=1, lower data.batch_size=4" in ended.err
    else:
        assert "(0, 1, 8, 8) and holds no items" in ended.err


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_split_without_items_is_told_with_batch_and_devices(name: str) -> None:
    data = Digits([1, 8, 8], 10, 4)
    data.splits[name] = {"x": torch.zeros(0, 1, 8, 8)}
    with pytest.raises(DataError, match=rf"{name} has 0 items.* trainer.devices=2, lower data.batch_size=4 or"):
        check_items(data, {"devices": 2})


def test_fewer_held_out_items_than_devices_are_refused() -> None:
    data = Digits([1, 8, 8], 10, 4)
    data.splits["validation"] = {"x": torch.zeros(3, 1, 8, 8)}
    check_held_out(data, 3)
    with pytest.raises(DataError, match=r"3 held-out items are too few for 4 devices.* lower trainer.devices"):
        check_held_out(data, 4)
