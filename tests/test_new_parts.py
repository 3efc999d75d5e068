"""A new part is one file and one YAML, in a package of the user's own and in inkdrop itself."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from entry_scripts import ROOT, completed
from PIL import Image

# By group of conf/: the package of such a part within inkdrop, the file of the part, and its YAML without the target.
PARTS: dict[str, tuple[str, str, str]] = {
    "metric": (
        "metrics",
        """
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from inkdrop.metrics.metric import Metric


@dataclass(frozen=True)
class Dummy(Metric):
    \"\"\"Distance between the means of features.\"\"\"

    factor: Annotated[float, Gt(0)] = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __call__(self, samples, reference, held_out, extractor):
        first, second = (each.features_on(extractor.device).mean(0) for each in (samples, reference))
        return {f"distance_{extractor.name}": self.factor * float((first - second).norm())}
""",
        "dummy:\n  _target_: {}\n  factor: 1.0  # what the distance is multiplied by\n",
    ),
    "network": (
        "networks",
        """
import torch
from torch import nn


class Dummy(nn.Module):
    \"\"\"A network of one weight.\"\"\"

    def __init__(self, shape: list[int]):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x, c_noise):
        return self.weight * x
""",
        "_target_: {}\nshape: ${{data.shape}}\n",
    ),
    "sampler": (
        "samplers",
        """
from inkdrop.constraints import Transition
from inkdrop.samplers import Sampler, towards
from inkdrop.time_grids import TimeGrid


class Dummy(Sampler):
    \"\"\"Euler's method, whose last x is moved.\"\"\"

    def __init__(self, time_grid: TimeGrid, shift: float = 0.125):
        super().__init__(time_grid)
        self.shift = shift

    def step(self, denoise, x, now, next, noise, history):
        mean, std = towards(x, denoise(x, now).x_0, now, next)
        return Transition(mean + self.shift * (next.t == 0), std), history
""",
        "_target_: {}\ntime_grid: ${{time_grid}}\nshift: 0.125  # what is added at the end\n",
    ),
    "data": (
        "data",
        """
import torch

from inkdrop.data.module import DataModule


class Dummy(DataModule):
    \"\"\"Points around (1, 2).\"\"\"

    def load(self):
        x = torch.tensor([1.0, 2.0]) + torch.tensor([[0.5, 0.25], [-0.5, -0.25]]).repeat(16, 1)
        return {"train": {"x": x}, "validation": {"x": x[:16]}}
""",
        "_target_: {}\nshape: [2]  # coordinates\nnum_classes: 0  # no labels\nbatch_size: 8  # points of a batch\n"
        "seed: ${{seed}}\n",
    ),
    "schedule": (
        "schedules",
        """
from inkdrop.schedules.base import Schedule


class Dummy(Schedule):
    \"\"\"A straight line.\"\"\"

    def __init__(self, t_min: float = 1e-3):
        self.t_min = t_min

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t

    def time(self, log_snr):
        return (-log_snr / 2).sigmoid()

    def log_snr_rate(self, t):
        return -2 / (t * (1 - t))
""",
        "_target_: {}\nt_min: 1e-3  # smallest time\n",
    ),
    "time_grid": (
        "time_grids",
        """
from inkdrop.time_grids.base import TimeGrid, descending


class Dummy(TimeGrid):
    \"\"\"Two steps.\"\"\"

    def __call__(self, schedule, t_start=1.0):
        return descending([t_start, t_start / 2], schedule)
""",
        "_target_: {}\n",
    ),
    "guidance": (
        "guidance",
        """
from inkdrop.denoiser import Estimate, Wrapper
from inkdrop.guidance.base import Guidance


class _Constant(Wrapper):
    def forward(self, x_t, now, cond):
        x_0, extras = self.denoiser(x_t, now, cond)
        return Estimate(0 * x_0 + 0.25, extras)


class Dummy(Guidance):
    \"\"\"A constant estimate.\"\"\"

    def __call__(self, denoiser, pipeline, batch):
        return _Constant(denoiser)
""",
        "dummy:\n  _target_: {}\n",
    ),
    "loss": (
        "losses",
        """
from inkdrop.losses.denoising import DenoisingLoss


class Dummy(DenoisingLoss):
    \"\"\"The squared error and 1000.\"\"\"

    def forward(self, *arguments, **options):
        terms = super().forward(*arguments, **options)
        return terms._replace(loss=terms.loss + 1000)
""",
        "_target_: {}\ntime_sampler: ${{time_sampler}}\nweighting: ${{weighting}}\ncoupling: ${{coupling}}\n",
    ),
    "extractor": (
        "metrics",
        """
from inkdrop.metrics.extractors import Extractor


class Dummy(Extractor):
    \"\"\"The data themselves.\"\"\"

    name, dim = "dummy", 2

    def forward(self, data):
        return data.flatten(1).float()
""",
        "_target_: {}\n",
    ),
    "codec": (
        "codecs",
        """
from inkdrop.codecs.base import Codec


class Dummy(Codec):
    \"\"\"Half of the data.\"\"\"

    def encode(self, batch, generators=None):
        return batch["x"] / 2

    def reconstruct(self, x):
        return 2 * x
""",
        "_target_: {}\n",
    ),
    "conditioner": (
        "conditioners",
        """
from inkdrop.conditioners.base import Conditioner


class Dummy(Conditioner):
    \"\"\"No condition.\"\"\"

    def condition(self, batch, dropped):
        return {}

    def request(self, seeds, **condition):
        self.require_known(condition)
        return {}
""",
        "_target_: {}\n",
    ),
    "view": (
        "pictures",
        """
import numpy as np

from inkdrop.pictures.base import View


class Dummy(View):
    \"\"\"A grey square, and a file of all numbers.\"\"\"

    def sheet(self, data, batch={}, columns=None):
        return np.full((7, 7, 3), 128, np.uint8)

    def files(self, data, batch, seeds, classes=()):
        return ["numbers.txt"]

    def write(self, folder, data, batch, seeds, classes=()):
        (folder / "numbers.txt").write_text(f"{data.tolist()}")
""",
        "_target_: {}\n",
    ),
    "experiment": (  # which has the callback: there is no group of these
        "callbacks",
        """
from lightning.pytorch import Callback

from inkdrop.loggers.rows import record


class Dummy(Callback):
    \"\"\"Logs a number.\"\"\"

    def on_train_end(self, trainer, pl_module):
        record(trainer, {"dummy": 1.0})
""",
        """defaults:
  - override /data: dummy
  - override /network: dummy
  - override /sampler: dummy
  - override /schedule: dummy
  - override /time_grid: dummy
  - override /guidance: dummy
  - override /loss: dummy
  - override /metric: [dummy]
  - override /extractor: dummy
  - override /codec: dummy
  - override /conditioner: dummy
  - override /view: dummy
  - override /prediction: flow
  - override /time_sampler: uniform
  - override /logger: none
name: dummy
trainer:
  max_steps: 3
  log_every_n_steps: 1
  val_check_interval: 3
callbacks:
  pictures: null
  dummy:
    _target_: {}
""",
    ),
}
# Options that the parts fit which do not fit the defaults.
EXAMPLES = {
    **dict.fromkeys(("network", "data", "extractor", "codec"), "experiment=moons"),
    "schedule": "prediction=flow time_sampler=uniform",
}
SHOWN = ("network", "sampler", "schedule", "time_grid", "loss", "codec", "conditioner")  # by `describe`


@dataclass
class Home:
    """Where the parts are: `options` of train.py and sample.py, `overrides` of the verbs, and the environment."""

    name: str
    folder: Path
    options: list[str]
    overrides: list[str]
    environment: dict[str, str]

    def ended(self, *command: str) -> subprocess.CompletedProcess[str]:
        """How `python COMMAND` ended in the folder."""
        return completed(*command, cwd=self.folder, **self.environment)

    def out(self, *command: str) -> str:
        """What a command printed that ended well."""
        done = self.ended(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout


def write(group: str, sources: Path, conf: Path, module: str) -> None:
    """Writes the file of a part, `module`, and its YAML."""
    _, code, text = PARTS[group]
    file, example = sources.joinpath(*module.split(".")).with_suffix(".py"), EXAMPLES.get(group)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert not file.exists()
    file.write_text(f'"""A part."""\n{code}')
    (conf / group).mkdir(parents=True, exist_ok=True)
    (conf / group / "dummy.yaml").write_text(
        "# @package _global_\n" * (group == "experiment")
        + "# A part.\n"
        + (f"# Example: {group}=dummy {example}\n" if example else "")
        + text.format(f"{module}.Dummy")
    )


def of_the_user(folder: Path) -> Home:
    """A package of the user's own, and a folder of configurations."""
    for group in PARTS:
        write(group, folder, folder / "my_conf", f"mine.{group}")
    for name in ("train.py", "sample.py"):
        shutil.copy(ROOT / name, folder / name)
    allowed = "allow_targets=[mine.]"
    return Home(
        "of the user",
        folder,
        ["--config-dir", str(folder / "my_conf"), allowed],
        [f"hydra.searchpath=[file://{folder}/my_conf]", allowed],
        {"PYTHONPATH": f"{folder}:{ROOT / 'src'}"},
    )


def of_inkdrop(folder: Path) -> Home:
    """The repository with two files more for each part."""
    for name in ("src", "conf", "docs", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    for file in (*ROOT.glob("*.py"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"):
        shutil.copy(file, folder / file.name)
    for group, (package, _, _) in PARTS.items():
        name = "dummy_extractor" if group == "extractor" else "dummy"
        write(group, folder / "src", folder / "conf", f"inkdrop.{package}.{name}")
    return Home("of inkdrop", folder, [], [], {"PYTHONPATH": str(folder / "src")})


@pytest.fixture(
    scope="module",
    params=[of_the_user, pytest.param(of_inkdrop, marks=pytest.mark.slow)],
    ids=lambda make: make.__name__,
)
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A run in the folder `run` that has all these parts."""
    folder = tmp_path_factory.mktemp("home")
    made: Home = request.param(folder)
    made.environment["INKDROP_CACHE_DIR"] = str(folder / "cache")
    made.out("train.py", *made.options, "experiment=dummy", "output_dir=run")
    return made


def test_help_lists_the_parts(home: Home) -> None:
    out = home.out("train.py", *home.options, "--help")
    listed = {group for group, names in re.findall(r"^  (\w+) +(.*)$", out, re.MULTILINE) if "dummy" in names.split()}
    assert listed >= set(PARTS)


def test_describe_names_the_parts(home: Home) -> None:
    out = home.out("-m", "inkdrop", "describe", *home.overrides, "experiment=dummy", "--no-probe")
    assert [name for name in SHOWN if not re.search(rf"^- {name}: Dummy", out, re.MULTILINE)] == []


def test_data_are_inspected(home: Home) -> None:
    out = home.out("-m", "inkdrop", "check-data", *home.overrides, "experiment=dummy")
    assert re.search(r"^train +32 items of shape \(2,\), torch.float32$", out, re.MULTILINE)
    assert re.search(r"^validation +16 items", out, re.MULTILINE)


def test_a_run_has_the_parts(home: Home) -> None:
    rows = [json.loads(line) for line in (home.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    assert len(losses) == 3
    assert all(loss > 1000 for loss in losses)
    assert [row["dummy"] for row in rows if "dummy" in row] == [1.0]
    (file,) = (home.folder / "run" / "checkpoints").glob("step-*3.ckpt")
    state = torch.load(file, weights_only=True)["state_dict"]
    (weight,) = (value for name, value in state.items() if name.endswith("network.weight"))
    assert weight.item() != 1


def assert_measured(result: Path, sample: float, count: int) -> None:
    """The metric is that of samples which are all equal; the data have their mean at (1, 2)."""
    metrics = json.loads(result.read_text())["metrics"]
    assert metrics[f"distance_dummy_{count}"] == pytest.approx(math.hypot(1 - sample, 2 - sample), rel=1e-6)
    assert metrics[f"distance_dummy_{count}_floor"] == pytest.approx(0, abs=1e-6)


def test_samples_come_from_the_parts_and_are_measured_by_them(home: Home) -> None:
    """The guide says 0.25 everywhere, the sampler adds 0.125, and the codec doubles."""
    assert_measured(home.folder / "run" / "result.json", 0.75, 16)
    home.out(
        "sample.py", *home.options, "checkpoint=run", "num_samples=8", "evaluate=true", "output_dir=samples/of_the_run"
    )
    chosen = ["sampler=dummy", "sampler.shift=0.5", "time_grid=dummy", "guidance=dummy", "metric=dummy"]
    home.out(
        *("sample.py", *home.options, "checkpoint=run", "num_samples=8", "evaluate=true", "extractor=dummy", *chosen),
        "output_dir=samples/chosen",
    )
    for name, sample in (("of_the_run", 0.75), ("chosen", 1.5)):
        folder = home.folder / "samples" / name
        with np.load(folder / "samples.npz") as file:
            assert np.array_equal(file["x"], np.full((8, 2), sample, np.float32))
        with Image.open(folder / "grid.png") as grid:
            assert grid.size == (7, 7)
        assert_measured(folder / "result.json", sample, 8)
        assert json.loads((folder / "result.json").read_text())["network_calls"] == 2  # of the time grid
    out = home.out("-m", "inkdrop", "report", "samples")
    assert "distance_dummy_8" in out
    assert f"{math.hypot(0.25, 1.25):.5g}" in out


def test_a_checkpoint_names_parts_of_inkdrop_alone(home: Home) -> None:
    """Those of the user are allowed on the command line."""
    done = home.ended("sample.py", "checkpoint=run", "num_samples=2", "output_dir=by_itself")
    if home.name == "of inkdrop":
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 4
        assert "_target_=mine." in done.stderr
        assert "allow_targets=[your_package.]" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("home", [of_inkdrop], indirect=True, ids=["of_inkdrop"])
def test_nothing_else_has_to_be_changed(home: Home) -> None:
    """What the tests of inkdrop want of each part holds for these, and the generated pages show them."""
    tests = ["test_configuration.py", "test_architecture.py", "test_metric_values.py", "test_docs.py"]
    names = "dummy or file or place or circle or names_that_say or at_once or page_of_choices or shows_what_a_package"
    done = home.ended(
        *("-m", "pytest", "-v", "-n", "0", "-p", "no:cacheprovider", "--assert=plain"),
        *("-k", f"({names}) and not pages_name"),
        *(f"tests/{name}" for name in tests),
    )
    assert done.returncode == 0, done.stdout
    for group in PARTS:
        assert f"test_every_choice_composes_checks_and_builds[{group}=dummy] PASSED" in done.stdout
