"""`export`: a folder that diffusers loads, which draws the same samples; what cannot be exported is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMPipeline, UNet2DConditionModel, UNet2DModel
from runs import run
from torch import Tensor, nn

import inkdrop
from inkdrop.__main__ import main
from inkdrop.commands.export import export
from inkdrop.denoiser import SelfConditioned
from inkdrop.files.texts import encoded
from inkdrop.networks import MLP, DiT, LatentUNet
from inkdrop.predictions import KarrasPrediction
from inkdrop.samplers import DDIM
from inkdrop.schedules import VP
from inkdrop.time_grids import Trailing

STEPS = ["logger=none", "trainer.max_steps=2", "callbacks.evaluate=null", "callbacks.pictures=null", "extractor=none"]
STEPS += ["network.base_channels=8", "network.norm_groups=4", "metric=none", "~callbacks.evaluate", "guidance=none"]
DIGITS = ["data=digits", *[each for each in STEPS if each != "~callbacks.evaluate"]]
VAE = ["experiment=autoencoder", "data=digits", *DIGITS[1:], "network.channel_multipliers=[1,2]"]


def latent(folder: Path, codec: list[str]) -> list[str]:
    data = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption", "data.batch_size=8"]
    network = ["network=latent_unet", "network.channel_multipliers=[1,2]", "network.norm_groups=4"]
    words = ["conditioner=words", "schedule=scaled_linear", "prediction=v"]
    return [*DIGITS[1:], *data, *network, *words, *codec]


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, in each of which every weight is random: `pixels`, `codes` and `latent`, which has the codes of `codes`."""
    folder = tmp_path_factory.mktemp("export")
    x = np.random.default_rng(0).integers(0, 256, size=(80, 1, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", x=x, caption=np.array(["a red circle", "a blue square"] * 40))
    run(folder / "pixels", model=DIGITS)
    run(folder / "codes", model=VAE)
    run(folder / "latent", model=latent(folder, ["codec=latent", f"codec.model.checkpoint={folder / 'codes'}"]))
    return folder


@pytest.fixture(scope="module")
def transformers_of(runs_of: Path) -> Path:
    """Runs of `network=dit`: `dit` in pixels, with classes and a learned variance, and `latent_dit` without classes."""
    sizes = ["network.patch_size=2", "network.width=16", "network.depth=2", "network.num_heads=2"]
    steps = [each for each in DIGITS if not each.startswith("network.")]
    inner = [each.replace("network.", "network.network.") for each in sizes]
    variance = ["network@network.network=dit", *inner, "loss=hybrid"]
    run(runs_of / "dit", "network=learned_variance", *variance, model=steps)
    data = ["data=arrays", f"data.path={runs_of / 'data.npz'}", "data.batch_size=8", "conditioner=none"]
    codec = ["codec=latent", f"codec.model.checkpoint={runs_of / 'codes'}"]
    run(runs_of / "latent_dit", "network=dit", *sizes, *data, *codec, model=steps[1:])
    return runs_of


@pytest.fixture
def randomised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeroed layers of a network that was hardly trained would hide what flows through them."""
    load = inkdrop.load

    def loaded(*args: Any, **options: Any) -> Any:
        model: Any = load(*args, **options)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.15, generator=generator)
        return model

    monkeypatch.setattr("inkdrop.pipeline.load", loaded)


def loaded(folder: Path) -> Any:
    from inkdrop import pipeline

    model: Any = pipeline.load(folder)
    if hasattr(model, "sampler"):
        model.sampler = DDIM(Trailing(4))
    return model


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return float((one - other).abs().max()) < tolerance * float(other.abs().max())


@pytest.mark.slow
@pytest.mark.usefixtures("randomised")
def test_a_latent_model_draws_the_same_samples_in_diffusers(runs_of: Path, tmp_path: Path) -> None:
    code = export(str(runs_of / "latent"), str(tmp_path / "out"))
    pipe = eval(code, {"diffusers": diffusers})
    pipe.set_progress_bar_config(disable=True)
    model, seeds = loaded(runs_of / "latent"), range(3)
    batch = {"caption": encoded(["a red circle"] * 3)}
    with torch.no_grad():
        cond = model.conditioner(batch)
        tokens = cond["tokens"][:, : int(cond["mask"][0].sum())]
    given: dict[str, Any] = {"prompt_embeds": tokens, "num_inference_steps": 4, "guidance_scale": 1.0}
    point = model.denoiser.schedule.points([1.0])[0]
    given["latents"] = point.sigma * model.start(seeds)  # where its schedule starts, a little below 1
    latents = pipe(**given, output_type="latent").images
    images = pipe(**given, output_type="pt").images
    drawn = model(batch, seeds)
    model.codec.decode = lambda x, *further: x
    codes = model(batch, seeds)
    assert codes.std() > 0.1
    assert close(latents, codes, 1e-4)
    assert (255 * images - drawn).abs().max() < 0.6


@pytest.mark.slow
def test_a_lora_changes_the_samples_of_diffusers_as_it_does_ours(
    runs_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [f"base={runs_of / 'latent'}", "adapter=lora", "adapter.lora.alpha=40", *STEPS[:4], "data.batch_size=8"]
    options += ["adapter.lora.layers=[q,k,v,out,conv_out,conv_1]", "optimizer.lr=0.05"]
    run(tmp_path / "lora", model=options)
    pipe = eval(export(str(runs_of / "latent"), str(tmp_path / "base")), {"diffusers": diffusers})
    pipe.set_progress_bar_config(disable=True)
    model, seeds = loaded(tmp_path / "lora"), range(3)
    batch = {"caption": encoded(["a red circle"] * 3)}
    with torch.no_grad():
        cond = model.conditioner(batch)
    given: dict[str, Any] = {"prompt_embeds": cond["tokens"][:, : int(cond["mask"][0].sum())], "guidance_scale": 1.0}
    given |= {"latents": model.denoiser.schedule.points([1.0])[0].sigma * model.start(seeds), "output_type": "latent"}
    before = pipe(**given, num_inference_steps=4).images
    assert "load_lora_weights" in export(str(tmp_path / "lora"), str(tmp_path / "out"))
    pipe.load_lora_weights(str(tmp_path / "out"))
    after = pipe(**given, num_inference_steps=4).images
    model.codec.decode = lambda x, *further: x
    codes = model(batch, seeds)
    assert close(after, codes, 1e-4)
    assert not close(before, codes, 1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("randomised")
def test_the_codes_of_an_exported_autoencoder_are_those_of_the_codec(runs_of: Path, tmp_path: Path) -> None:
    export(str(runs_of / "latent"), str(tmp_path / "latent"))
    export(str(runs_of / "codes"), str(tmp_path / "codes"))
    codec, images = loaded(runs_of / "latent").codec, torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    x = images / 127.5 - 1
    folded: Any = AutoencoderKL.from_pretrained(tmp_path / "latent" / "vae")
    assert folded.config.scaling_factor == 1
    with torch.no_grad():
        law, z = folded.encode(x).latent_dist, torch.randn(2, 4, 4, 4)
        assert close(law.mode(), codec.encode({"x": images}), 1e-4)
        assert close(folded.decode(z).sample, codec.reconstruct(z) / 127.5 - 1, 1e-4)
        plain: Any = AutoencoderKL.from_pretrained(tmp_path / "codes")
        model = loaded(runs_of / "codes")
        assert close(plain.encode(x).latent_dist.mode(), model.codes(model.encoded({"x": images})), 1e-5)
        assert close(plain.decode(z).sample, model.output(z), 1e-5)
    assert not torch.allclose(codec.std, torch.ones(4), atol=1e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("randomised")
def test_a_pixel_model_of_classes_is_a_unet_with_a_table(runs_of: Path, tmp_path: Path) -> None:
    export(str(runs_of / "pixels"), str(tmp_path / "out"))
    pipe: Any = DDIMPipeline.from_pretrained(tmp_path / "out")
    model = loaded(runs_of / "pixels")
    x, c_noise, label = torch.randn(3, 1, 8, 8), torch.tensor([3.0, 500.0, 999.0]), torch.tensor([0, 7, 10])
    with torch.no_grad():
        vector = model.conditioner.embedding(label)
        expected = model.network(x, c_noise, vector=vector)
        assert close(pipe.unet(x, c_noise, class_labels=label).sample, expected, 1e-5)
    point = model.denoiser.schedule.points([0.001, 0.5, 1.0])
    kept = pipe.scheduler.alphas_cumprod[[0, 499, 999]]
    assert torch.allclose(kept, torch.tensor([each.alpha**2 for each in point]).float(), atol=1e-6)
    assert isinstance(UNet2DModel.from_pretrained(tmp_path / "out" / "unet"), UNet2DModel)


def test_a_lora_that_no_pipeline_of_diffusers_reads_is_refused(runs_of: Path, tmp_path: Path) -> None:
    run(tmp_path / "lora", f"base={runs_of / 'pixels'}", "adapter=lora", model=[*STEPS[:4], "data.batch_size=8"])
    with pytest.raises(ValueError, match="or network=mmdit, but the network is a UNet: export"):
        export(str(tmp_path / "lora"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("randomised")
def test_a_diffusion_transformer_of_codes_draws_the_same_samples_in_diffusers(
    transformers_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = eval(export(str(transformers_of / "latent_dit"), str(tmp_path / "out")), {"diffusers": diffusers})
    assert type(pipe) is diffusers.DiTPipeline
    pipe.set_progress_bar_config(disable=True)
    model, seeds = loaded(transformers_of / "latent_dit"), range(3)
    start = model.denoiser.schedule.points([1.0])[0].sigma * model.start(seeds)
    monkeypatch.setattr("diffusers.pipelines.dit.pipeline_dit.randn_tensor", lambda *_, **__: start)
    images = pipe([0] * 3, guidance_scale=1.0, num_inference_steps=4, output_type="pt").images
    assert (255 * images - model({}, seeds)).abs().max() < 0.6
    assert images.std() > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("randomised")
def test_a_diffusion_transformer_of_pixels_is_one_of_diffusers_and_a_base_here(
    transformers_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = eval(export(str(transformers_of / "dit"), str(tmp_path / "out")), {"diffusers": diffusers})
    model = loaded(transformers_of / "dit")
    x, c_noise, label = torch.randn(3, 1, 8, 8), torch.tensor([3.0, 500.0, 999.0]), torch.tensor([0, 7, 10])
    steps = [each for each in DIGITS if not each.startswith("network.")]
    run(tmp_path / "again", f"base={tmp_path / 'out'}", "optimizer.lr=0.0", model=steps)
    monkeypatch.undo()  # so that the weights are those of the run
    begun: Any = inkdrop.load(tmp_path / "again")
    with torch.no_grad():
        for each in (model, begun):
            F, further = each.network(x, c_noise, vector=each.conditioner.embedding(label))
            assert close(torch.cat([F, further["variance"]], dim=1), peer(x, c_noise, label).sample, 1e-5)


@pytest.mark.slow
def test_a_published_unet_is_where_training_begins(runs_of: Path, tmp_path: Path) -> None:
    peer = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    peer.save_pretrained(tmp_path / "published" / "unet")
    codec = ["codec=latent", f"codec.model.checkpoint={runs_of / 'codes'}"]
    options = [f"init_from={tmp_path / 'published'}", "optimizer.lr=0.0"]
    run(tmp_path / "run", *options, model=latent(runs_of, codec))
    export(str(tmp_path / "run"), str(tmp_path / "out"))
    unet: Any = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet")
    weights = unet.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in peer.state_dict().items())


def test_the_command_prints_how_diffusers_loads_it(
    runs_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["inkdrop", "export", f"checkpoint={runs_of / 'pixels'}", f"folder={out}"])
    main()
    assert capsys.readouterr().out == f'{out}: diffusers.DDIMPipeline.from_pretrained("{out}")\n'
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        "README.md",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "exists: choose a new one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["folder=OUT"], "checkpoint=... is needed"),
        (["checkpoint=RUN"], "folder=... is needed"),
        (["checkpoint=RUN", "folder=OUT", "seed=1"], "unknown option seed=1: export takes"),
        (["checkpoint=RUN", "folder="], "unknown option folder="),
    ],
)
def test_options_are_checked(
    typed: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inkdrop", "export", *typed])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def replaced(denoiser: Any, **parts: Any) -> Any:
    """A denoiser with another network, schedule or prediction."""
    for name, part in parts.items():
        setattr(denoiser, name, part)
    return denoiser


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda it: replaced(it, network=MLP([64], 4, 1)),
            "the network is a MLP, which cannot be exported",
        ),
        (
            lambda it: replaced(it, network=DiT([1, 8, 8], 4, 16, 1, 2, 2.0)),
            r"has network\.mlp_ratio=2, and theirs has 4",
        ),
        (lambda it: replaced(it, schedule=VP()), "VP is not a discrete chain"),
        (lambda it: replaced(it, prediction=KarrasPrediction()), "KarrasPrediction is not a prediction of DDIM"),
        (lambda it: SelfConditioned(it.network, it.schedule, it.prediction, 1), "holds a SelfConditioned, which"),
        (
            lambda it: replaced(it, network=LatentUNet([1, 8, 8], 8, [1], 1, 2)),
            "a StableDiffusionPipeline needs codes of an autoencoder",
        ),
    ],
    ids=["network", "ratio", "schedule", "prediction", "denoiser", "codec"],
)
def test_what_diffusers_lacks_is_refused_before_a_folder_exists(
    change: Callable[[Any], Any], words: str, runs_of: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = inkdrop.load(runs_of / "pixels")
    model.denoiser = change(model.denoiser)
    monkeypatch.setattr("inkdrop.pipeline.load", lambda *_: model)
    with pytest.raises(ValueError, match=words):
        export("RUN", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
