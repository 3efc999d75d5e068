"""The command `plot-schedules`: plots signal, noise and their ratio over time for every schedule."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Plots every schedule in `conf/schedule` in one picture."""
    parser = argparse.ArgumentParser(
        prog="inkdrop plot-schedules", description="Plots alpha, sigma and log-SNR of every schedule in conf/schedule."
    )
    parser.add_argument("output", type=Path, nargs="?", default=Path("schedules.png"), help="PNG file to write")
    output = parser.parse_args(arguments).output
    from inkdrop.configuration import build
    from inkdrop.configuration.compose import CONF, composed, refuse_without_conf, resolved
    from inkdrop.files.writing import replacing
    from inkdrop.pictures.plots import schedules

    refuse_without_conf()
    names = sorted(file.stem for file in (CONF / "schedule").glob("*.yaml"))
    named = {name: build(resolved(composed("train", [f"schedule={name}"]))["schedule"]) for name in names}
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as file:
        schedules(named).savefig(file)
    print(f"{output}: {', '.join(named)}")
