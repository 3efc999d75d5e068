"""The card of an exported folder: what it is, how it is loaded, the result of its run, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import trained

from inkdrop.commands.export import export
from inkdrop.commands.export.card import CARD, results_of
from inkdrop.errors import UnreadableError


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits with an evaluation."""
    folder = tmp_path_factory.mktemp("card") / "run"
    trained(folder)
    return folder


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
