"""What commands print beside their own words."""

import logging
import os
import sys
from pathlib import Path

import pytest
from entry_scripts import Script, completed


@pytest.mark.slow
def test_libraries_that_are_used_for_the_first_time_print_nothing(tmp_path: Path) -> None:
    """Such as matplotlib, which makes a list of the fonts and says so."""
    done = completed("train.py", "trainer.max_steps=0", fresh=True, MPLCONFIGDIR=str(tmp_path))
    assert list(tmp_path.glob("fontlist*.json")) != []
    assert done.stdout == ""
    # On a busy machine matplotlib warns after five seconds that it takes a moment.
    lines = [line for line in done.stderr.splitlines() if "building the font cache" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: trainer.max_steps=0: the configuration is checked")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["train.py", "trainer.max_steps=0"], 0),
        (["train.py", "no_option=1"], 2),
        (["train.py", "--help"], 0),
        (["src/inkdrop/__main__.py", "describe", "experiment=moons", "--no-probe"], 0),
    ],
)
def test_a_command_leaves_nothing_behind_for_another(
    command: list[str], code: int, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    for variable in (None, "0"):
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        if variable is not None:
            monkeypatch.setenv("HYDRA_FULL_ERROR", variable)
        before = logger.level
        assert script(*command).code == code
        assert os.environ.get("HYDRA_FULL_ERROR") == variable
        assert logger.level == before
        assert sys.argv[1:] == command[1:]
