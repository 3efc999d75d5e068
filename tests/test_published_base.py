"""base=FOLDER: a folder of diffusers says what the model is, and its outputs are those of diffusers, both ways."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DModel
from diffusers_folders import autoencoder_3, pixels, randomised, stable_diffusion, transformer_3
from runs import as_a_command, differing, interrupted, run
from torch import Tensor

import inkdrop
from inkdrop.commands.export import export
from inkdrop.files.texts import encoded

SHORT = ["logger=none", "trainer.max_steps=1", "callbacks.evaluate=null", "callbacks.pictures=null", "optimizer.lr=0.0"]
STEPS = ["trainer.log_every_n_steps=1", "callbacks.checkpoint.every.steps=1", "callbacks.checkpoint.keep=9"]
DIGITS = ["data=digits", "data.batch_size=8", *SHORT]
ADM = {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4}
BETAS = {"trained_betas": [0.01 + 0.0001 * i**2 for i in range(30)], "num_train_timesteps": 30}
COSINE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return float((one - other).abs().max()) < tolerance * float(other.abs().max())


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def kept_of(model: Any) -> Tensor:
    """alpha_bar of each step."""
    count = model.denoiser.schedule.num_timesteps
    points = model.denoiser.schedule.points(np.arange(1, count + 1) / count)
    return torch.tensor([each.alpha**2 for each in points], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "network"),
    [
        ({"prediction_type": "sample"}, {}),
        (COSINE, {"attention_head_dim": None, **ADM, "num_class_embeds": 10}),
        (BETAS, {"layers_per_block": 2}),
        ({}, {"flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5}),
    ],
    ids=["linear", "cosine", "betas", "defaults"],
)
def test_a_pipeline_of_pixels_is_the_model_here_and_ours_is_one_there(
    scheduler: dict[str, Any], network: dict[str, Any], tmp_path: Path
) -> None:
    folder = pixels(tmp_path / "published", scheduler, **network)
    run(tmp_path / "run", f"base={folder}", model=DIGITS)
    export(str(tmp_path / "run"), str(tmp_path / "out"))
    run(tmp_path / "again", f"base={tmp_path / 'out'}", model=DIGITS)
    peer: Any = UNet2DModel.from_pretrained(folder / "unet")
    x, index = torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2])
    label = {"class_labels": torch.tensor([0, 7, 9])} if "num_class_embeds" in network else {}
    kept = DDPMScheduler(**scheduler).alphas_cumprod.double()
    for name in ("run", "again"):
        model: Any = inkdrop.load(tmp_path / name)
        assert type(model.denoiser.prediction).__name__.startswith("V" if scheduler is COSINE else ("Data", "Noise"))
        assert torch.allclose(kept_of(model), kept, rtol=1e-4, atol=1e-7)
        with torch.no_grad():
            cond = model.conditioner({"label": label["class_labels"]}) if label else {}
            assert close(model.network(x, index.float(), **cond), peer(x, index, **label).sample)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`published`, a folder of Stable Diffusion, and `run`, which starts from it and changes nothing."""
    folder = tmp_path_factory.mktemp("published_base")
    stable_diffusion(folder / "published")
    x = np.random.default_rng(0).integers(0, 256, size=(40, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", x=x, caption=np.array(["a red circle", "a blue square"] * 20))
    run(folder / "run", f"base={folder / 'published'}", "trainer.max_steps=2", model=captioned(folder))
    return folder


def captioned(folder: Path) -> list[str]:
    data = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption", "data.batch_size=8"]
    return [
        *data,
        *SHORT,
        "trainer.log_every_n_steps=1",
        "callbacks.checkpoint.every.steps=1",
        "callbacks.checkpoint.keep=9",
    ]


@pytest.mark.slow
def test_a_folder_of_stable_diffusion_is_the_model_here_and_ours_is_one_there(texts: Path, tmp_path: Path) -> None:
    export(str(texts / "run"), str(tmp_path / "out"))
    run(tmp_path / "again", f"base={tmp_path / 'out'}", model=captioned(texts))
    pipe: Any = StableDiffusionPipeline.from_pretrained(texts / "published")
    images, x = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8), torch.randn(2, 4, 4, 4)
    words, index = ["a red circle", "a blue square left of a"], torch.tensor([3, 900])
    with torch.no_grad():
        tokens = pipe.encode_prompt(words, "cpu", 1, False)[0]
        expected = pipe.unet(x, index, tokens).sample
        codes = 0.5 * pipe.vae.encode(images / 127.5 - 1).latent_dist.mode()
        for model in map(inkdrop.load, (texts / "run", tmp_path / "again")):
            cond = model.conditioner({"caption": encoded(words)})
            assert close(model.network(x, index.float(), **cond), expected)
            assert close(model.codec.encode({"x": images}), codes)
            assert torch.allclose(kept_of(model), pipe.scheduler.alphas_cumprod.double(), rtol=1e-4)
            assert [name for name, each in model.guidance.items()] == ["classifier_free"]


@pytest.mark.slow
def test_a_run_goes_on_without_the_folder(texts: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", f"base={texts / 'published'}", "trainer.max_steps=2", model=captioned(texts))
    moved = texts / "moved"
    (texts / "published").rename(moved)
    try:
        interrupted(tmp_path / "whole", 1, tmp_path / "again")
        options = [f"base={texts / 'published'}", "trainer.max_steps=2", "resume_allow=[output_dir]"]
        again = run(tmp_path / "again", *options, model=captioned(texts))
    finally:
        moved.rename(texts / "published")
    assert differing(whole, again) == []


@pytest.mark.slow
def test_an_adapter_is_trained_on_a_folder_at_another_size(texts: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, size=(16, 3, 16, 24), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, caption=np.array(["a red circle", "a blue square"] * 8))
    options = [f"base={texts / 'published'}", "adapter=lora", "data.shape=[3,16,24]", "optimizer.lr=0.01"]
    run(tmp_path / "run", *options, model=captioned(tmp_path))
    model: Any = inkdrop.load(tmp_path / "run")
    assert list(model.shape) == [4, 8, 12]
    assert 0 < len(model.trained) < len(list(model.network.parameters()))


@pytest.mark.parametrize(
    ("place", "change", "code", "words"),
    [
        ("model_index.json", {"vqvae": ["diffusers", "VQModel"]}, 4, "has vqvae, a VQModel, which is not supported"),
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, 4, "holds a UNet3DConditionModel, which is not"),
        ("unet/config.json", {"act_fn": "gelu"}, 4, "act_fn=gelu, but this network has silu"),
        ("unet/config.json", {"freq_shift": 2}, 4, "freq_shift=2, but this network has 1"),
        ("unet/config.json", {"out_channels": 3}, 4, "more inputs are not supported"),
        ("unet/config.json", {"block_out_channels": [8, 12]}, 4, "block_out_channels=[8, 12] are not multiples"),
        ("unet/config.json", {"block_out_channels": "8"}, 4, "block_out_channels: input should be a valid list"),
        ("unet/config.json", {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, 4, "SkipDownBlock2D is not sup"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, 4, "down_block_types in reverse"),
        ("unet/config.json", {"layers_per_block": 2}, 4, "the weights do not fit the network"),
        ("scheduler/scheduler_config.json", {"_class_name": "ScoreSdeVeScheduler"}, 4, "is a ScoreSdeVeScheduler"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}, 4, "beta_schedule=laplace, which is not"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, 4, "prediction_type=flow, which is not"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, 4, "beta_end: input should be less than 1"),
    ],
)
def test_what_is_not_supported_is_named_before_anything_is_created(
    place: str, change: dict[str, Any], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pixels(tmp_path / "published")
    changed(folder / place, **change)
    refused([f"base={folder}", *DIGITS], code, words, tmp_path, capsys)


def test_stable_diffusion_xl_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unet = {"_class_name": "UNet2DConditionModel", "in_channels": 4, "out_channels": 4, "layers_per_block": 2}
    unet |= {"block_out_channels": [320, 640, 1280], "transformer_layers_per_block": [1, 2, 10], "sample_size": 8}
    unet |= {"down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2], "cross_attention_dim": 2048}
    (tmp_path / "published" / "unet").mkdir(parents=True)
    content = json.dumps({**unet, "addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816})
    (tmp_path / "published" / "unet" / "config.json").write_text(content)
    words = "addition_embed_type=text_time, as that of Stable Diffusion XL, which is not supported"
    codec = ["codec=latent_published", f"codec.model.files.path={tmp_path}"]
    refused([f"base={tmp_path / 'published'}", *DIGITS, *codec, "data.shape=[4,8,8]"], 4, words, tmp_path, capsys)


def refused(options: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        as_a_command(inkdrop.train, *options, f"output_dir={tmp_path / 'run'}")
    assert words in " ".join(capsys.readouterr().err.split())
    assert end.value.code == code
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["network.num_blocks=3"], "network.num_blocks=3 is not the model of base="),
        (["prediction=data"], "is not the model of base="),
        (["schedule=cosine"], "is not the model of base="),
        (["data.shape=[3,8,8]"], "has in_channels=1 and out_channels=1, but x has 3 channels"),
        (["init_from=elsewhere"], "remove init_from"),
    ],
)
def test_typed_options_of_another_model_are_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pixels(tmp_path / "published")
    code = 4 if "data.shape=[3,8,8]" in options else 2
    refused([f"base={folder}", *DIGITS, *options], code, words, tmp_path, capsys)


@pytest.mark.slow
def test_what_a_folder_does_not_say_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = pixels(tmp_path / "published") / "unet"
    refused(
        [f"base={bare}", *DIGITS], 2, "has no scheduler/scheduler_config.json: choose schedule=...", tmp_path, capsys
    )
    run(tmp_path / "run", f"base={bare}", "schedule=cosine", "prediction=v", model=DIGITS)
    model: Any = inkdrop.load(tmp_path / "run")
    assert type(model.denoiser.prediction).__name__ == "VPrediction"
    shutil.rmtree(tmp_path / "run")
    changed(bare / "config.json", sample_size=None)
    folder = [f"base={bare}", "schedule=cosine", "prediction=v", *DIGITS, "data.shape=null"]
    refused(folder, 2, "has no sample_size: set data.shape=[CHANNELS,HEIGHT,WIDTH]", tmp_path, capsys)


@pytest.mark.slow
def test_the_transformer_of_stable_diffusion_3_is_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    transformer = transformer_3(joint_attention_dim=6, pooled_projection_dim=5, pos_embed_max_size=4)
    randomised(transformer).save_pretrained(tmp_path / "published" / "transformer")
    peer = randomised(autoencoder_3())
    peer.save_pretrained(tmp_path / "published" / "vae")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.save_pretrained(tmp_path / "published" / "scheduler")
    x = np.random.default_rng(0).integers(0, 256, size=(16, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, caption=np.array(["a red circle", "a blue square"] * 8))
    words = ["conditioner=words", "conditioner.token_dim=6", "conditioner.dim=5", "conditioner.num_heads=2"]
    run(tmp_path / "run", f"base={tmp_path / 'published'}", *words, model=captioned(tmp_path))
    model: Any = inkdrop.load(tmp_path / "run")
    x_t, tokens, vector = torch.randn(2, 4, 4, 4), torch.randn(2, 3, 6), torch.randn(2, 5)
    images, times = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8), torch.tensor([30.0, 900.0])
    with torch.no_grad():
        expected = transformer(x_t, tokens, vector, times).sample
        assert close(model.network(x_t, times, vector=vector, tokens=tokens), expected)
        codes = 1.5 * (peer.encode(images / 127.5 - 1).latent_dist.mode() - 0.25)
        assert close(model.codec.encode({"x": images}), codes)
    assert type(model.denoiser.schedule).__name__ == "LinearInterpolation"
    assert type(model.denoiser.prediction).__name__ == "FlowPrediction"


def diffusion_transformer(folder: Path, **changes: Any) -> Any:
    """The network and the scheduler of a DiTPipeline; returns the network."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "sample_size": 4,
        "patch_size": 2,
        "in_channels": 1,
        "num_layers": 2,
        "num_embeds_ada_norm": 10,
    }
    peer = diffusers.DiTTransformer2DModel(**{**sizes, "num_attention_heads": 2, "attention_head_dim": 8, **changes})
    randomised(peer)
    for block in peer.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(peer.transformer_blocks[0].norm1.emb.state_dict())
    peer.save_pretrained(folder / "transformer")
    diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False).save_pretrained(folder / "scheduler")
    return peer


@pytest.mark.parametrize("channels", [1, 2])
def test_a_diffusion_transformer_is_the_model(channels: int, tmp_path: Path) -> None:
    """With twice the channels it predicts the variance of a step too."""
    peer = diffusion_transformer(tmp_path / "published", out_channels=channels, sample_size=8)
    changed(tmp_path / "published" / "transformer" / "config.json", _class_name="Transformer2DModel")
    run(tmp_path / "run", f"base={tmp_path / 'published'}", model=DIGITS)
    model: Any = inkdrop.load(tmp_path / "run")
    x_t, label, times = torch.randn(3, 1, 8, 8), torch.tensor([0, 9, 10]), torch.tensor([0.0, 30.0, 999.0])
    cond = model.conditioner.condition({"label": label}, {})
    with torch.no_grad():
        expected, out = peer(x_t, times, label).sample, model.network(x_t, times, **cond)
    if channels == 2:
        out = torch.cat([out[0], out[1]["variance"]], dim=1)
    assert close(out, expected)


def test_a_diffusion_transformer_with_what_ours_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, folder = diffusion_transformer(tmp_path / "published", sample_size=8), [f"base={tmp_path / 'published'}"]
    refused(
        [*folder, *DIGITS, "data.shape=[1,16,16]"], 4, "has sample_size=8, but this network has 16", tmp_path, capsys
    )
    peer.transformer_blocks[1].norm1.emb.class_embedder.embedding_table.weight.data[3] += 1
    peer.save_pretrained(tmp_path / "published" / "transformer")
    refused([*folder, *DIGITS], 4, "differs from that of the first block", tmp_path, capsys)
