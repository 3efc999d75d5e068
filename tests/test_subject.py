"""A subject of few pictures: DreamBooth's two halves, and new words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_folders import stable_diffusion
from PIL import Image
from runs import RECORDED, differing, interrupted, run
from text_models import made

import inkdrop
from inkdrop.adapters import LoRA, NewWords
from inkdrop.checkpoints import read_checkpoint
from inkdrop.conditioners import Text
from inkdrop.data import Subject
from inkdrop.errors import DataError
from inkdrop.files.texts import decoded, encoded
from inkdrop.pipeline import add_adapters, foreign

SHORT = [option for option in RECORDED if not option.startswith(("data.batch_size", "~callbacks.evaluate"))]
SMALL = ["trainer.max_steps=3", "callbacks.checkpoint.every.steps=1"]
SCENES = ["data=scenes", "conditioner=words", "prediction=v", "metric=none", "extractor=none", *SHORT, *SMALL]
SCENES += ["data.batch_size=4", "data.num_scenes=40", "data.num_held_out=4", "conditioner.depth=1"]
SCENES += ["~callbacks.evaluate"]
SCENES += ["network.base_channels=8", "network.channel_multipliers=[1,2]", "network.attention_resolutions=[8]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, pictures of a subject, and a cache of pictures of its class."""
    folder = tmp_path_factory.mktemp("subject")
    run(folder / "base", model=SCENES)
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (16, 16), (40 * number, 90, 200)).save(folder / "pictures" / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(folder / "cache"))


def subject(folder: Path, **options: Any) -> Subject:
    given: dict[str, Any] = {
        "caption": "a zog circle",
        "class_caption": "a circle",
        "base": str(folder / "base"),
        "num_prior": 5,
    }
    given |= {"subject": str(folder / "pictures"), "shape": None, "num_classes": 0, "batch_size": 6}
    return Subject(**{**given, **options})


@pytest.mark.slow
def test_each_batch_has_as_many_of_the_subject_as_of_its_class(folder: Path) -> None:
    data = subject(folder, prior_weight=0.5)
    split = data.splits["train"]
    assert list(split["x"].shape) == [8, 3, 16, 16]
    assert decoded(split["caption"][torch.tensor([0, 2, 3, 7])]) == [*["a zog circle"] * 2, *["a circle"] * 2]
    assert split["weight"][torch.arange(8)].tolist() == [1.0] * 3 + [0.5] * 5
    items = data.order()(range(60))
    assert ((items < 3) == (torch.arange(60) % 2 == 0)).all()
    assert items[::2].bincount().tolist() == [10] * 3
    assert items[1::2].bincount().tolist()[3:] == [6] * 5
    assert len(data.splits["validation"]["x"]) == 3
    alone = subject(folder, num_prior=0, base=None)
    assert len(alone.splits["train"]["x"]) == 6  # as many as a batch has
    assert alone.order()(range(60)).bincount().tolist() == [10] * 6


@pytest.mark.slow
def test_pictures_of_the_class_are_those_of_the_base_and_drawn_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = inkdrop.load(folder / "base")
    first = subject(folder).splits["train"]["x"][torch.arange(3, 8)]
    assert torch.equal(first, base(base.request(range(5), caption="a circle"), range(5)))
    (part,) = (folder / "cache" / "prior").glob("*/*.pt")
    with monkeypatch.context() as patch:
        patch.setattr(Subject, "_pipeline", lambda self: pytest.fail("drawn again"))
        assert torch.equal(subject(folder).splits["train"]["x"][torch.arange(3, 8)], first)
    part.write_bytes(b"damaged")
    assert torch.equal(subject(folder).splits["train"]["x"][torch.arange(3, 8)], first)
    assert len(list((folder / "cache" / "prior").glob("*/*.pt"))) == 1
    _ = subject(folder, class_caption="a square").splits
    assert len(list((folder / "cache" / "prior").glob("*/*.pt"))) == 2


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set base=RUN and data\.class_caption='a circle', or data\.num_prior=0"):
        subject(folder, base=None)
    with pytest.raises(DataError, match="has no pictures: name a folder with some"):
        _ = subject(folder, subject=str(tmp_path), shape=[3, 16, 16]).splits
    with pytest.raises(DataError, match=r"draws torch.uint8 of shape \[3, 16, 16\], but the pictures"):
        _ = subject(folder, shape=[3, 8, 8]).splits
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png is broken: repair or remove it"):
        _ = subject(folder, subject=str(tmp_path), shape=[3, 16, 16]).splits


@pytest.mark.slow
def test_dreambooth_trains_the_whole_model_with_the_weights_of_the_data(folder: Path, tmp_path: Path) -> None:
    options = [each for each in SHORT if each != "~callbacks.evaluate"]
    given = [f"base={folder / 'base'}", f"data.subject={folder / 'pictures'}", "data.num_prior=5", "data.batch_size=4"]
    texts = ['data.caption="a zog circle"', 'data.class_caption="a circle"', "experiment=dreambooth"]
    content = run(tmp_path / "run", *given, *texts, *options, *SMALL, model=[])
    assert content["config"]["task"]["weight"] == "weight"
    assert content["config"]["network"] == read_checkpoint(folder / "base")["config"]["network"]
    assert len(content["trainable"]) == len(read_checkpoint(folder / "base")["trainable"])


@pytest.mark.slow
def test_only_the_vectors_of_new_words_are_trained_and_a_run_resumes(folder: Path, tmp_path: Path) -> None:
    given = [f"base={folder / 'base'}", f"data.subject={folder / 'pictures'}", "data.batch_size=4"]
    texts = ['data.caption="a zog circle"', "adapter.new_words.words={zog:circle}", "adapter.new_words.num_vectors=2"]
    command = [*given, *texts, "experiment=textual_inversion", *SHORT, *SMALL]
    content = run(tmp_path / "run", model=command)
    (name,) = content["trainable"]
    assert name == "pipeline.conditioner.embedding.words.new_words"
    assert list(content["state_dict"][name].shape) == [2, inkdrop.load(folder / "base").conditioner.token_dim]
    interrupted(tmp_path / "run", 1, tmp_path / "again")
    again = run(tmp_path / "again", "resume_allow=[output_dir]", model=command)
    assert differing(content, again) == []
    base, learned = inkdrop.load(folder / "base"), inkdrop.load(tmp_path / "run")
    for text, equal in (("a red circle", True), ("a zog circle", False)):
        batch = {"caption": encoded([text])}
        assert torch.equal(base.conditioner(batch)["tokens"], learned.conditioner(batch)["tokens"]) == equal
    assert add_adapters(base, tmp_path / "run") == ["new_words"]
    assert torch.equal(base.conditioner(batch)["tokens"], learned.conditioner(batch)["tokens"])
    with pytest.raises(ValueError, match=r"adapter\.scale has no effect on new words"):
        add_adapters(inkdrop.load(folder / "base"), tmp_path / "run", 0.5)


def test_a_new_word_begins_with_the_mean_of_others(folder: Path) -> None:
    base, other = inkdrop.load(folder / "base"), inkdrop.load(folder / "base")
    base.attach({"new": NewWords({"zog": "red"})})
    pairs = ((base, "zog"), (other, "red"))
    tokens = [each.conditioner({"caption": encoded([text])})["tokens"] for each, text in pairs]
    assert torch.allclose(*tokens, atol=1e-6)
    two = NewWords({"zug": "red circle"}, num_vectors=3)
    base.attach({"further": two})
    assert int(base.conditioner({"caption": encoded(["a zug"])})["mask"].sum()) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"red": None}, "the model knows the word red: choose a new one"),
        ({"two words": None}, "two words is not one word in lower case"),
        ({"zog": "dog"}, "the model does not know the word dog"),
    ],
)
def test_words_that_cannot_be_added_are_refused(folder: Path, words: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inkdrop.load(folder / "base").attach({"new": NewWords(words)})


def test_a_frozen_encoder_learns_new_words_too(tmp_path: Path) -> None:
    conditioner = Text(foreign(str(made(tmp_path / "clip"))), token_dim=8, length=8, dropout=0.0)
    before = conditioner({"caption": encoded(["a red circle"])})["tokens"]
    vectors = conditioner.requires_grad_(False).add_words("new", {"zog": "red"}, 2)
    assert torch.allclose(conditioner({"caption": encoded(["a red circle"])})["tokens"], before, atol=1e-6)
    assert (
        int(conditioner({"caption": encoded(["zog"])})["mask"].sum())
        == int(conditioner({"caption": encoded(["red"])})["mask"].sum()) + 1
    )
    vectors.requires_grad_(True)
    conditioner({"caption": encoded(["a zog circle"] * 9)})["tokens"].sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0


def test_a_lora_of_a_frozen_encoder_is_trained_through_it(tmp_path: Path) -> None:
    conditioner = Text(foreign(str(made(tmp_path / "clip"))), token_dim=8, length=8, dropout=0.0)
    model = torch.nn.ModuleDict({"conditioner": conditioner})
    before = conditioner({"caption": encoded(["a red circle"])})["tokens"]
    model.requires_grad_(False)
    trained = LoRA(["q_proj", "v_proj"], within="conditioner.encoder")(model, "lora")
    assert len(trained) == 8
    tokens = conditioner({"caption": encoded(["a red circle"])})["tokens"]
    assert torch.equal(tokens, before)
    tokens.square().sum().backward()
    assert all(weight.grad is not None for weight in trained)
    with torch.no_grad():
        trained[1].add_(1.0)
    assert not torch.allclose(conditioner({"caption": encoded(["a red circle"])})["tokens"], before)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of diffusers, and pictures of a subject."""
    folder = tmp_path_factory.mktemp("published_subject")
    stable_diffusion(folder / "base")
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (40 * number, 90, 200)).save(folder / "pictures" / f"{number}.png")
    return folder


def booth(published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    monkeypatch.setenv("INKDROP_CACHE_DIR", str(cache))
    given = [f"base={published / 'base'}", f"data.subject={published / 'pictures'}", "experiment=dreambooth"]
    given += ['data.caption="a red circle"', 'data.class_caption="a circle"', "data.num_prior=3", "data.batch_size=4"]
    given += ["time_grid.num_steps=3", "sampler=ddim", "time_grid=trailing", *SMALL]
    return [*given, *(each for each in SHORT if each != "~callbacks.evaluate"), *options]


@pytest.mark.slow
def test_a_folder_of_diffusers_draws_pictures_of_the_class(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = ["optimizer.lr=0.0", "data.num_prior=0"]
    run(tmp_path / "frozen", model=booth(published, tmp_path / "cache", monkeypatch, *frozen))
    base: Any = inkdrop.load(tmp_path / "frozen")
    expected = base(base.request(range(50), caption="a circle"), range(50))  # as many as a file has
    for number, adapter in enumerate((["adapter=lora"], [])):  # of which only the first changes few weights
        command = booth(published, tmp_path / "cache", monkeypatch, "optimizer.lr=0.1", *adapter)
        whole = run(tmp_path / f"run{number}", model=command)
        (part,) = (tmp_path / "cache" / "prior").glob("*/*.pt")
        assert torch.equal(torch.load(part)["x"], expected)
    monkeypatch.setattr(Subject, "_pipeline", lambda self: pytest.fail("drawn again"))
    interrupted(tmp_path / "run1", 1, tmp_path / "again")
    assert differing(whole, run(tmp_path / "again", "resume_allow=[output_dir]", model=command)) == []


def test_pictures_that_no_model_can_draw_any_more_are_named(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = subject(published, subject=str(published / "pictures"))
    with pytest.raises(DataError, match="is a folder of diffusers, by which only train"):
        _ = data.splits
    data.lend("a model", None)
    with pytest.raises(DataError, match="are no longer there, and the model of this run has changed"):
        _ = data.splits
