"""Tests that are shared by forked processes are reported as those of one process."""

from __future__ import annotations

import re
from pathlib import Path

from entry_scripts import completed

TESTS = {
    "test_few.py": """
import os, pytest, sys
@pytest.fixture(scope="module")
def made():
    with open("made", "a") as file: file.write(f"{os.getpid()}\\n")
    yield
    with open("made", "a") as file: file.write("removed\\n")
@pytest.mark.parametrize("number", range(5))
def test_shared(made, number): print("said by", number); assert number != 3
def test_skipped(made): pytest.skip("not here")
""",
    "test_other.py": """
import os
def test_where(tmp_path, capfd):
    os.write(1, b"own")
    assert capfd.readouterr().out == "own"
    assert "/process" in str(tmp_path)
""",
    "test_ends.py": """
import os
def test_passes(): pass
def test_ends_its_process(): os._exit(7)
def test_after_it(): pass
""",
}


def test_all_tests_are_run_once_and_reported(tmp_path: Path) -> None:
    """Also those of a process that ends, which have failed."""
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    options = ["-p", "forked", "-p", "no:cacheprovider", "--processes", "2", "--durations", "1", "-ra"]
    done = completed("-m", "pytest", *options, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parent))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 6 passed, 1 skipped" in done.stdout
    failed = set(re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE))
    assert failed == {
        "test_few.py::test_shared[3]",
        "test_ends.py::test_ends_its_process",
        "test_ends.py::test_after_it",
    }
    assert "said by 3" in done.stdout
    assert "said by 2" not in done.stdout
    assert "slowest 1 durations" in done.stdout
    made = (tmp_path / "made").read_text().split()
    assert len(made) == 2
    assert made[1] == "removed"
