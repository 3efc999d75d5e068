"""A folder of Stable Diffusion: read, trained on, written again, and the same samples in diffusers from texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import text_models
import torch
from diffusers import StableDiffusionPipeline
from diffusers_folders import stable_diffusion
from runs import run

import inkdrop
from inkdrop.commands.export import export
from inkdrop.conditioners import PublishedText
from inkdrop.files.texts import encoded
from inkdrop.pipeline import foreign
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing

TEXTS = ["a red circle", "a blue square left of a red circle"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny folder that diffusers wrote, with random weights."""
    return stable_diffusion(tmp_path_factory.mktemp("stable_diffusion") / "published")


@pytest.fixture(scope="module")
def trained(published: Path) -> Path:
    """A run that starts from the folder and changes nothing."""
    folder = published.parent
    x = np.random.default_rng(0).integers(0, 256, size=(40, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", x=x, caption=np.array(TEXTS * 20))
    options = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption", "data.batch_size=8"]
    options += ["codec=latent_published", f"codec.model.files.path={published / 'vae'}", "codec.scale=0.5"]
    options += ["conditioner=text_published", f"conditioner.encoder.path={published / 'text_encoder'}"]
    options += ["conditioner.token_dim=8", "conditioner.length=12", "network=latent_unet", "network.base_channels=8"]
    options += ["network.channel_multipliers=[1,2]", "network.norm_groups=4", "network.attention_resolutions=[4]"]
    options += [f"init_from={published}", "schedule=scaled_linear", "prediction=noise", "optimizer.lr=0.0"]
    options += ["logger=none", "trainer.max_steps=1", "callbacks.evaluate=null", "callbacks.pictures=null"]
    run(
        folder / "run",
        model=[
            *options,
            "guidance=classifier_free",
            "guidance.classifier_free.scale=3.0",
            "extractor=none",
            "metric=none",
        ],
    )
    return folder / "run"


def latents_of(pipe: Any, start: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent"}
    return pipe(TEXTS, latents=start, **options).images


@pytest.mark.slow
def test_texts_become_the_same_latents_here_there_and_in_a_folder_of_ours(
    published: Path, trained: Path, tmp_path: Path
) -> None:
    model: Any = inkdrop.load(trained)
    model.sampler = DDIM(Trailing(4))
    point = model.denoiser.schedule.points([1.0])[0]
    start = point.sigma * model.start(range(2))
    model.codec.decode = lambda x, *further: x
    ours = model({"caption": encoded(TEXTS)}, range(2))
    code = export(str(trained), str(tmp_path / "out"))
    assert code == f'diffusers.StableDiffusionPipeline.from_pretrained("{tmp_path / "out"}")'
    for pipe in (StableDiffusionPipeline.from_pretrained(published), eval(code, {"diffusers": diffusers})):
        assert (latents_of(pipe, start) - ours).abs().max() < 1e-4 * ours.abs().max()
    assert (ours[0] - ours[1]).abs().max() > 0.1


def test_tokens_are_those_of_the_pipeline_and_a_dropped_text_is_the_empty_one(published: Path) -> None:
    pipe: Any = StableDiffusionPipeline.from_pretrained(published)
    theirs, empty = pipe.encode_prompt(TEXTS, "cpu", 1, True)
    conditioner = PublishedText(foreign(str(published / "text_encoder")), 8, length=12)
    batch = {"caption": encoded(TEXTS)}
    with torch.no_grad():
        assert set(conditioner(batch)) == {"tokens"}
        assert torch.allclose(conditioner(batch)["tokens"], theirs, atol=1e-6)
        assert torch.allclose(conditioner.null(batch)["tokens"], empty, atol=1e-6)
    assert not [each for each in conditioner.parameters() if each.requires_grad]


def test_what_does_not_fit_is_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token_dim=768 is not the width of the encoder: set it to 8"):
        PublishedText(foreign(str(published / "text_encoder")), 768, length=12)
    bare = text_models.made(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"names no token for padding in tokenizer_config\.json"):
        PublishedText(foreign(str(bare)), 8, length=12)


@pytest.mark.slow
def test_new_words_are_those_of_diffusers(published: Path, trained: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, size=(8, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=x, caption=np.array(["a zog circle"] * 8))
    options = [f"base={trained}", "data=arrays", f"data.path={tmp_path / 'data.npz'}", "data.batch_size=4"]
    options += ["+data.fields.caption=caption", "adapter=new_words", "adapter.new_words.words={zog:red}"]
    options += ["adapter.new_words.num_vectors=2", "optimizer.lr=1.0", "logger=none", "trainer.max_steps=2"]
    run(tmp_path / "run", model=[*options, "callbacks.evaluate=null", "callbacks.pictures=null"])
    assert "load_textual_inversion" in export(str(tmp_path / "run"), str(tmp_path / "words"))
    model: Any = inkdrop.load(tmp_path / "run")
    model.sampler = DDIM(Trailing(4))
    point = model.denoiser.schedule.points([1.0])[0]
    start = point.sigma * model.start(range(2))
    model.codec.decode = lambda x, *further: x
    pipe = StableDiffusionPipeline.from_pretrained(published)
    pipe.load_textual_inversion(str(tmp_path / "words"))
    pipe.set_progress_bar_config(disable=True)
    texts = ["a zog circle", "a blue square left of a zog"]
    given = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent"}
    theirs = pipe(texts, latents=start, **given).images
    ours = model({"caption": encoded(texts)}, range(2))
    assert (theirs - ours).abs().max() < 1e-4 * ours.abs().max()
    plain = inkdrop.load(trained)({"caption": encoded(["a red circle"])}, [0])
    assert torch.equal(inkdrop.load(tmp_path / "run")({"caption": encoded(["a red circle"])}, [0]), plain)
