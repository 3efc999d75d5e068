"""Makes a set of golden files: `python tests/golden/make.py SET`, in a new folder beside this file.

A set is what the code of its commit wrote: run folders, samples, a calibration, and `commands.json` with the commands
that made them, each run within the folder of the set. `tests/test_golden.py` proves of every set that later code still
reads it and reaches the same numbers. A set is never written again: where the format changes, another comes beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: sums are equal to the bit on equal numbers of threads

import numpy as np
import torch

import inkdrop

ROOT = Path(__file__).parents[2]
RUN = ["logger=none", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.max_steps=6"]
RUN += ["trainer.log_every_n_steps=2", "trainer.val_check_interval=3", "+trainer.limit_val_batches=2"]
RUN += ["callbacks.evaluate.every.steps=3", "callbacks.checkpoint.every.steps=3", "callbacks.checkpoint.keep=1"]
RUN += ["callbacks.loss_by_noise_level.every.steps=3", "callbacks.pictures=null", "time_grid.num_steps=4"]
RUN += ["network.dropout=0.2", "data.batch_size=16", "evaluation.num_samples=20", "metric.frechet.min_samples=2"]
UNET = ["network.base_channels=4", "network.channel_multipliers=[1,2]", "network.norm_groups=2"]
DIGITS = [*RUN, *UNET, "prediction=v", "conditioner.dim=8", "conditioner.dropout=0.3"]
MOONS = ["experiment=moons", *RUN, "network.width=16", "network.num_blocks=1"]
CLASSIFIER = ["experiment=digits_classifier", *(option for option in RUN if "evalua" not in option)]
CLASSIFIER += [option.replace("network.", "network.network.") for option in UNET]
CLASSIFIER = [option.replace("network.dropout", "network.network.dropout") for option in CLASSIFIER]

# Options of train.py by the run folder, which is `output_dir`. Their order is that in which they are made.
TRAIN: dict[str, list[str]] = {
    "digits": [*DIGITS, "guidance=none"],
    "moons": MOONS,
    "self_conditioned": [
        *["experiment=digits_unconditional", *RUN, *UNET],
        *["prediction=v", "denoiser=self_conditioned", "callbacks.evaluate=null"],
    ],
    "classifier": CLASSIFIER,
    "autoguidance": [
        *[*DIGITS, "guidance=autoguidance", "guidance.autoguidance.weak.checkpoint=digits"],
        *["seed=1", "callbacks.ema.decays=[0.9,0.99]"],
    ],
    "snapshots": [
        *[*MOONS, "callbacks.ema.lengths=[0.05,0.1]"],
        "callbacks.ema.snapshots={_target_:inkdrop.callbacks.Every,steps:2}",
    ],
}
# Runs of the same options as another, killed as they begin to write the checkpoint of a step.
KILLED: dict[str, tuple[str, int]] = {
    "digits_interrupted": ("digits", 6),
    "moons_interrupted": ("moons", 6),
    "moons_killed": ("moons", 3),  # its first one
}
CALIBRATE: dict[str, list[str]] = {
    "moons": ["time_grid.num_steps=2", "num_trajectories=64", "num_rounds=5", "device=cpu"]
}
# Options of sample.py by the name of the samples.
SAMPLE: dict[str, list[str]] = {
    "digits": ["checkpoint=digits", "num_samples=20", "evaluate=true"],
    "digits_ancestral": ["checkpoint=digits", "num_samples=6", "condition.label=7", "weights=raw", "sampler=ancestral"],
    "digits_interrupted": ["checkpoint=digits_interrupted", "num_samples=6"],
    "moons": ["checkpoint=moons", "num_samples=20", "evaluate=true", "metric=[frechet,sliced_wasserstein]"],
    "moons_calibrated": ["checkpoint=moons", "num_samples=6", "sampler=calibrated", "time_grid.num_steps=2"],
    "self_conditioned": ["checkpoint=self_conditioned", "num_samples=6"],
    "guided_by_classifier": [
        *["checkpoint=self_conditioned", "num_samples=6", "condition.label=3"],
        *["guidance=classifier", "guidance.checkpoint=classifier"],
    ],
    "autoguidance": ["checkpoint=autoguidance", "num_samples=6"],
    "autoguidance_stronger": ["checkpoint=autoguidance", "num_samples=6", "weights=0.99", "guidance.scale=4"],
    "snapshots": ["checkpoint=snapshots", "num_samples=6", "ema.length=0.08"],
}
SAMPLE = {name: [*options, "trainer.accelerator=cpu"] for name, options in SAMPLE.items()}
# Arguments of inkdrop.load by the name of what is loaded.
LOAD: dict[str, dict[str, Any]] = {
    "digits": {"path": "digits"},
    "digits_raw": {"path": "digits", "weights": "raw"},
    "digits_interrupted": {"path": "digits_interrupted"},
    "moons": {"path": "moons"},
    "self_conditioned": {"path": "self_conditioned"},
    "autoguidance": {"path": "autoguidance"},
    "autoguidance_average": {"path": "autoguidance", "weights": "0.99"},
    "snapshots": {"path": "snapshots", "weights": "length:0.1"},
    "snapshots_length": {"path": "snapshots", "length": 0.08},
    "snapshots_step": {"path": "snapshots", "length": 0.08, "step": 4},
}
_KILLED = """
import os, runpy, signal, sys, torch
step, save = int(sys.argv.pop(1)), torch.save
def killed(content, *arguments, **options):
    if isinstance(content, dict) and content.get("global_step") == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return save(content, *arguments, **options)
torch.save = killed
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def machine() -> dict[str, Any]:
    """What numbers depend on to the bit."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = ("vendor_id", "cpu family", "model", "model name", "stepping")
    cpu = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if line.split("\t")[0] in names}
    return {
        **{name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn")},
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu,
    }


def loaded(options: dict[str, Any]) -> tuple[dict[str, str], np.ndarray]:
    """Names and digests of the weights that `inkdrop.load` gives, and four samples before they are rounded."""
    pipeline = inkdrop.load(**options)
    pipeline.codec.decode = lambda x, *_: x
    samples = pipeline(pipeline.request(range(4)), range(4))
    digests = {
        name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in pipeline.state_dict().items()
    }
    return digests, samples.numpy()


def _make(folder: Path) -> None:
    os.chdir(folder)

    def python(*arguments: str, expected: int = 0) -> None:
        print("python", *(each for each in arguments if each != _KILLED), flush=True)
        assert subprocess.run([sys.executable, *arguments], check=False).returncode == expected

    train, sample = str(ROOT / "train.py"), str(ROOT / "sample.py")
    for name, options in TRAIN.items():
        python(train, *options, f"output_dir={name}")
    for name, (whole, step) in KILLED.items():
        python("-c", _KILLED, str(step), train, *TRAIN[whole], f"output_dir={name}", expected=-9)
    for name, options in CALIBRATE.items():
        python("-m", "inkdrop", "calibrate", f"checkpoint={name}", *options)
    for name, options in SAMPLE.items():
        python(sample, *options, f"output_dir=samples/{name}")
    found = {name: loaded(options) for name, options in LOAD.items()}
    np.savez("loaded.npz", **{name: samples for name, (_, samples) in found.items()})
    weights = {name: digests for name, (digests, _) in found.items()}
    commands = {"train": TRAIN, "killed": KILLED, "calibrate": CALIBRATE, "sample": SAMPLE, "load": LOAD}
    for name, content in {"machine": machine(), "weights": weights, "commands": commands}.items():
        Path(f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    for file in [*Path().rglob("lock"), *Path().rglob("*.png"), *Path().rglob("*.unfinished")]:
        file.unlink()


if __name__ == "__main__":
    goal = Path(__file__).parent / sys.argv[1]
    assert not goal.exists(), f"{goal} is there already: a set is never written again"
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["INKDROP_CACHE_DIR"] = f"{temporary}/cache"
        (Path(temporary) / "golden").mkdir()
        _make(Path(temporary) / "golden")
        shutil.move(Path(temporary) / "golden", goal)
