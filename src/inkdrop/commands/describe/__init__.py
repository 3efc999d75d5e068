"""`describe`: what a configuration means and what training with it costs, before it is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Prints the page of facts on the run that training would make under these options."""
    parser = argparse.ArgumentParser(
        prog="inkdrop describe", description="Says what a run of training would be, and what it would cost."
    )
    parser.add_argument("overrides", nargs="*", metavar="option=value", help="as for training")
    parser.add_argument(
        "--probe", type=float, default=3.0, metavar="SECONDS", help="time of training on noise; 0: none"
    )
    parser.add_argument("--no-probe", dest="probe", action="store_const", const=0.0, help="the same as --probe 0")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG of schedule, weight and noise levels to write")
    given = parser.parse_intermixed_args(arguments)
    from inkdrop.commands.describe.facts import describe
    from inkdrop.commands.describe.page import markdown

    print(markdown(describe(given.overrides, given.probe, given.plot)))
