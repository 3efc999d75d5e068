"""Text is a field: from arrays through training, guidance and samples.npz and back, and from a user's words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from entry_scripts import Script
from torch import Tensor, nn

import inkdrop
from inkdrop.conditioners import Conditioner
from inkdrop.data import Arrays
from inkdrop.denoiser import Condition
from inkdrop.errors import DataError
from inkdrop.files.texts import decoded, encoded, is_text, requested

CAPTIONS = ["a red circle, left of [it]", "größer als = 'zwei'", "円", ""]


class Words(Conditioner):
    """A vector of how often each byte is in a text; training empties it in a tenth of the samples."""

    names = ("caption",)
    dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(256, self.dim)

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {"caption": 0.1}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        text = batch["caption"].long()
        counts = torch.zeros(len(text), 256, device=text.device).scatter_add_(1, text, (text > 0).float())
        if "caption" in dropped:
            counts = counts * ~dropped["caption"].to(counts.device)[:, None]
        return {"vector": self.map(counts)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        self.require_known(condition)
        return {"caption": requested(condition.get("caption"), "caption", seeds)}

    def example(self, count: int) -> dict[str, Tensor]:
        return {"caption": encoded(["any"] * count)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on points with captions, in a folder of an odd name."""
    folder = tmp_path_factory.mktemp("texts")
    x = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, caption=np.array(CAPTIONS * 20))
    inkdrop.train(
        *("experiment=moons", "data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption"),
        *("conditioner._target_=test_texts.Words", "network.vector_dim=8", "allow_targets=[test_texts.]"),
        *("trainer.max_steps=3", "data.batch_size=16", "logger=none", "callbacks.pictures.num_samples=6"),
        *("evaluation.num_samples=20", f"output_dir='{folder}/it is, (odd)'"),
    )
    return folder / "it is, (odd)"


def test_texts_come_back_as_they_were() -> None:
    rows = encoded(CAPTIONS)
    assert (rows.dtype, rows.shape) == (torch.uint8, (4, max(len(each.encode()) for each in CAPTIONS)))
    assert decoded(rows) == CAPTIONS
    assert decoded(rows[[2, 0]]) == [CAPTIONS[2], CAPTIONS[0]]
    assert is_text(rows)
    assert not is_text(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="caption contains the character 0"):
        encoded(["a\0b"], "caption")
    with pytest.raises(ValueError, match="more than 65,536: shorten it"):
        encoded(["a" * 70_000])


def test_requests_are_texts_lists_and_files_in_turn(tmp_path: Path) -> None:
    def asked(wanted: Any, *seeds: int) -> list[str]:
        return decoded(requested(wanted, "caption", seeds))

    assert asked("a cat", 0, 5) == ["a cat", "a cat"]
    assert asked(["a", "größer"], 0, 1, 3) == ["a", "größer", "größer"]
    assert asked(1, 0) == ["1"]
    (tmp_path / "prompts.txt").write_text("one, two\n\n  [three]\n", "utf-8")
    assert asked(f"@{tmp_path / 'prompts.txt'}", 0, 1, 2) == ["one, two", "  [three]", "one, two"]
    (tmp_path / "empty.txt").write_text("\n")
    for wrong, words in (
        (None, "must be a text, a list of texts, or @FILE"),
        ([], "must be a text"),
        (f"@{tmp_path / 'absent.txt'}", "cannot be read: No such file"),
        (f"@{tmp_path / 'empty.txt'}", "has no text: write one in each line"),
    ):
        with pytest.raises(ValueError, match=words):
            requested(wrong, "caption", [0])


@pytest.mark.slow
def test_captions_go_from_arrays_through_training_and_guidance_to_samples_and_back(run: Path, tmp_path: Path) -> None:
    wanted = [CAPTIONS[0], CAPTIONS[1]]
    written = "[" + ",".join("'" + each.replace("'", "\\'") + "'" for each in wanted) + "]"
    options = [f"checkpoint='{run}'", "num_samples=3", f"condition.caption={written}", "allow_targets=[test_texts.]"]
    options += ["guidance=classifier_free", "guidance.scale=2"]
    inkdrop.sample(*options, f"output_dir={tmp_path / 'samples'}")
    with np.load(tmp_path / "samples/samples.npz") as file:
        assert file["caption"].tolist() == [wanted[0], wanted[1], wanted[0]]
        x = file["x"]
    data = Arrays(tmp_path / "samples/samples.npz", {"x": "x", "caption": "caption"}, None, 0, 2, held_out=0.34)
    items = {
        split: decoded(data.splits[split]["caption"][torch.arange(len(data.splits[split]["x"]))])
        for split in data.splits
    }
    assert sorted([*items["train"], *items["validation"]]) == sorted([wanted[0], wanted[1], wanted[0]])
    assert data.shape == list(x.shape[1:])
    inkdrop.sample(*options[:2], "condition.caption=a cat", *options[3:], f"output_dir={tmp_path / 'other'}")
    with np.load(tmp_path / "other/samples.npz") as file:
        assert file["caption"].tolist() == ["a cat"] * 3
        assert not np.array_equal(file["x"], x)


def test_texts_that_are_no_fields_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2), np.float32), label=np.array(["a", "b", "c", "d"]))
    with pytest.raises(DataError, match="real numbers, or of texts"):
        Arrays(tmp_path / "a.npz", {"x": "x", "label": "label"}, [2], 4, 2).setup("fit")
    np.savez(tmp_path / "b.npz", x=np.zeros((4, 2), np.float32), words=np.array([["a", "b"]] * 4))
    with pytest.raises(DataError, match="real numbers, or of texts"):
        Arrays(tmp_path / "b.npz", {"x": "x", "words": "words"}, [2], 0, 2).setup("fit")


@pytest.mark.slow
def test_the_line_to_try_next_works_when_it_is_pasted(run: Path, script: Script) -> None:
    ended = script(
        "train.py",
        *("experiment=moons", "data=arrays", f"data.path={run.parent / 'data.npz'}", "+data.fields.caption=caption"),
        *("conditioner._target_=test_texts.Words", "network.vector_dim=8", "allow_targets=[test_texts.]"),
        *("trainer.max_steps=2", "data.batch_size=16", "logger=none", "~callbacks.pictures", "~callbacks.evaluate"),
        *("evaluation.num_samples=20", "output_dir='it is, [odd] = $1'"),
    )
    assert ended.code == 0, ended.err
    (line,) = [each for each in ended.out.splitlines() if each.startswith("now try")]
    _, _, python, _, *options = shlex.split(line)
    assert "python" in python
    ended = script("sample.py", *options, "num_samples=20", "allow_targets=[test_texts.]", "data_folders=[/]")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize("caption", ["a (red, circle", "Haus = für", "a, b"])
def test_what_hydra_cannot_read_is_shown_with_its_quotes(caption: str, run: Path, script: Script) -> None:
    ended = script("sample.py", f"checkpoint='{run}'", f"condition.caption={caption}")
    assert ended.code == 2
    assert "is quoted twice" in ended.err, ended.err
    pasted = shlex.split(ended.err.rpartition("quoted twice: ")[2])
    assert len(pasted) == 1
    ended = script(
        "sample.py", f"checkpoint='{run}'", *pasted, "num_samples=1", "allow_targets=[test_texts.]", "output_dir=out"
    )
    assert ended.code == 0, ended.err
    with np.load("out/samples.npz") as file:
        assert file["caption"].tolist() == [caption]


def test_help_lists_the_conditions_of_a_checkpoint(script: Script, tmp_path: Path) -> None:
    assert "--help checkpoint=RUN lists the conditions" in script("sample.py", "--help").out


def test_a_misspelled_condition_is_named(run: Path) -> None:
    with pytest.raises(ValueError, match=r"condition\.captoin is unknown: this model takes condition\.caption"):
        inkdrop.sample(f"checkpoint='{run}'", "condition.captoin=a", "allow_targets=[test_texts.]")
