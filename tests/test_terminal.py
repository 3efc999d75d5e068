"""What commands print beside their own words."""

from pathlib import Path

from entry_scripts import completed


def test_libraries_that_are_used_for_the_first_time_print_nothing(tmp_path: Path) -> None:
    """Such as matplotlib, which makes a list of the fonts and says so."""
    done = completed("train.py", "trainer.max_steps=0", fresh=True, MPLCONFIGDIR=str(tmp_path))
    assert list(tmp_path.glob("fontlist*.json")) != []
    assert done.stdout == ""
    assert done.stderr.startswith("warning: trainer.max_steps=0: the configuration was checked")
    assert done.stderr.count("\n") == 1
