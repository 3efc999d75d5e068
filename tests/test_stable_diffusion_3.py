"""A folder of Stable Diffusion 3: its three text encoders, its samples from texts, and the same in a folder of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers import StableDiffusion3Pipeline
from diffusers_folders import stable_diffusion_3
from runs import as_a_command, run
from torch import Tensor

import inkdrop
from inkdrop.commands.export import export
from inkdrop.conditioners import PublishedTexts
from inkdrop.files.texts import encoded
from inkdrop.pipeline import foreign
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Shifted, Trailing

TEXTS = ["a red circle", "a blue square left of a red circle"]
GUIDED = "guidance.classifier_free.scale=3.0"
SHORT = ["logger=none", "trainer.max_steps=1", "callbacks.evaluate=null", "callbacks.pictures=null", "optimizer.lr=0.0"]


@pytest.fixture(scope="module", params=[True, False], ids=["t5", "no_t5"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny folder that diffusers wrote, with random weights."""
    return stable_diffusion_3(tmp_path_factory.mktemp("sd3") / "published", request.param)


def pipeline_of(folder: Path) -> Any:
    """The pipeline of a folder in diffusers, where T5 must be None if the folder lacks it."""
    absent = {} if (folder / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline.from_pretrained(folder, **absent)


def captioned(folder: Path) -> list[str]:
    x = np.random.default_rng(0).integers(0, 256, size=(16, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "data.npz", x=x, caption=np.array(TEXTS * 8))
    data = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption", "data.batch_size=8"]
    return [*data, *SHORT]


def changed(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() < tolerance * other.abs().max())


def texts_of(folder: Path, **options: Any) -> PublishedTexts:
    given: dict[str, Any] = {"token_dim": 20, "dim": 9, "length": 12}
    names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    return PublishedTexts(
        *(foreign(str(folder / name)) if (folder / name).is_dir() else None for name in names), **{**given, **options}
    )


def test_tokens_and_vectors_are_those_of_the_pipeline(published: Path) -> None:
    pipe = pipeline_of(published)
    tokens, empty, vectors, empty_vectors = pipe.encode_prompt(TEXTS, None, None, "cpu")
    assert tokens.shape == (2, 12 + 256, 20)
    conditioner, batch = texts_of(published), {"caption": encoded(TEXTS)}
    with torch.no_grad():
        ours, null = conditioner(batch), conditioner.null(batch)
    assert set(ours) == {"tokens", "vector"}
    assert close(ours["tokens"], tokens, 1e-5)
    assert close(ours["vector"], vectors, 1e-5)
    assert close(null["tokens"], empty, 1e-5)
    assert close(null["vector"], empty_vectors, 1e-5)
    assert not [each for each in conditioner.parameters() if each.requires_grad]
    words = conditioner.token_words(batch)[0]
    assert (len(words), words[1:4]) == (268, ["a", "red", "circle"])


def latents_of(pipe: Any, start: Tensor) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    given = {"sigmas": [1.0, 0.75, 0.5, 0.25], "guidance_scale": 3.0, "output_type": "latent"}
    latents: Tensor = pipe(TEXTS, latents=start, **given).images
    return latents


def test_a_folder_is_the_model_here_and_ours_is_one_there(published: Path, tmp_path: Path) -> None:
    shifted = ["time_grid=shifted", "time_grid.shift=2.0"]
    changed(published / "scheduler" / "scheduler_config.json", shift=2.0)
    run(tmp_path / "run", f"base={published}", GUIDED, *shifted, model=captioned(tmp_path))
    code = export(str(tmp_path / "run"), str(tmp_path / "out"))
    absent = "" if (published / "text_encoder_3").is_dir() else ", text_encoder_3=None, tokenizer_3=None"
    assert code == f'diffusers.StableDiffusion3Pipeline.from_pretrained("{tmp_path / "out"}"{absent})'
    run(tmp_path / "again", f"base={tmp_path / 'out'}", GUIDED, model=captioned(tmp_path))
    samples: list[Tensor] = []
    pipes = [pipeline_of(published), eval(code, {"diffusers": diffusers})]
    for model in map(inkdrop.load, (tmp_path / "run", tmp_path / "again")):
        anew: Any = model
        anew.sampler, anew.codec.decode = DDIM(Shifted(Trailing(4), 2.0)), lambda x, *further: x
        samples.append(anew({"caption": encoded(TEXTS)}, range(2)))
    samples += [latents_of(pipe, anew.start(range(2))) for pipe in pipes]
    assert all(close(each, samples[-2], 1e-4) for each in samples)
    assert (samples[0][0] - samples[0][1]).abs().max() > 0.1


@pytest.mark.slow
def test_a_lora_changes_the_samples_of_diffusers_as_it_does_ours(tmp_path: Path) -> None:
    folder = stable_diffusion_3(tmp_path / "published")
    layers = "adapter.lora.layers=[q,k,v,out,modulation,layers.2]"  # of which two have other orders in diffusers
    options = [f"base={folder}", "adapter=lora", layers, "adapter.lora.alpha=40", "optimizer.lr=0.05", GUIDED]
    run(tmp_path / "run", *options, model=[each for each in captioned(tmp_path) if each != "optimizer.lr=0.0"])
    model: Any = inkdrop.load(tmp_path / "run")
    model.sampler, model.codec.decode = DDIM(Trailing(4)), lambda x, *further: x
    start, pipe = model.start(range(2)), pipeline_of(folder)
    ours, before = model({"caption": encoded(TEXTS)}, range(2)), latents_of(pipe, start)
    assert "load_lora_weights" in export(str(tmp_path / "run"), str(tmp_path / "out"))
    pipe.load_lora_weights(str(tmp_path / "out"))
    assert close(latents_of(pipe, start), ours, 1e-4)
    assert not close(before, ours, 1e-2)


def test_weights_in_several_files_are_those_in_one(tmp_path: Path) -> None:
    folder = stable_diffusion_3(tmp_path / "published")
    batch = {"caption": encoded(TEXTS)}
    whole = texts_of(folder)(batch)
    name = folder / "text_encoder_3"
    model: Any = transformers.T5EncoderModel.from_pretrained(name)
    (name / "model.safetensors").unlink()
    model.save_pretrained(name, max_shard_size="4KB")
    assert not (name / "model.safetensors").exists()
    again = texts_of(folder)(batch)
    assert all(torch.equal(again[door], whole[door]) for door in whole)
    index = json.loads((name / "model.safetensors.index.json").read_text())
    changed(name / "model.safetensors.index.json", weight_map=dict.fromkeys(index["weight_map"], "../x.safetensors"))
    with pytest.raises(ValueError, match="has no weight_map to files next to it"):
        texts_of(folder)


@pytest.mark.parametrize(
    ("place", "change", "code", "words"),
    [
        ("text_encoder", {"architectures": ["CLIPTextModel"]}, 4, "text_encoder is a ['CLIPTextModel'], which is not"),
        ("text_encoder_2", {"projection_dim": 4}, 4, "make vectors of 8, but the network takes 9"),
        ("text_encoder_3", {"d_model": 8}, 4, "text_encoder_3 has d_model=8, but the network takes tokens of 20"),
        ("text_encoder_3", {"architectures": ["UMT5EncoderModel"]}, 4, "text_encoder_3 is a ['UMT5EncoderModel']"),
        ("text_encoder_2", None, 2, "has text_encoder, text_encoder_3, which are not supported together: choose a"),
    ],
)
def test_other_encoders_are_refused_before_anything_is_created(
    place: str, change: dict[str, Any] | None, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stable_diffusion_3(tmp_path / "published")
    if change is None:
        shutil.rmtree(folder / place)
    else:
        changed(folder / place / "config.json", **change)
    with pytest.raises(SystemExit) as end:
        as_a_command(inkdrop.train, f"base={folder}", *captioned(tmp_path), f"output_dir={tmp_path / 'run'}")
    assert words in " ".join(capsys.readouterr().err.split())
    assert end.value.code == code
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused(published: Path) -> None:
    with pytest.raises(ValueError, match=r"conditioner\.dim=8 is not the width of both vectors: set it to 9"):
        texts_of(published, dim=8)
    t5 = (published / "text_encoder_3").is_dir()
    words = "token_dim=19 is not the width of T5: set it to 20" if t5 else "token_dim=19 is less than the 20 of both"
    with pytest.raises(ValueError, match=words):
        texts_of(published, token_dim=19)
    with pytest.raises(ValueError, match="teaches one text encoder, but this model has several"):
        texts_of(published).add_words("new", {"zog": None}, 1)
