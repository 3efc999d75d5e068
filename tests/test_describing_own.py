"""`python -m inkdrop describe` with a folder of one's own configurations, for one run and for a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from inkdrop.__main__ import main
from inkdrop.commands.describe.facts import describe
from inkdrop.commands.describe.sweep_page import sweep_page
from inkdrop.commands.describe.trials import describe_sweep

SMALL = "# @package _global_\ndefaults:\n  - moons\nname: small\nnetwork:\n  width: 8\ntrainer:\n  max_steps: 7\n"
MINE = "defaults:\n  - train\n  - override /experiment: small\n  - _self_\nname: mine\nallow_targets: [mine.]\n"


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "small.yaml").write_text(SMALL)
    (tmp_path / "own" / "mine.yaml").write_text(MINE)
    return str(tmp_path / "own")


@pytest.mark.slow
def test_a_sweep_of_ones_own_configuration(own: str) -> None:
    found = describe_sweep(["experiment=small", "network.num_blocks=1,2", "seed=0,1"], 0.0, own)
    assert (found.name, found.runs, [each.steps for each in found.settings]) == ("small", 4, [7, 7])
    assert found.settings[0].parameters < 2500
    named = describe_sweep(["network.num_blocks=2", "seed=0,1"], 0.0, own, "mine")
    assert named.name == "mine"
    assert named.settings[0].parameters == found.settings[1].parameters
    assert "- what varies: seed=0,1" in sweep_page(named)


@pytest.mark.slow
def test_a_run_of_ones_own_configuration(own: str) -> None:
    assert describe(["experiment=small"], 0.0, folder=own)["name"] == "small"
    assert describe([], 0.0, folder=own, name="mine")["name"] == "mine"  # which allows targets itself


@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config-dir=nowhere"], "error: --config-dir=nowhere is not a folder"),
        (["--config-name=nothing"], "Cannot find primary config 'nothing'"),
    ],
)
def test_what_is_not_there_is_said(
    sweep: list[str], options: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["inkdrop", "describe", *sweep, *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
