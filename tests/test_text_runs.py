"""Runs of texts from a file to samples.txt: masked diffusion and its ruler, resumption, blanks, attributes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from runs import RECORDED, differing, interrupted, run, sampled, trained

import inkdrop
from inkdrop.commands.check_data.inspection import inspect
from inkdrop.data import TextFile

SMALL = [
    "data=text_file",
    "data.shape=[60]",
    "data.batch_size=8",
    "codec.length=8",
    "vocabulary.num_words=12",
    "vocabulary.least_count=1",
    "network.width=16",
    "network.depth=1",
]
SHORT = ["trainer.max_steps=2", "++trainer.limit_val_batches=1", "callbacks.pictures.num_samples=3"]


@pytest.fixture
def texts(tmp_path: Path) -> str:
    lines = [f"{name} is a {kind} ." for name in ("Ann", "Bob", "Cy") for kind in ("cat", "dog", "big dog")] * 4
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    return f"data.path={tmp_path / 'texts.txt'}"


@pytest.mark.slow
def test_texts_go_from_a_file_to_a_sheet_and_are_judged(texts: str, tmp_path: Path) -> None:
    options = [texts, *SMALL, *SHORT, "evaluation.num_samples=4"]
    ruled = trained(tmp_path / "ruler", options=["experiment=e2e_autoregressive", *options])["metrics"]
    assert ruled["nats_exact_4_perplexity"] == pytest.approx(math.exp(ruled["nats_exact_4_per_token"]))
    judged = ["metric=nll", f"metric.nll.extractor.checkpoint={tmp_path / 'ruler'}"]
    found = trained(tmp_path / "run", options=["experiment=e2e_masked", *options, *judged])["metrics"]
    assert found["nats_bound_4_per_token"] == pytest.approx(found["nats_bound_4"] / found["nats_bound_4_tokens"])
    assert found["nll_4"] > 0
    assert found["nll_4_floor"] == pytest.approx(ruled["nats_exact_4_per_token"], rel=1e-5), (
        "the floor is the likelihood of held-out texts"
    )
    assert (tmp_path / "run" / "pictures" / "samples-00000002.png").exists()
    arrays, _ = sampled(tmp_path / "run", tmp_path / "samples", "num_samples=3", "save_images=true", "save_gif=true")
    lines = (tmp_path / "samples" / "samples.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0", "1", "2"]
    assert arrays["x"].dtype.kind == "U"
    assert [line.split("\t")[1] for line in lines] == arrays["x"].tolist()
    assert (tmp_path / "samples" / "denoising.gif").exists()
    alone = inkdrop.load(tmp_path / "run")({}, [2])
    assert inkdrop.load(tmp_path / "run").view.array(alone).tolist() == arrays["x"][2:].tolist()


@pytest.mark.slow
def test_blanks_are_filled_in_by_a_command(texts: str, tmp_path: Path) -> None:
    trained(tmp_path / "run", options=["experiment=e2e_masked", texts, *SMALL, *SHORT, "likelihood.bound.num_times=1"])
    blanks = ["constraint=blanks", "condition.known=Ann is _ _ .", "sampler=confidence", "time_grid.num_steps=2"]
    arrays, _ = sampled(tmp_path / "run", tmp_path / "samples", *blanks, "num_samples=8")
    assert arrays["known"].tolist() == ["Ann is _ _ ."] * 8
    assert all(text.startswith("Ann is ") and text.endswith(" .") for text in arrays["x"].tolist())
    derived = ["+derive.known._target_=inkdrop.data.degradations.MiddleBlanks", "evaluate=true", "num_samples=4"]
    derived += [f"data_folders=[{tmp_path}]"]
    arrays, _ = sampled(tmp_path / "run", tmp_path / "held", "constraint=blanks", *derived)
    for text, known in zip(arrays["x"].tolist(), arrays["known"].tolist(), strict=True):
        assert text.split()[0] == known.split()[0]


@pytest.mark.slow
def test_a_run_of_texts_goes_on_to_the_bit(texts: str, tmp_path: Path) -> None:
    model = ["experiment=e2e_masked", texts, *SMALL, *RECORDED, "network.dropout=0.2", "trainer.max_steps=6"]
    whole = run(tmp_path / "whole", model=model)
    for step in (1, 4):
        folder = interrupted(tmp_path / "whole", step, tmp_path / f"from {step}")
        assert not differing(whole, run(folder, model=model))


@pytest.mark.slow
def test_the_attributes_guide_texts(tmp_path: Path) -> None:
    (tmp_path / "e2e").mkdir()
    for name in ("src1_valid", "src1_test"):
        (tmp_path / "e2e" / f"{name}.txt").write_text("name : A | food : B||A serves B .\nname : C||C .\n" * 8)
    options = [*SMALL[1:], *SHORT, f"data.root={tmp_path}", "likelihood=none", "conditioner.length=8"]
    options += ["conditioner.token_dim=16", "conditioner.num_words=10"]
    trained(tmp_path / "run", options=["experiment=e2e_from_attributes", *options])
    attributes = "condition.attributes=name : A"
    arrays, result = sampled(tmp_path / "run", tmp_path / "samples", attributes, "num_samples=2", "guidance.scale=3")
    assert np.array_equal(arrays["attributes"], ["name : A"] * 2)
    assert result["network_calls"] == 128, "64 steps, with and without the attributes"


def test_check_data_describes_texts_by_words_and_not_by_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(f"a cat of {number} years ." for number in range(20)))
    assert inspect(TextFile(str(tmp_path / "texts.txt"), [64], 0, 4), tmp_path / "out")
    printed = capsys.readouterr().out
    assert "18 texts of 6 to 6 words" in printed
    assert "standard deviation" not in printed
    assert max(map(len, printed.splitlines())) < 120
