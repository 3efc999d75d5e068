"""The card of an exported folder: what it is, how it is loaded, the result of its run, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import trained

from inkdrop.commands.card import card_of, write_card
from inkdrop.commands.export import export
from inkdrop.commands.export.card import CARD, results_of
from inkdrop.errors import ConfigurationError, UnreadableError


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits with an evaluation."""
    folder = tmp_path_factory.mktemp("card") / "run"
    trained(folder)
    return folder


@pytest.mark.slow
def test_the_card_has_the_result_with_its_protocol_floor_and_baseline(measured: Path, tmp_path: Path) -> None:
    code = export(str(measured), str(tmp_path / "out"))
    text, result = (tmp_path / "out" / CARD).read_text(), json.loads((measured / "result.json").read_text())
    values, protocol = result["metrics"], result["protocol"]["metrics"]["fd_digits_20"]
    row = [f"{values[name]:.4g}" for name in ("fd_digits_20", "fd_digits_20_floor", "fd_digits_20_baseline")]
    assert f"| fd_digits_20 | {' | '.join(row)} | {protocol['hash']} |" in text
    assert f"| fingerprint | {result['protocol']['measurement']['fingerprint']} |" in text
    assert "train/loss" not in text
    assert code == f'diffusers.DDIMPipeline.from_pretrained("{tmp_path / "out"}")'
    assert 'import diffusers\n\ndiffusers.DDIMPipeline.from_pretrained("FOLDER")\n' in text
    assert "| network | UNet |" in text
    assert "| schedule | Table of 1000 steps |" in text
    assert "| classes | 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 |" in text
    assert not [word for word in (str(tmp_path), str(measured), "/tmp", "checkpoints") if word in text]


def test_a_checkpoint_in_the_folder_has_the_result_of_its_run(measured: Path) -> None:
    (file,) = sorted((measured / "checkpoints").glob("*.ckpt"))[-1:]
    assert results_of(str(file)) == results_of(str(measured))


def test_without_a_result_the_card_says_so_and_a_foreign_one_is_refused(measured: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(measured, run)
    (run / "result.json").write_text('{"metrics": {"fd": "<b>"}}')
    with pytest.raises(UnreadableError, match="is not a result of inkdrop"):
        export(str(run), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    (run / "result.json").unlink()
    export(str(run), str(tmp_path / "out"))
    assert "The run has measured no metric." in (tmp_path / "out" / CARD).read_text()


def test_a_run_has_a_card_with_its_differences_values_verdicts_samples_and_cost(measured: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(measured, tmp_path / "sweep" / "seed=0"))
    judged = {"word": "same", "text": "p = 0.5"}
    target = {"published": "none", "paper": None, "ourselves": judged}
    found = {"recipe": "digits", "verdict": "same", "date": "2026-12-01", "targets": {"fd_digits_20": target}}
    (run.parent / "reproduction.json").write_text(json.dumps({**found, "cannot_pass": ["seed 3 <failed>"]}))
    text = write_card(run).read_text()
    assert (run / CARD).read_text() == text == card_of(run)
    assert text.startswith("# digits\n")
    assert "It is `experiment=digits`, with these differences:" in text
    assert "| network.base_channels | 8 | 32 |" in text
    assert "| data.batch_size | 16 | 128 |" in text
    assert "batch_size | 256" not in text  # evaluation.batch_size, which does not differ
    assert results_of(str(run)) in text
    assert "- fd_digits_20, against ourselves: same, p = 0.5\n- cannot pass: seed 3 " in text
    assert "![Samples](pictures/samples-00000006.png)" in text
    assert "| steps | 6 |" in text
    assert str(tmp_path) not in text
    assert "--config-dir RUN --config-name config" in text


def test_a_reference_is_shown_as_its_value_and_a_variant_has_its_own_row(measured: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(measured, tmp_path / "run"))
    config = (run / "config.yaml").read_text()
    assert "dim: ${data.shape}" not in config
    (run / "config.yaml").write_text(
        f"{config}\nextra: {{a: '${{data.shape}}', b: '${{network}}', c: '${{nothing}}'}}\n"
    )
    result = json.loads((run / "result.json").read_text())
    result["metrics"]["fd_digits_20@fast"] = 1.25
    result["protocol"]["variants"] = {"fast": {"sampling": {}}}
    (run / "result.json").write_text(json.dumps(result))
    text = card_of(run)
    assert "| extra.a | [1, 8, 8] |" in text
    assert "| extra.b | ${network} |" in text
    assert "| extra.c | ${nothing} |" in text
    assert "| fd_digits_20@fast | 1.25 |  |  | " in text


def test_a_folder_without_a_result_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no config\.yaml: it is not the folder of a finished run"):
        card_of(tmp_path)
