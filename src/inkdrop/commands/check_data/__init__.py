"""The command `check-data`: checks every item of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Inspects the data of training with these options; ends with exit code 3 if some files are broken."""
    parser = argparse.ArgumentParser(prog="inkdrop check-data", description="Checks every item of a data set.")
    parser.add_argument("overrides", nargs="*", metavar="data.option=value", help="options of the data, as for train")
    parser.add_argument("--output", type=Path, default=Path("check-data"), help="folder for the output")
    given = parser.parse_intermixed_args(arguments)
    from inkdrop.commands.check_data.inspection import check_data

    check_data(given.overrides, given.output)
