"""`python -m inkdrop describe`: figures against hand counts and closed forms, refusals as those of train.py."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import ROOT, Script
from torch import Tensor, nn

from inkdrop.__main__ import main
from inkdrop.codecs import Standardize
from inkdrop.commands.describe import costs
from inkdrop.commands.describe.facts import describe
from inkdrop.commands.describe.page import markdown
from inkdrop.commands.describe.passes import training_pass
from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.errors import ConfigurationError
from inkdrop.losses import DenoisingLoss
from inkdrop.pictures.plots import process
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import FlowPrediction
from inkdrop.samplers import DDIM
from inkdrop.schedules import EDM, LinearInterpolation
from inkdrop.tasks import DiffusionTask
from inkdrop.tasks.learning_rate import warmup_cosine
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import LogNormalSigma, Uniform
from inkdrop.weightings import Unit

WIDTHS = {f"edm2_{size}" for size in ("s", "m", "l", "xl", "xxl")}  # that edm2_xs differs from by its width alone
EXPERIMENTS = sorted({file.stem for file in (ROOT / "conf" / "experiment").glob("*.yaml")} - WIDTHS)
# Published networks are made small, as their numbers of weights are pinned in the tests of recipes.
NARROW = {
    **{name: 32 for name in EXPERIMENTS if name.startswith(("ddim", "ddpm", "edm_cifar10", "flow_", "score_"))},
    **dict.fromkeys(("edm2_xs", "edm_imagenet64"), 64),
}
NARROWER = {
    **{name: [f"network.base_channels={width}", "network.num_blocks=1"] for name, width in NARROW.items()},
    "improved_ddpm": ["network.network.base_channels=32", "network.network.num_blocks=1"],
    "adm_imagenet64": ["network.network.base_channels=64", "network.network.num_blocks=1"],
    "dit_xl_2": ["network.network.width=64", "network.network.depth=2"],
}
LARGE = {"cifar10_jpeg": pytest.mark.slow}
TRAINER = {"accelerator": "cpu", "precision": "32-true", "log_every_n_steps": 1}


class _Convolutions(nn.Module):
    """3 channels of 8 x 8 to 5 and back, with a matrix product on the time between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 1)
        self.time = nn.Linear(1, 5)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return self.last((self.first(x) + self.time(c_noise[:, None])[:, :, None, None]).tanh())


class _Slow(nn.Module):
    """So many seconds for a call, and for each sample in it."""

    def __init__(self, call: float, sample: float):
        super().__init__()
        self.call, self.sample, self.scale = call, sample, nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        time.sleep(self.call + self.sample * len(x))
        return self.scale * x


def task_of(network: nn.Module, optimizer: Any = torch.optim.AdamW) -> DiffusionTask:
    denoiser = NetworkDenoiser(network, LinearInterpolation(), FlowPrediction())
    pipeline = Pipeline(denoiser, Unconditional(), Standardize(), DDIM(Trailing(4)), [3, 8, 8])
    loss = DenoisingLoss(Uniform(), Unit())
    return DiffusionTask(pipeline, loss, optimizer, lambda each: warmup_cosine(each, 1, 10))


# Experiments on a model that another run has trained, and the option that names it.
OF_A_RUN = {
    "e2e_attributes": r"codec\.model\.checkpoint",
    "diffuseq": r"data\.path",
    "scenes_latent": r"codec\.model\.checkpoint",
    "unclip_prior": r"codec\.model\.checkpoint",
    "unclip_decoder": r"conditioner\.model\.checkpoint",
    "dreambooth": r"data\.subject",
    "textual_inversion": r"data\.subject",
}


@pytest.mark.many
@pytest.mark.parametrize("name", [pytest.param(each, marks=LARGE.get(each, ())) for each in EXPERIMENTS])
def test_every_experiment_is_described_without_its_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_DATA_DIR", "nowhere")
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    shapes = {
        "photos": "[3,64,96]",
        "series": "[3,64]",
        "table": "[8]",
        "text_to_image": "[3,32,32]",
    }  # of data of the user's own
    own = (
        [f"data.path=nowhere{'' if name in ('photos', 'text_to_image') else '.npz'}", f"data.shape={shapes[name]}"]
        if name in shapes
        else []
    )
    if name in OF_A_RUN:
        with pytest.raises(ConfigurationError, match=rf"^{OF_A_RUN[name]} is needed and has no default"):
            describe([f"experiment={name}", *own], seconds=0)
        return
    found = describe([f"experiment={name}", *own, *NARROWER.get(name, ())], seconds=0)
    assert ("Inception's weights are not at " in found["missing"]) == (name in NARROWER)
    absent = any(each in name for each in ("mnist", "exchange_rate", "e2e", "cifar10_jpeg", *shapes, *NARROWER))
    assert bool(found["missing"]) == absent
    assert found["memory"]["activations"] > 0
    page = markdown(found)
    timeless = name in ("autoencoder", "e2e_autoregressive", "gan", "gan_points", "vae", "vae_mnist")
    assert (15 if timeless else 30) < page.count("\n") < 60
    assert timeless == ("x_t = alpha(t) x_0" not in page) == ("c_noise" not in page)
    assert max(map(len, page.splitlines())) <= 120
    parts = {"loss", "network"} if timeless else {"schedule", "prediction", "loss", "time_sampler", "network"}
    assert set(found["parts"]) >= parts
    assert all(0 < len(part["does"]) < 200 and ". - `" not in part["does"] for part in found["parts"].values())
    assert not [part["does"] for part in found["parts"].values() if part["does"].startswith("Returns")]
    unsampled = timeless or name in ("clip", "digits_classifier")
    assert unsampled == ("sampling" not in found) == ("sampler" not in found["parts"])
    if name == "cifar10_jpeg":
        assert found["parameters"]["network"] == found["parameters"]["trained"] == 35_746_307
        assert found["operations"]["call"] == pytest.approx(2 * 6.1e9, rel=0.05)  # 6.1 G multiplications, as published
        assert "35.7 M" in page


def test_operations_are_those_counted_by_hand() -> None:
    found = training_pass(task_of(_Convolutions())).operations
    first, last, linear = 2 * 64 * 9 * 3 * 5, 2 * 64 * 5 * 3, 2 * 1 * 5
    assert found["call"] == first + last + linear
    # Backwards a layer costs as much for its weights, and for its input again, where that needs a gradient.
    assert found["training"] == 2 * first + 3 * last + 2 * linear


@pytest.mark.parametrize(
    "optimizer", [torch.optim.AdamW, lambda each: torch.optim.SGD(each, momentum=0.9), torch.optim.Adafactor]
)
def test_weights_and_optimizer_take_what_is_estimated(optimizer: Any) -> None:
    task = task_of(_Convolutions(), optimizer)
    parameters = list(task.parameters())
    found = costs.memory(task, 2, 4, "32-true")
    made = optimizer(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    made.step()
    state = [value for each in made.state.values() for value in each.values() if isinstance(value, Tensor)]
    assert found["optimizer"] == sum(value.nbytes for value in state) > 0
    assert found["gradients"] == sum(parameter.nbytes for parameter in parameters)
    assert found["averages"] == 2 * found["gradients"]
    assert found["weights"] == found["gradients"] + 8  # mean and deviation of the codec


def test_activations_of_a_batch_are_what_the_backward_pass_finds() -> None:
    task = task_of(_Convolutions())
    found = costs.memory(task, 0, 7, "32-true")["activations"]
    kept: dict[int, int] = {parameter.untyped_storage().data_ptr(): 0 for parameter in task.parameters()}
    x = torch.randn(7, 3, 8, 8)

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with saved, pytest.warns(UserWarning, match="trainer"):  # that it has none to log to
        loss = task.training_step({"x": x, "position": torch.arange(7)}, 0)["loss"]
    assert loss.requires_grad
    assert found == sum(kept.values()) > 4 * 64 * (3 + 5) * 7


def test_coefficients_and_weights_are_those_of_the_paper() -> None:
    found = describe(["experiment=digits_edm", "weighting=min_snr"], seconds=0)
    first, *rows = found["coefficients"]
    assert first == {"t": 0, "alpha": 1, "sigma": 0, "log-SNR": math.inf}
    assert [row["t"] for row in rows][1:] == [0.25, 0.5, 0.75, 1]
    assert rows[-1]["sigma"] == pytest.approx(80)
    for row in rows:
        sigma = row["sigma"]
        power = sigma**2 + 0.25
        assert row["log-SNR"] == pytest.approx(-2 * math.log(sigma))
        assert row["c_skip"] == pytest.approx(0.25 / power)
        assert row["c_out"] == pytest.approx(0.5 * sigma / math.sqrt(power))
        assert row["c_in"] == pytest.approx(1 / math.sqrt(power))
        assert row["c_noise"] == pytest.approx(math.log(sigma) / 4)
        assert row["weight"] == pytest.approx(min(sigma**-2, 5) * row["c_out"] ** 2)
    quartile, tail = 0.67449, 1.64485  # of the normal law of log(sigma), mean -1.2 and deviation 1.2
    levels = [2.4 + 2.4 * place for place in (-tail, -quartile, quartile, tail)]
    assert found["trained_log_snr"] == pytest.approx(levels, abs=2e-3)


@pytest.mark.slow
def test_a_classifier_is_described_as_what_it_is() -> None:
    overrides = ["experiment=digits_classifier", "schedule=edm", "prediction=karras", "time_sampler=log_normal"]
    found = describe(overrides, seconds=0.1)
    assert found["conditions"] == {}
    for row in found["coefficients"][1:]:
        assert set(row) == {"t", "alpha", "sigma", "log-SNR", "c_in", "c_noise"}
        assert row["c_in"] == pytest.approx(1 / math.sqrt(row["sigma"] ** 2 + 0.25))
        assert row["c_noise"] == pytest.approx(math.log(row["sigma"]) / 4)
    assert found["trained_log_snr"][1:3] == pytest.approx([2.4 - 2.4 * 0.67449, 2.4 + 2.4 * 0.67449], abs=2e-3)
    assert found["parameters"]["network"] == found["parameters"]["trained"] > found["parameters"]["children"]["out"]
    page = markdown(found)
    assert "p(y | x_t) = softmax F(c_in x_t, c_noise)" in page
    assert "-log p(y | x_t)" in page
    assert "steps/s" in page
    assert "sampling here" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "calls"),
    [
        (["sampler=heun", "time_grid=linspace", "time_grid.num_steps=18"], 35),  # two a step but for the last
        (["sampler=ancestral", "time_grid.num_steps=100"], 100),
        (["network=learned_variance", "loss=hybrid", "time_grid.num_steps=7"], 7),
        (["denoiser=self_conditioned", "time_grid.num_steps=7", "guidance=none"], 7),
    ],
    ids=["heun", "ancestral", "learned-variance", "self-conditioned"],
)
def test_calls_of_the_network_are_counted(overrides: list[str], calls: int) -> None:
    found = describe(overrides, seconds=0)["sampling"]
    assert found["calls"] == found["passes"] == calls
    assert len(found["times"]) == len(found["noise_levels"]) + 1
    assert (found["times"][0], found["times"][-1]) == (1, 0)


def test_the_probe_measures_steps_and_forward_passes() -> None:
    found = costs.speed(task_of(_Slow(0.05, 0)), TRAINER, 4, 1.2, compiled=False)
    assert found["measured_on"] == 4
    assert 4 < found["steps_per_second"] <= 20  # the lower ends are for busy machines
    assert 4 < found["calls_per_second"] <= 20


def test_the_probe_scales_what_takes_long_and_divides_by_accumulation() -> None:
    options = {**TRAINER, "accumulate_grad_batches": 2}
    found = costs.speed(task_of(_Slow(0, 0.01)), options, 64, 0.36, compiled=False)
    assert found["measured_on"] in (4, 8)  # 8 take 0.08 seconds, more than a sixth
    assert 0.2 < found["steps_per_second"] <= 0.5 / 0.64
    assert 0.4 < found["calls_per_second"] <= 1 / 0.64


@pytest.mark.slow
def test_a_model_whose_conditions_only_a_user_can_name_is_described_and_checked() -> None:
    small = ["network.base_channels=8", "network.norm_groups=4", "guidance=none"]
    found = describe([*small, "conditioner=image", "conditioner.concat_channels=2"], seconds=0)
    assert found["conditions"] == {"concat": [2, 8, 8]}
    assert found["operations"]
    assert "the network receives c_noise, concat [2, 8, 8]" in markdown(found)
    with pytest.raises(ValueError, match=r"vector_dim|conditioner|does not fit"):
        describe([*small, "conditioner=image", "conditioner.concat_channels=2", "network.concat_channels=3"], seconds=0)


@pytest.mark.slow
def test_the_plot_shows_the_law_of_the_noise_levels(tmp_path: Path) -> None:
    schedule = EDM(0.002, 80, 7)
    drawn = schedule.log_snr(LogNormalSigma().quantile(schedule, torch.linspace(0.0005, 0.9995, 9999)))
    figure = process(schedule, "edm", drawn, lambda t: 2 * torch.ones_like(t))
    *_, weight, density, product = (axes.lines[0].get_data() for axes in figure.axes)
    assert (weight[1] == 1).all()
    assert np.abs(density[1] - np.exp(-((density[0] - 2.4) ** 2) / (2 * 2.4**2))).max() < 0.05
    assert np.allclose(product[1], density[1])
    describe(["network.base_channels=8", "network.norm_groups=4"], 0, tmp_path / "pictures" / "run.png")
    assert (tmp_path / "pictures" / "run.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.many
@pytest.mark.parametrize(
    "overrides",
    [
        ["data.batchsize=4"],
        ["data.batch_size=0"],
        ["network.norm_groups=7"],
        ["schedule=linear"],
        ["+nothing=1"],
        ["data=cifar10", "network=ddpm_cifar10", "data.shape=[3,16,16]"],
        ["trainer.max_step=3"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_what_train_refuses_is_refused_alike(
    overrides: list[str], script: Script, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = script("train.py", *overrides, "output_dir=run")
    monkeypatch.setattr(sys, "argv", ["inkdrop", "describe", *overrides, "output_dir=run"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == refused.code == 2
    assert capfd.readouterr().err == refused.err
    assert not Path("run").exists()


@pytest.mark.slow
def test_the_page_is_printed_and_nothing_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ["network.base_channels=8", "network.norm_groups=4", "data.batch_size=4"]
    monkeypatch.setattr(sys, "argv", ["inkdrop", "describe", "--probe", "0.2", *tiny])
    main()
    out, err = capfd.readouterr()
    assert not err
    assert out.startswith("# digits\n")
    assert "1,500 steps on 4 samples" in out
    assert "steps/s" in out
    assert not list(tmp_path.iterdir())
