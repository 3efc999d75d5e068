"""Models that are no diffusion: a GAN by the ordinary task, from train.py to sample.py and back from its checkpoint."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import completed
from runs import differing
from torch import Tensor, nn
from torch.func import functional_call

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.codecs import Codec
from inkdrop.data.toys import ring
from inkdrop.losses import Example, Loss, LossTerms
from inkdrop.models import Model
from inkdrop.randomness import Generators
from inkdrop.tasks.base import Batch, Task

ALLOWED = "allow_targets=[test_models.]"
MODES = torch.stack([torch.tensor([2 * math.cos(a), 2 * math.sin(a)]) for a in torch.arange(8) * math.pi / 4])


def perceptron(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(before, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, after)
    )


class GAN(Model):
    """A generator of points from noise of 4 numbers, and the discriminator that it is trained against."""

    draws = True

    def __init__(self, codec: Codec, shape: list[int]):
        super().__init__()
        self.codec, self.shape = codec, tuple(shape)
        self.network, self.discriminator = perceptron(4, shape[0]), perceptron(shape[0], 1)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        if condition:
            raise ValueError(f"condition.{next(iter(condition))} has no effect: this model takes no condition")
        return {}

    @torch.no_grad()
    def forward(self, batch: Any, seeds: Sequence[int], progress: Any = None, eps: Tensor | None = None) -> Tensor:
        z = Generators.from_seeds(seeds).at("start").normal([4]).to(self.device)
        return self.codec.decode(self.network(z))


class Adversarial(Loss):
    """The logistic losses of both players at once, and a penalty `factor |grad D|^2` on real data.

    Sources: Goodfellow et al. 2014; Mescheder et al. 2018, arXiv 1801.04406.
    """

    def __init__(self, factor: float = 0.05):
        super().__init__()
        self.factor = factor

    @property
    def logged(self) -> tuple[str, ...]:
        return ("generator", "discriminator")

    def forward(self, model: GAN, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
        made = model.network(generators.at("z").normal([4]))
        fixed = {name: value.detach() for name, value in model.discriminator.named_parameters()}
        generator = nn.functional.softplus(-functional_call(model.discriminator, fixed, made)).flatten()
        with torch.enable_grad():  # validation has no graph
            real = example.x_0.detach().requires_grad_()
            scores = model.discriminator(real)
            (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        false = nn.functional.softplus(model.discriminator(made.detach())).flatten()
        discriminator = nn.functional.softplus(-scores).flatten() + false
        loss = generator + discriminator + self.factor * slope.square().sum(1)
        return LossTerms(loss, None, {"generator": generator, "discriminator": discriminator})


class GANTask(Task):
    """Trains both players by one optimizer, each with its own norm of the gradient."""

    estimate = "x = G(z)"

    def advice(self, run: str) -> dict[str, Any]:
        return {"checkpoint": run, "num_samples": 64}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        players = {"generator": self.pipeline.network, "discriminator": self.pipeline.discriminator}
        return {name: list(player.parameters()) for name, player in players.items()}

    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        assert t is None
        terms: LossTerms = self.loss(
            self.pipeline, self.example(self.pipeline.codec.encode(batch), {}, batch), generators
        )
        return terms


CONFIGURATION = """
# @package _global_
pipeline:
  _target_: test_models.GAN
  codec: ${codec}
  shape: ${data.shape}
task:
  _target_: test_models.GANTask
  pipeline: ${pipeline}
  loss:
    _target_: test_models.Adversarial
  optimizer: ${optimizer}
  scheduler: ${scheduler}
  seed: ${seed}
"""
OPTIONS = ["experiment=moons", "data=ring", "task=players", "trainer.gradient_clip_val=null", "logger=none", ALLOWED]
OPTIONS += ["optimizer.lr=1e-3", "optimizer.betas=[0.5,0.99]", "data.batch_size=256", "callbacks.ema.decays=[0.99]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of the user's own, and a short run of the GAN on a ring of eight modes."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "conf/task").mkdir(parents=True)
    (folder / "conf/task/players.yaml").write_text(CONFIGURATION)
    short = ["trainer.max_steps=6", "trainer.log_every_n_steps=2", "trainer.val_check_interval=3"]
    trained(folder, "run", *short, "evaluation.num_samples=1000")
    return folder


def trained(folder: Path, name: str, *more: str) -> dict[str, Any]:
    paths = [f"hydra.searchpath=[file://{folder / 'conf'}]", f"output_dir={folder / name}"]
    return inkdrop.train(*OPTIONS, *paths, *more)


@pytest.mark.slow
def test_a_gan_reaches_the_modes_of_a_ring_by_the_ordinary_task(folder: Path, tmp_path: Path) -> None:
    steps = ["trainer.max_steps=700", "optimizer.lr=2e-3"]
    trained(folder, "long", *steps, "evaluation.num_samples=1000", "callbacks.checkpoint.keep=5")
    inkdrop.sample(f"checkpoint={folder / 'long'}", "num_samples=2000", ALLOWED, f"output_dir={tmp_path / 's'}")
    with np.load(tmp_path / "s/samples.npz") as file:
        x = torch.from_numpy(file["x"])
    distance, mode = torch.cdist(x, MODES).min(1)
    counts = torch.bincount(mode[distance < 0.5], minlength=8)
    assert int((counts > 40).sum()) >= 7, counts
    real = ring(2000, torch.Generator().manual_seed(0))
    assert torch.cdist(real, MODES).min(1).values.mean() < distance.mean() < 0.5


@pytest.mark.slow
def test_each_player_has_its_own_norm_and_is_clipped_by_it(folder: Path, tmp_path: Path) -> None:
    text = (folder / "run/metrics.jsonl").read_text()
    for name in ("gradient_norm_generator", "gradient_norm_discriminator", "generator", "discriminator"):
        assert f'"train/{name}"' in text, name
    assert '"validation/generator"' in text
    assert "loss_by_t" not in text


@pytest.mark.slow
def test_a_run_resumes_to_the_bit(folder: Path, tmp_path: Path) -> None:
    short = ["trainer.max_steps=6", "callbacks.evaluate=null", "callbacks.pictures=null", "scheduler.warmup_steps=2"]
    short += ["callbacks.checkpoint.every.steps=3", "trainer.gradient_clip_val=0.1"]
    trained(folder, "whole", *short)
    shutil.copytree(folder / "whole", folder / "half")
    index = folder / "half/checkpoints/index.json"
    (folder / "half/checkpoints/step-00000006.ckpt").unlink()
    index.unlink()
    (folder / "half/result.json").unlink()
    trained(folder, "half", *short, "run_id=null")
    assert differing(read_checkpoint(folder / "whole"), read_checkpoint(folder / "half")) == []


@pytest.mark.slow
def test_samples_and_load_need_no_sampler(folder: Path, tmp_path: Path) -> None:
    result = inkdrop.sample(
        *(f"checkpoint={folder / 'run'}", "num_samples=20", "evaluate=true", ALLOWED, f"output_dir={tmp_path / 's'}")
    )
    assert result["network_calls"] == 1
    assert result["protocol"]["sampling"]["sampler"] is None
    model: Any = inkdrop.load(folder / "run", allow_targets=["test_models."])
    with np.load(tmp_path / "s/samples.npz") as file:
        assert np.allclose(model({}, range(20)).numpy(), file["x"], atol=1e-6)
    assert torch.allclose(model({}, [3, 5])[1:], model({}, [5]), atol=1e-6)
    for option in ("sampler=ddim", "constraint=replacement", "time_grid=linspace"):
        with pytest.raises(ValueError, match="is a GAN, which has no sampler: remove"):
            inkdrop.sample(f"checkpoint={folder / 'run'}", ALLOWED, option, f"output_dir={tmp_path / 'no'}")
    with pytest.raises(ValueError, match=r"condition\.label has no effect"):
        inkdrop.sample(f"checkpoint={folder / 'run'}", ALLOWED, "condition.label=3", f"output_dir={tmp_path / 'no'}")
    assert not (tmp_path / "no").exists()


def test_describe_says_what_a_model_without_times_is(folder: Path) -> None:
    command = ["-m", "inkdrop", "describe", *OPTIONS, f"hydra.searchpath=[file://{folder / 'conf'}]", "--no-probe"]
    ended = completed(*command, cwd=Path(__file__).parent)
    assert ended.returncode == 0, ended.stderr
    assert "x = G(z)" in ended.stdout
    assert "log-SNR" not in ended.stdout
