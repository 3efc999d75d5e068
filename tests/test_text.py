"""Texts by a frozen encoder: equal to that of transformers, encoded once, dropped, refused, kept in checkpoints."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from runs import POINTS, STEPS, arrays_of, differing, interrupted, run, sampled
from safetensors.torch import load_file, save_file
from text_models import CLIP, changed, made, model, tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.commands.check_data.inspection import inspect
from inkdrop.conditioners import Text
from inkdrop.conditioners.encoders import ARCHITECTURES, text_encoder
from inkdrop.conditioners.encodings import tokenizer_of
from inkdrop.data import Arrays
from inkdrop.errors import CheckpointError
from inkdrop.files.texts import encoded
from inkdrop.models import ForeignFiles
from inkdrop.pipeline import foreign
from inkdrop.randomness import Generators

PLACE = "pipeline.conditioner.encoder"
TEXTS = ["a red circle", "", "a blue square left of a red circle", "größer"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of a model of each architecture."""
    root = tmp_path_factory.mktemp("encoders")
    return {architecture: made(root / architecture, architecture) for architecture in ARCHITECTURES}


def text(folder: Path, **options: Any) -> Text:
    torch.manual_seed(1)
    return Text(foreign(str(folder)), **{"token_dim": 6, "length": 10, **options})


def batch(*texts: str) -> dict[str, Tensor]:
    return {"caption": encoded(texts)}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_the_encoder_equals_that_of_transformers(
    architecture: str, prefix: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders[architecture], tmp_path / "encoder")
    if prefix and architecture == "CLIPTextModel":  # as earlier releases named the weights, and with half precision
        weights = load_file(folder / "model.safetensors")
        save_file({prefix + name: value for name, value in weights.items()}, folder / "model.safetensors")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    encoder = text_encoder(foreign(str(folder))).eval()
    assert torch.equal(torch.get_rng_state(), state)
    numbers = torch.tensor([[3, 4, 5, 1, 0], [3, 7, 1, 0, 0], [3, 4, 6, 8, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    theirs: Any = model(architecture)
    with torch.no_grad():
        tokens, vectors = encoder(numbers, mask.bool())
        if architecture.startswith("T5"):
            expected = theirs.get_encoder()(input_ids=numbers, attention_mask=mask).last_hidden_state
            pooled = torch.stack([row[: int(n)].mean(0) for row, n in zip(expected, mask.sum(1), strict=True)])
        else:
            inner = getattr(theirs, "text_model", theirs)
            output = inner(input_ids=numbers, attention_mask=mask)
            expected, pooled = output.last_hidden_state, output.pooler_output
    assert torch.allclose(tokens[mask.bool()], expected[mask.bool()], atol=1e-6)
    assert torch.allclose(vectors, pooled, atol=1e-6)


@pytest.mark.parametrize("architecture", ["CLIPTextModel", "T5EncoderModel"])
def test_a_text_becomes_the_same_whatever_is_beside_it_and_is_encoded_once(
    architecture: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    conditioner = text(folders[architecture], dim=3)
    together = conditioner(batch(*TEXTS, *(f"a {' red' * i}" for i in range(9))))
    extra = 2 if architecture == "CLIPTextModel" else 1
    assert together["mask"].sum(1)[:4].tolist() == [3 + extra, extra, 8 + extra, 1 + extra]
    assert torch.equal(together["tokens"] != 0, together["mask"][:, :, None].expand(-1, -1, 6))
    for number, each in enumerate(TEXTS):
        alone = text(folders[architecture], dim=3)
        assert torch.equal(alone._encoded([each.encode()])[0], conditioner._encoded([each.encode()])[0])
        assert torch.allclose(alone(batch(each))["vector"][0], together["vector"][number], atol=1e-6)
    calls: list[int] = []
    conditioner.encoder.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(conditioner(batch(*TEXTS))["tokens"], together["tokens"][:4])
    assert calls == []
    with torch.inference_mode():
        conditioner(batch("circle"))
    conditioner(batch("square", "circle"))["tokens"].sum().backward()
    assert len(calls) == 2
    assert all((each.grad is not None) == each.requires_grad for each in (conditioner.map.weight,))  # type: ignore[union-attr]
    conditioner.load_state_dict(conditioner.state_dict())  # these may be other weights
    conditioner(batch("circle"))
    assert len(calls) == 3


def test_a_full_cache_begins_anew(folders: dict[str, Path]) -> None:
    whole, small = text(folders["CLIPTextModel"]), text(folders["CLIPTextModel"], cache=1e-7)
    for texts in (TEXTS, TEXTS[1:], ["red", *TEXTS], ["a"] * 3):
        assert torch.equal(whole(batch(*texts))["tokens"], small(batch(*texts))["tokens"])
    assert (len(small._cache._places), len(whole._cache._places)) == (1, 6)


def test_a_dropped_text_is_a_learned_token_or_another_text(folders: dict[str, Path]) -> None:
    conditioner = text(folders["CLIPTextModel"], dim=3, dropout=0.3)
    null = conditioner.null(batch(*TEXTS[:2]))
    assert null["mask"].sum(1).tolist() == [1, 1]
    assert torch.equal(null["tokens"][0, 0], conditioner.null_token)
    assert torch.equal(null["vector"], conditioner.null_vector.expand(2, 3))  # type: ignore[union-attr]
    many = conditioner({"caption": encoded(["a"] * 3000)}, Generators.from_seeds(range(3000)))["mask"].sum(1)
    assert (many == 1).float().mean().item() == pytest.approx(0.3, abs=0.03)
    other = text(folders["CLIPTextModel"], dim=3, null_text="")
    null, empty = other.null(batch(*TEXTS[:2])), other(batch("", ""))
    assert all(torch.equal(null[name], empty[name]) for name in ("tokens", "mask", "vector"))
    assert not [name for name in other.state_dict() if name.startswith("null")]
    assert other.empties(["caption"])
    without = text(folders["CLIPTextModel"], dropout=0.0)
    assert not [name for name, each in without.named_parameters() if each.requires_grad and "null" in name]


def test_long_texts_are_cut_before_the_token_that_ends_them(folders: dict[str, Path]) -> None:
    conditioner = text(folders["CLIPTextModel"], length=4)
    cond = conditioner(batch("a red circle", "a red"))
    assert torch.equal(cond["tokens"][0], cond["tokens"][1])
    assert conditioner.cut(batch("a red circle", "a red"))["caption"].tolist() == [True, False]
    assert conditioner.token_words(batch("a red circle", "red")) == [["", "a", "red", ""], ["", "red", "", ""]]
    with pytest.warns(UserWarning, match="a text of 5 tokens, of which the model reads the first 4"):
        conditioner.request([0], caption="a red circle")


def test_check_data_counts_the_texts_that_the_tokenizer_cuts(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((20, 2), np.float32), caption=np.array([*TEXTS, "red"] * 4))
    data = Arrays(str(tmp_path / "data.npz"), {"x": "x", "caption": "caption"}, None, 0, 4, held_out=0.2)
    inspect(data, tmp_path, None, text(folders["T5EncoderModel"], length=5))
    printed = capsys.readouterr().out
    cut = [int(line.split()[2].rstrip(",")) for line in printed.splitlines() if "cut texts" in line]
    assert (len(cut), sum(cut)) == (2, 4)


# id: (change of config.json, words)
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "code": ({"auto_map": {"AutoModel": "code.Model"}}, "has auto_map, which names code to run: no code"),
    "an unknown architecture": ({"architectures": ["GPT2Model"]}, r"GPT2Model, which is not supported.*CLIPTextModel"),
    "no architecture": ({"architectures": None}, "names the architecture None, which is not supported"),
    "a negative size": ({"hidden_size": -1}, "hidden_size: input should be greater than or equal to 1"),
    "a huge size": ({"vocab_size": 10**12}, "vocab_size: input should be less than or equal to"),
    "a text as size": ({"num_hidden_layers": "2"}, "num_hidden_layers: input should be a valid integer"),
    "an unknown function": ({"hidden_act": "os.system"}, "hidden_act: input should be 'quick_gelu' or 'gelu'"),
    "another shape": ({"hidden_size": 16}, r"has the shape \[16, 8\] for embeddings.*but config.json says \[16, 16\]"),
    "another number": ({"num_hidden_layers": 3}, "has nothing for encoder.layers.2"),
    "fewer tokens": ({"vocab_size": 10}, r"the shape \[16, 8\] for .*says \[10, 8\]"),
    "no divisor": ({"num_attention_heads": 3}, "config.json of the foreign model: "),
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.values(), ids=HOSTILE)
def test_a_folder_that_is_not_such_a_model_is_refused(
    change: dict[str, Any], words: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = changed(shutil.copytree(folders["CLIPTextModel"], tmp_path / "encoder"), **change)
    with pytest.raises(ValueError, match=words):
        text(folder)


def test_what_a_configuration_says_beyond_sizes_is_ignored(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["CLIPTextModel"], tmp_path / "encoder")
    changed(
        folder, attn_implementation="somebody/kernel", _attn_implementation="somebody/kernel", output_attentions=True
    )
    assert torch.equal(text(folder)(batch("a"))["tokens"], text(folders["CLIPTextModel"])(batch("a"))["tokens"])


def test_what_is_missing_is_named(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(folders["CLIPTextModel"], tmp_path / "encoder")
    with pytest.raises(ValueError, match=r"conditioner\.length=13 is more than the 12 tokens that the encoder reads"):
        text(folder, length=13)
    with pytest.raises(ValueError, match="leave nothing of the text"):
        text(folder, token_dim=0)
    with pytest.raises(ValueError, match=r"the data have no caption.*data\.captions"):
        text(folder).fit(lambda size, names=None: iter(()))
    with pytest.raises(ValueError, match="caption is not a text"):
        text(folder)({"caption": torch.zeros(3)})
    larger = tokenizer(True)
    larger.add_tokens([f"word{number}" for number in range(5)])
    larger.save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"tokenizer.json of the foreign model has 17 tokens, but config.json says 16"):
        text(folder)
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match=r"tokenizer.json of the foreign model cannot be read"):
        text(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer.json.*save_pretrained\(FOLDER\) writes tokenizer.json"):
        text(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model.safetensors cannot be read: No such file"):
        text(folder)
    with pytest.raises(CheckpointError, match=r"openai/clip/config.json cannot be read: No such file"):
        foreign("openai/clip")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        ValueError, match=r"conditioner=text needs transformers: run `pip install 'inkdrop\[features\]'`"
    ):
        text(folders["CLIPTextModel"])


def options(folder: Path) -> list[str]:
    data = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption", "data.batch_size=8"]
    chosen = ["conditioner=text", f"conditioner.encoder.path={folder / 'encoder'}", "conditioner.length=10"]
    return [*POINTS, *data, *chosen, "conditioner.token_dim=0", "conditioner.dim=8", "network.vector_dim=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, a run with an encoder in `encoder`, which is deleted since; samples from before are in `before`."""
    folder = tmp_path_factory.mktemp("texts")
    x = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, caption=np.array(TEXTS * 20))
    made(folder / "encoder", "T5EncoderModel")
    run(folder / "run", model=options(folder))
    sampled(folder / "run", folder / "before", "num_samples=4", "condition.caption=[red,'größer']")
    shutil.rmtree(folder / "encoder")
    return folder


@pytest.mark.slow
def test_the_encoder_is_in_the_checkpoint_once_and_in_no_average(folder: Path) -> None:
    content = read_checkpoint(folder / "run")
    assert sorted(content["models"][PLACE]["files"]) == ["config.json", "tokenizer.json"]
    names = [name for name in content["state_dict"] if "conditioner.encoder" in name]
    pipeline = inkdrop.load(folder / "run")
    encoder = pipeline.conditioner.encoder  # type: ignore[union-attr]
    assert len(names) == len(encoder.state_dict()) > 10  # type: ignore[operator]
    averages = {name for profile in content["callbacks"].values() for name in _tensors(profile)}
    assert averages
    assert not [name for name in averages if "encoder" in name]
    assert not [name for name in content["trainable"] if "encoder" in name]
    reference = model("T5EncoderModel").encoder.state_dict()
    for name, value in encoder.model.text.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(value, reference[name])


def _tensors(node: Any, name: str = "") -> list[str]:
    if isinstance(node, dict):
        return [each for key, value in node.items() for each in _tensors(value, f"{name}.{key}")]
    return [name] if isinstance(node, Tensor) else []


def test_samples_need_no_other_file(folder: Path, tmp_path: Path) -> None:
    then = arrays_of(folder / "before")
    now, _ = sampled(folder / "run", tmp_path / "now", "num_samples=4", "condition.caption=[red,'größer']")
    assert all(np.array_equal(now[each], then[each]) for each in then)
    assert json.loads((folder / "run" / "run.json").read_text())["config"]["conditioner"]["length"] == 10


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_without_the_folder(folder: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(folder / "run")
    interrupted(folder / "run", 9, tmp_path / "run")
    again = run(tmp_path / "run", "resume_allow=[output_dir]", model=options(folder))
    assert again["global_step"] == STEPS
    assert differing(whole, again) == []


def test_hostile_files_in_a_checkpoint_are_refused(folder: Path) -> None:
    files = read_checkpoint(folder / "run")["models"][PLACE]["files"]
    config = json.loads(files["config.json"].numpy().tobytes())
    for change, words in (({"auto_map": {}}, "auto_map"), ({"d_model": 2**21}, "d_model"), (CLIP, None)):
        content = json.dumps({**config, **change}).encode()
        hostile = {**files, "config.json": torch.frombuffer(bytearray(content), dtype=torch.uint8)}
        if words is None:
            text_encoder(ForeignFiles(hostile))  # fields of another model are not read
        else:
            with pytest.raises(ValueError, match=words):
                text_encoder(ForeignFiles(hostile))


def test_a_clip_without_tokenizer_json_reads_its_vocabulary_and_merges(tmp_path: Path) -> None:
    folder = made(tmp_path / "clip", vocab_size=600)
    (folder / "tokenizer.json").unlink()
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{each}</w>" for each in letters), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    texts = ["A red  circle's größer #2", "", "red,reds"]
    expected = transformers.CLIPTokenizer.from_pretrained(folder)(texts).input_ids
    found = tokenizer_of(foreign(str(folder)), 600)
    assert [found.encode(text).ids for text in texts] == expected
    assert words.index("red</w>") in expected[0]
    (folder / "merges.txt").write_text("r e d\n")
    with pytest.raises(ValueError, match=r"tokenizer\.json of the foreign model cannot be read"):
        tokenizer_of(foreign(str(folder)), 600)
