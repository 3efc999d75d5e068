"""The commands of all pages can be pasted into a shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_shell_can_read_the_commands_of_a_page(page: Path) -> None:
    """Those of a block alone, and those within a sentence or a table, whose bars are escaped there."""
    text = page.read_text()
    blocks = re.findall(r"```(?:bash|shell|sh)\n(.*?)```", text, re.DOTALL)
    blocks += [line[2:] for each in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in lines_of(each)]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks += [each.replace("\\|", "|") for each in re.findall(r"`((?:python|inkdrop|wandb) [^`]*)`", prose)]
    script = "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-n"], input=re.sub(r"\[option=value[^\]]*\]", "", script), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def lines_of(console: str) -> list[str]:
    return [line for line in console.replace("\\\n", " ").splitlines() if line.startswith("$ ")]


def test_a_fault_is_found() -> None:
    assert subprocess.run(
        ["bash", "-n"], input="python train.py a=choice(1,2)", capture_output=True, text=True
    ).returncode
