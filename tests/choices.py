"""Every choice of conf/, each with the options that it needs beside it, which its own file has in an example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generated import example
from runs import ROOT, configuration

from inkdrop.configuration.compose import resolved

CONF = ROOT / "conf"


FILES = sorted(CONF.rglob("*.yaml"))


OF_SAMPLING = {"origin"}  # groups that training does not have


def composed(overrides: list[str], name: str = "train") -> dict[str, Any]:
    """The values of a configuration with these options."""
    return resolved(configuration(name, *overrides, "output_dir=nowhere"))


def reads_its_codec(overrides: list[str]) -> bool:
    """Whether these options compose only where a run exists, because the shape of x is that of its codes."""
    return any(
        each.startswith(("codec.model.checkpoint=", "codec.model.files.path=", "vocabulary.files.path="))
        for each in overrides
    )


def choices(conf: Path = CONF) -> list[list[str]]:
    """The options of each choice: those of the example in its file, or itself alone."""
    files = [file for file in sorted(conf.rglob("*.yaml")) if file.parent.parent == conf]
    files = [file for file in files if file.parent.name not in OF_SAMPLING]
    return [(example(file) or f"{file.parent.name}={file.stem}").split(" ") for file in files]
