"""Files of a foreign model, such as a text encoder: a checkpoint keeps them as data, and is enough on its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import POINTS, STEPS, arrays_of, differing, interrupted, run, sampled
from safetensors.torch import save_file
from torch import Tensor, nn

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.checkpoints.models import digest_of_files, embedded, foreign_files
from inkdrop.checkpoints.parts import checked_part
from inkdrop.conditioners import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.errors import CheckpointError
from inkdrop.files.texts import decoded, encoded, requested
from inkdrop.models import MAX_FOREIGN_BYTES, ForeignFiles, Frozen

ALLOWED = "allow_targets=[test_foreign_models.]"
PLACE = "pipeline.conditioner.encoder"


class Caption(Conditioner):
    """The mean embedding of the words of a text, by a foreign model of one layer: a toy of a text encoder."""

    names = ("caption",)
    dim = 8

    def __init__(self, encoder: ForeignFiles):
        super().__init__()
        encoder.architecture(["ToyEmbedding"])
        self.words: dict[str, int] = encoder.json("vocab.json")
        layer = nn.Embedding(len(self.words), encoder.config["dim"])
        if (weights := encoder.weights()) is not None:
            layer.load_state_dict(dict(weights))
        self.encoder = Frozen(layer)
        self.map = nn.Linear(encoder.config["dim"], self.dim)

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        tokens = [torch.tensor([self.words[word] for word in text.split()]) for text in decoded(batch["caption"])]
        return {"vector": self.map(torch.stack([self.encoder(each).mean(0) for each in tokens]))}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        self.require_known(condition)
        return {"caption": requested(condition.get("caption"), "caption", seeds)}

    def example(self, count: int) -> dict[str, Tensor]:
        return {"caption": encoded(["red"] * count)}


def made(folder: Path, seed: int = 0) -> Path:
    """The folder of a foreign model: configuration, tokenizer, weights, and code, which nobody needs."""
    folder.mkdir(parents=True)
    config = {"architectures": ["ToyEmbedding"], "dim": 4}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({"red": 0, "${oc.env:HOME}": 1, "größer": 2}))
    (folder / "merges.txt").write_text(f"version {seed}\n")
    (folder / "code.py").write_text("raise SystemExit('executed')\n")
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    save_file({"weight": weights}, folder / "model.safetensors")
    return folder


def options(folder: Path) -> list[str]:
    names = [
        "conditioner._target_=test_foreign_models.Caption",
        "+conditioner.encoder._target_=inkdrop.pipeline.foreign",
    ]
    data = ["data=arrays", f"data.path={folder / 'data.npz'}", "+data.fields.caption=caption"]
    where = f"+conditioner.encoder.path={folder / 'encoder'}"
    return [*POINTS, *data, "data.batch_size=8", *names, where, "network.vector_dim=8", ALLOWED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, a run with a foreign model in `encoder`, which is deleted since; samples from before are in `before`."""
    folder = tmp_path_factory.mktemp("foreign")
    x = np.random.default_rng(0).normal(size=(80, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, caption=np.array(["red", "größer red"] * 40))
    made(folder / "encoder")
    run(folder / "run", model=options(folder))
    sampled(folder / "run", folder / "before", "num_samples=4", "condition.caption=[red,'größer']", ALLOWED)
    shutil.rmtree(folder / "encoder")
    return folder


@pytest.mark.slow
def test_the_files_are_data_of_the_checkpoint_and_the_weights_are_saved_once(folder: Path, tmp_path: Path) -> None:
    content, kept = read_checkpoint(folder / "run"), read_checkpoint(folder / "run")["models"][PLACE]
    assert sorted(kept["files"]) == ["config.json", "merges.txt", "vocab.json"]
    same = foreign_files(made(tmp_path / "encoder"))
    assert all(torch.equal(kept["files"][name], each) for name, each in same.items())
    assert kept["sha256"] == digest_of_files(same)
    assert kept["source"] == {"path": str(folder / "encoder")}
    assert content["config"]["conditioner"]["encoder"]["path"] == str(folder / "encoder")
    (name,) = [name for name in content["state_dict"] if "conditioner.encoder" in name]
    expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(content["state_dict"][name], expected)
    assert not [each for each in content["trainable"] if "conditioner.encoder" in each]


def test_samples_need_no_other_file(folder: Path, tmp_path: Path) -> None:
    then = arrays_of(folder / "before")
    now, _ = sampled(folder / "run", tmp_path / "now", "num_samples=4", "condition.caption=[red,'größer']", ALLOWED)
    assert all(np.array_equal(now[each], then[each]) for each in then)
    pipeline = inkdrop.load(folder / "run", allow_targets=["test_foreign_models."])
    drawn = pipeline(pipeline.request(range(4), caption=["red", "größer"]), range(4))
    assert torch.allclose(drawn, torch.from_numpy(now["x"]), atol=1e-6)


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_without_the_folder(folder: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(folder / "run")
    interrupted(folder / "run", 9, tmp_path / "run")
    again = run(tmp_path / "run", "resume_allow=[output_dir]", model=options(folder))
    assert again["global_step"] == STEPS
    assert differing(whole, again) == []
    assert again["models"].keys() == whole["models"].keys() == {PLACE}


def test_a_run_does_not_resume_with_another_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(folder / "run", 9, tmp_path / "run")
    made(folder / "encoder", seed=1)
    try:
        with pytest.raises(SystemExit) as end:
            run(tmp_path / "run", "resume_allow=[output_dir]", model=options(folder))
    finally:
        shutil.rmtree(folder / "encoder")
    assert end.value.code == 4
    digest = read_checkpoint(folder / "run")["models"][PLACE]["sha256"]
    expected = (
        f"{PLACE}.path={folder / 'encoder'} is not the model that the run was started with, whose SHA-256 is {digest}"
    )
    assert expected in capsys.readouterr().err


def test_a_checkpoint_reads_no_folder_of_a_foreign_model(folder: Path) -> None:
    content = {**read_checkpoint(folder / "run"), "models": {}}
    with pytest.raises(CheckpointError, match=r"encoder\._target_=inkdrop\.pipeline\.foreign is not allowed"):
        checked_part("run.ckpt", content, "pipeline", ["test_foreign_models."])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": 3}, "sha256: input should be a valid string"),
        ({"files": None}, "files: input should be a valid dictionary"),
        ({"files": {"config.json": torch.tensor([123, 125], dtype=torch.uint8)}}, "not those of its SHA-256"),
    ],
)
def test_a_damaged_record_is_refused_by_name(folder: Path, change: dict[str, Any], words: str) -> None:
    kept = {**read_checkpoint(folder / "run")["models"][PLACE], **change}
    node = {"conditioner": {"encoder": {"_target_": "inkdrop.pipeline.foreign", "path": "x"}}}
    with pytest.raises(CheckpointError, match=f"of its model pipeline.conditioner.encoder, .*{words}"):
        embedded(node, {PLACE: kept}, "run.ckpt", "pipeline")


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: No such file"):
        foreign_files(tmp_path)
    files = foreign_files(made(tmp_path / "encoder"))
    with pytest.raises(ValueError, match=r"architecture ToyEmbedding, which is not supported here.*available: A, B"):
        ForeignFiles(files).architecture(["A", "B"])
    code = torch.tensor([*b'{"architectures": ["A"], "auto_map": {"AutoModel": "code.Model"}}'], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"has auto_map, which names code to run: no code of a model is run"):
        ForeignFiles({"config.json": code}).architecture(["A", "B"])
    with pytest.raises(ValueError, match=r"no spiece\.model \(available: config\.json, merges\.txt, vocab\.json\)"):
        ForeignFiles(files).content("spiece.model")
    large = {**files, "vocab.txt": torch.zeros(MAX_FOREIGN_BYTES, dtype=torch.uint8)}
    with pytest.raises(ValueError, match="bytes, more than 33,554,432"):
        ForeignFiles(large)
    deep = torch.tensor([*(b'{"a":' * 100 + b"1" + b"}" * 100)], dtype=torch.uint8)
    with pytest.raises(ValueError, match="more than 64 levels deep"):
        ForeignFiles({"config.json": deep})
    with (tmp_path / "encoder" / "vocab.txt").open("wb") as file:
        file.truncate(MAX_FOREIGN_BYTES + 1)
    with pytest.raises(CheckpointError, match="it has more than 33,554,432 bytes"):
        foreign_files(tmp_path / "encoder")
