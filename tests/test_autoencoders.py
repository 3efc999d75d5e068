"""Bottlenecks, observations and adversaries against closed forms, and latent diffusion from beginning to end."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import arrays_of, differing, interrupted, run, sampled
from torch import Tensor, nn

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.codecs import Pixels, Standardize
from inkdrop.commands.describe.facts import describe
from inkdrop.losses import AutoencodingLoss, Example
from inkdrop.losses.adversary import Adversary, Hinge, NonSaturating
from inkdrop.losses.autoencoding import Perceptual
from inkdrop.metrics import Classifier, Identity, NoFeatures
from inkdrop.models import Autoencoder, Generator, Latent
from inkdrop.models.observations import Bernoulli, Gaussian, Laplace, Observation
from inkdrop.networks.autoencoders import (
    ConvolutionalAutoencoder,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    PerceptronAutoencoder,
    PerceptronDecoder,
)
from inkdrop.networks.bottlenecks import KL, VQ, Plain
from inkdrop.randomness import Generators

DIGITS = ["experiment=autoencoder", "data=digits", "extractor=none", "metric=psnr", "evaluation.num_samples=350"]
SMALL = ["network.base_channels=8", "network.channel_multipliers=[1,2]", "callbacks.pictures.num_samples=20"]
STEPS = ["logger=none", "trainer.max_steps=12", "callbacks.checkpoint.every.steps=3", "scheduler.warmup_steps=2"]
STEPS += ["callbacks.checkpoint.keep=9", "trainer.log_every_n_steps=3"]


def vae(data: int = 5, latent: int = 2, **options: Any) -> Autoencoder:
    network = PerceptronAutoencoder([data], KL(latent, factor=1.0), width=16, depth=options.pop("depth", 0))
    return Autoencoder(network, options.pop("observation", Gaussian()), Standardize(), [data], **options)


def streams(count: int, *position: int) -> Generators:
    return Generators.from_positions(0, range(count)).at("test", *position)


def example(x: Tensor, **fields: Any) -> Example:
    return Example(x, **fields)


@pytest.mark.slow
def test_a_linear_vae_reaches_the_likelihood_of_probabilistic_pca() -> None:
    """The best linear VAE is tight: its ELBO is the likelihood, whose maximum Tipping and Bishop gave in 1999."""
    torch.manual_seed(0)
    x = torch.randn(400, 5) @ torch.randn(5, 5) * 0.5
    x = x - x.mean(0)
    values = torch.linalg.eigvalsh(x.T.double() @ x.double() / len(x)).flip(0)
    noise = values[2:].mean()
    best = -0.5 * (5 * math.log(2 * math.pi) + values[:2].log().sum() + 3 * noise.log() + 5)
    model, loss = vae(), AutoencodingLoss()
    optimizer = torch.optim.Adam(model.parameters(), 3e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-2, 1500)
    copies = x.repeat(4, 1)
    for step in range(1500):
        optimizer.zero_grad()
        loss(model, example(copies), _Torch(step)).loss.mean().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        bound = torch.stack([-loss(model, example(copies), _Torch(-step)).loss.mean() for step in range(1, 60)])
    assert float(bound.mean()) == pytest.approx(float(best), abs=1e-2)


class _Torch:
    """One stream for a whole batch, which is fast."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed % 2**32)

    def at(self, *_: Any) -> _Torch:
        return self

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(1600, *shape, generator=self.generator)


def test_the_divergence_is_that_of_normal_laws() -> None:
    h = torch.randn(7, 6, 2, 2)
    mean, log_variance = h.chunk(2, 1)
    law = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    code = KL(3, factor=0.1)(h, torch.ones(7, 3, 2, 2))
    assert torch.allclose(code.parts["kl"], expected, atol=1e-5)
    assert torch.allclose(code.penalty, 0.1 * expected, atol=1e-6)
    assert torch.allclose(code.z, law.mean + law.stddev)
    assert torch.equal(KL(3)(h).z, mean)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_observations_are_the_laws_of_torch(scale: float | None) -> None:
    x, output = torch.randn(5, 2, 3), torch.randn(5, 2, 3)
    laws: dict[Observation, Any] = {
        Gaussian(scale): torch.distributions.Normal(output, scale or 1.0),
        Laplace(scale): torch.distributions.Laplace(output, scale or 1.0),
    }
    for observation, law in laws.items():
        assert torch.allclose(observation.nats(x, output), -law.log_prob(x).flatten(1).sum(1), atol=1e-4)
        assert torch.equal(observation.mean(output), output)
        assert observation.log_scale.requires_grad is (scale is None)  # type: ignore[union-attr]
    signs = x.sign()
    expected = -torch.distributions.Bernoulli(logits=output).log_prob((signs + 1) / 2).flatten(1).sum(1)
    assert torch.allclose(Bernoulli().nats(signs, output), expected, atol=1e-5)
    assert torch.allclose(Bernoulli().mean(output), 2 * output.sigmoid() - 1, atol=1e-6)


def test_a_codebook_finds_the_clusters_of_its_inputs() -> None:
    torch.manual_seed(0)
    centres = torch.tensor([[4.0, 0], [-4, 0], [0, 4], [0, -4]])
    bottleneck = VQ(2, num_codes=4, decay=0.8)
    for _ in range(60):
        inputs = centres.repeat(20, 1) + 0.1 * torch.randn(80, 2)
        code = bottleneck(inputs)
    distances = torch.cdist(centres, bottleneck.codebook)
    assert distances.min(1).values.max() < 0.2, distances
    assert float(code.parts["codes"][0]) == pytest.approx(4, abs=0.1)
    before = bottleneck.codebook.clone()
    bottleneck(torch.full((3, 2), math.nan))
    assert bottleneck.codebook.isfinite().all()
    now = bottleneck.codebook.clone()
    bottleneck.eval()(torch.randn(9, 2))
    assert torch.equal(bottleneck.codebook, now)
    assert (now - before).abs().max() < 1


def test_a_codebook_passes_gradients_and_penalises_the_distance() -> None:
    bottleneck = VQ(3, num_codes=8, commitment=0.5).eval()
    h = torch.randn(2, 3, 4, requires_grad=True)
    code = bottleneck(h)
    nearest = torch.cdist(h.movedim(1, -1).reshape(-1, 3), bottleneck.codebook).argmin(1)
    assert torch.allclose(code.z.movedim(1, -1).reshape(-1, 3), bottleneck.codebook[nearest], atol=1e-6)
    weights = torch.randn(2, 3, 4)
    (gradient,) = torch.autograd.grad((weights * code.z).sum(), h, retain_graph=True)
    assert torch.allclose(gradient, weights)
    (gradient,) = torch.autograd.grad(code.penalty.sum(), h)
    assert torch.allclose(gradient, h - code.z.detach(), atol=1e-5)  # 0.5 times the slope of the square
    assert torch.allclose(bottleneck.settled(code.z.detach() + 1e-4), code.z.detach(), atol=1e-6)


@pytest.mark.parametrize("kind", [Hinge, NonSaturating])
def test_each_player_moves_only_itself(kind: type[Adversary]) -> None:
    adversary, slope = kind(nn.Linear(3, 1), penalty=2.0), torch.tensor([[1.0, -2.0, 0.5]])
    adversary.network.weight.data = slope  # type: ignore[union-attr]
    made, x = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    logits = adversary.network(made).squeeze(1)
    adversary.generator(made).sum().backward()
    assert made.grad is not None
    assert adversary.network.weight.grad is None
    false, real = adversary.network(made).squeeze(1), adversary.network(x).squeeze(1)
    if kind is Hinge:
        expected = (1 - real).clamp(min=0) + (1 + false).clamp(min=0)
        assert torch.allclose(adversary.generator(made), -logits)
    else:
        expected = -(real.sigmoid().log() + (1 - false.sigmoid()).log())
        assert torch.allclose(adversary.generator(made), -logits.sigmoid().log(), atol=1e-5)
    made.grad = None
    loss = adversary.discriminator(x, made)
    assert torch.allclose(loss, expected + slope.square().sum(), atol=1e-5)  # R1 of a linear map: half of 2 |slope|^2
    loss.sum().backward()
    assert made.grad is None
    assert adversary.network.weight.grad is not None
    with torch.no_grad():
        assert torch.allclose(adversary.discriminator(x, made), expected, atol=1e-5)


def test_the_adversary_weighs_as_much_as_the_error_after_its_start() -> None:
    torch.manual_seed(0)
    model = vae(observation=Gaussian(1.0))
    loss = AutoencodingLoss(adversary=Hinge(nn.Linear(5, 1)), factor=0.25, start=0.5)
    loss.check(model)
    x, last = torch.randn(8, 5), model.network.last
    terms = loss(model, example(x, progress=torch.full((8,), 0.6)), streams(8))
    plain = loss(model, example(x, progress=torch.full((8,), 0.4)), streams(8))
    assert torch.allclose(plain.loss, AutoencodingLoss()(model, example(x), streams(8)).loss)
    added = terms.loss - plain.loss - terms.parts["discriminator"]
    (gradient,) = torch.autograd.grad(added.mean(), last, retain_graph=True)
    (error,) = torch.autograd.grad(plain.loss.mean(), last)
    assert float(gradient.norm() / error.norm()) == pytest.approx(0.25, rel=1e-2)
    assert set(loss.logged) <= {*terms.parts}
    assert terms.parts.keys() == {"error", "rmse", "kl", "generator", "discriminator"}


def test_features_are_a_term_of_the_loss() -> None:
    torch.manual_seed(0)
    features, model = Identity(5), vae(observation=Gaussian(1.0))
    x = torch.randn(4, 5)
    loss = AutoencodingLoss(perceptual=Perceptual(features, factor=2.0))
    loss.check(model)
    terms = loss(model, example(x), streams(4))
    code = model.code(model.encoder(x), streams(4).at("code"))
    distance = (features(x) - features(model.network(code.z))).square().sum(1)
    assert torch.allclose(terms.parts["perceptual"], distance, atol=1e-5)
    assert torch.allclose(terms.loss, terms.parts["error"] + terms.parts["kl"] + 2 * distance, atol=1e-4)
    digits = Classifier("digits", [1, 8, 8], 10, [[32, 32], [64]], 64, batch_norm=False, weights="digits.safetensors")
    images = (255 * torch.rand(2, 1, 8, 8)).requires_grad_()
    Perceptual(digits)(torch.zeros(2, 1, 8, 8), images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert torch.allclose(digits.of_levels(torch.full((1, 1, 8, 8), 9.0)), digits(torch.full((1, 1, 8, 8), 9).byte()))
    with pytest.raises(ValueError, match="extractor none has no gradient: choose another one"):
        AutoencodingLoss(perceptual=Perceptual(NoFeatures())).check(model)


@pytest.mark.parametrize("shape", [[3, 16], [1, 8, 16], [2, 8, 8, 8]])
def test_codes_have_the_sizes_of_the_lowest_resolution(shape: list[int]) -> None:
    network = ConvolutionalAutoencoder(shape, KL(4), 8, [1, 2], attention=True)
    model = Autoencoder(network, Gaussian(), Standardize(), shape)
    model.check()
    assert model.latent_shape == (4, *(size // 2 for size in shape[1:]))
    x = torch.randn(2, *shape)
    assert model.code(model.encoder(x)).z.shape[1:] == model.latent_shape
    assert model.output(torch.randn(2, *model.latent_shape)).shape == x.shape
    assert ConvolutionalEncoder(shape, 1, 8, [1, 2])(x).shape == (2, 1, *(size // 2 for size in shape[1:]))


def test_samples_are_decoded_from_the_prior_and_depend_on_their_seeds_alone() -> None:
    from inkdrop.noises import Gaussian as Normal

    model = vae(prior=Normal())
    assert model.names == []
    assert model.request(range(3)) == {}
    x = model({}, [3, 5, 8])
    assert torch.allclose(model({}, [5]), x[1:2], atol=1e-6)
    eps = Generators.from_seeds([3, 5, 8]).at("start").normal([2])
    assert torch.allclose(x, model.network(eps), atol=1e-6)
    with pytest.raises(ValueError, match=r"condition\.x has no effect"):
        model.request([0], x="a.npz")
    generator = Generator(PerceptronDecoder([2], 4, 8, 1), Standardize(), [2])
    generator.check()
    made = generator({}, range(6))
    assert torch.allclose(generator({}, [4]), made[4:5], atol=1e-6)


def test_what_cannot_be_reconstructed_is_refused(tmp_path: Path) -> None:
    model = vae()
    with pytest.raises(ValueError, match=r"condition\.x=FILE is needed"):
        model.request([0])
    np.save(tmp_path / "x.npy", np.zeros((2, 5), np.float32))
    assert model.request(range(3), x=str(tmp_path / "x.npy"))["x"].shape == (3, 5)
    np.save(tmp_path / "y.npy", np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match=r"x of \[4\], but this model was trained on x of \[5\]"):
        model.request([0], x=str(tmp_path / "y.npy"))
    with pytest.raises(ValueError, match="trains an autoencoder, not a Generator"):
        AutoencodingLoss().check(Generator(PerceptronDecoder([2], 4, 8, 1), Standardize(), [2]))
    broken = Generator(PerceptronDecoder([3], 4, 8, 1), Standardize(), [2])
    with pytest.raises(ValueError, match=r"returns \[3\], but x is \[2\]"):
        broken.check()
    with pytest.raises(ValueError, match="has no codes: choose a run of task=autoencoder"):
        Latent(broken)
    with pytest.raises(ValueError, match="norm_groups=8 does not divide"):
        ConvolutionalDecoder([1, 8, 8], 2, 12, [1])
    with pytest.raises(ValueError, match=r"data\.shape=\[7\]"):
        Latent(model).shape([7])


def test_latents_are_standardised_by_channel_and_an_item_is_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = Autoencoder(ConvolutionalAutoencoder([1, 8, 8], KL(2), 8, [1, 2]), Gaussian(), Pixels(), [1, 8, 8])
    images = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8)
    codec, kept_none = Latent(model, batch_size=7), Latent(model, batch_size=64, cache_mib=0)
    codec.fit(lambda size, names=None: ({"x": part} for part in images.split(size)), torch.device("cpu"))
    kept_none.load_state_dict(codec.state_dict())
    x = codec.encode({"x": images})
    assert list(x.shape[1:]) == codec.shape([1, 8, 8]) == [2, 4, 4]
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(2), atol=1e-4)
    assert torch.allclose(x.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-4)
    calls: list[int] = []
    model.encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    assert torch.equal(codec.encode({"x": images[[3, 3, 5]]}), x[[3, 3, 5]])
    assert calls == []
    drawn = codec.encode({"x": images}, streams(40))
    order = torch.randperm(40)
    assert torch.allclose(kept_none.encode({"x": images}, streams(40)), drawn, atol=1e-4)
    assert calls == [64]
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(tmp_path / "empty"))
    again = Latent(model, batch_size=7)
    again.load_state_dict(codec.state_dict())
    assert torch.equal(again.encode({"x": images[order]}), x[order]), "codes depend on the order in which they are made"
    assert (drawn - x).abs().mean() > 0
    z = model.code(model.encoded({"x": images})).z
    assert torch.equal(codec.decode(x)[:5], model.codec.decode(model.output(z[:5])))
    assert codec.reconstruct(x.requires_grad_()).requires_grad
    assert not [name for name, each in codec.named_parameters() if each.requires_grad]


def test_a_constant_code_is_refused() -> None:
    model = vae()
    codec = Latent(model)
    with pytest.raises(ValueError, match="channel 0 of the codes does not vary"):
        codec.fit(lambda size, names=None: [{"x": torch.zeros(4, 5)}], torch.device("cpu"))


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`gone`, a short autoencoder of digits, and `latent`, a diffusion model of its codes that read it as `codes`."""
    folder = tmp_path_factory.mktemp("latent")
    run(folder / "codes", model=[*DIGITS, *SMALL, *STEPS])
    run(folder / "latent", model=latent(folder / "codes"))
    sampled(folder / "latent", folder / "before", "num_samples=6")
    (folder / "codes").rename(folder / "gone")
    return folder


def latent(codes: Path) -> list[str]:
    options = ["experiment=digits", "guidance=none", "codec=latent", f"codec.model.checkpoint={codes}"]
    return [*options, "network.base_channels=8", "callbacks.evaluate=null", "callbacks.pictures=null", *STEPS]


@pytest.mark.slow
def test_a_latent_model_needs_its_checkpoint_alone(runs_of: Path, tmp_path: Path) -> None:
    then = arrays_of(runs_of / "before")
    now, _ = sampled(runs_of / "latent", tmp_path / "now", "num_samples=6")
    assert all(np.array_equal(now[name], then[name]) for name in then)
    pipeline = inkdrop.load(runs_of / "latent")
    assert pipeline.shape == (4, 4, 4)
    assert pipeline({"label": torch.arange(2)}, range(2)).shape == (2, 1, 8, 8)
    described = describe([*latent(runs_of / "codes"), f"output_dir={runs_of / 'latent'}"], seconds=0)
    assert described["shape"] == [4, 4, 4]
    assert "Latent" in described["parts"]["codec"]["is"]
    content = read_checkpoint(runs_of / "latent")
    assert not [name for name in content["trainable"] if ".codec." in name]
    interrupted(runs_of / "latent", 9, tmp_path / "again")
    again = run(tmp_path / "again", "resume_allow=[output_dir]", model=latent(runs_of / "codes"))
    assert differing(content, again) == []


@pytest.mark.slow
def test_an_autoencoder_reconstructs_held_out_items_and_files(runs_of: Path, tmp_path: Path) -> None:
    _, result = sampled(runs_of / "gone", tmp_path / "held_out", "evaluate=true", "num_samples=350")
    assert 5 < result["metrics"]["psnr_350"] < 40
    arrays, _ = sampled(runs_of / "gone", tmp_path / "files", f"condition.x={_picture(tmp_path)}", "num_samples=2")
    model: Any = inkdrop.load(runs_of / "gone")
    given = torch.from_numpy(arrays["inputs"]).movedim(-1, 1)
    assert np.array_equal(model({"x": given}, range(2)).movedim(1, -1).numpy(), arrays["x"])
    assert (tmp_path / "files/inputs.png").exists()


def _picture(folder: Path) -> Path:
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(folder / "x.png")
    return folder / "x.png"


def test_another_autoencoder_in_its_place_is_refused(
    runs_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(runs_of / "latent", 9, tmp_path / "again")
    shutil.copytree(runs_of / "latent", runs_of / "codes")
    try:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "again", model=latent(runs_of / "codes"))
    finally:
        shutil.rmtree(runs_of / "codes")
    assert end.value.code == 4
    assert "is not the file that the run was started with" in capsys.readouterr().err


@pytest.mark.slow
def test_vq_and_plain_bottlenecks_train_and_resume_to_the_bit(tmp_path: Path) -> None:
    model = [*DIGITS, *SMALL, *STEPS, "bottleneck=vq", "callbacks.evaluate=null"]
    whole = run(tmp_path / "vq", model=[*model, "bottleneck.num_codes=16", "callbacks.pictures=null"])
    interrupted(tmp_path / "vq", 6, tmp_path / "half")
    again = run(
        tmp_path / "half",
        "resume_allow=[output_dir]",
        model=[*model, "bottleneck.num_codes=16", "callbacks.pictures=null"],
    )
    assert differing(whole, again) == []
    assert '"train/codes"' in (tmp_path / "vq/metrics.jsonl").read_text()
    assert Plain(3)(torch.ones(2, 3)).penalty.tolist() == [0, 0]
