"""`check-data`: a look at every item of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Inspects the data that training would take under these options; ends with code 3 if some are broken."""
    parser = argparse.ArgumentParser(prog="inkdrop check-data", description="Looks at every item of a data set.")
    parser.add_argument("overrides", nargs="*", metavar="data.option=value", help="the data, as for training")
    parser.add_argument("--output", type=Path, default=Path("check-data"), help="folder for what is written")
    given = parser.parse_intermixed_args(arguments)
    from inkdrop.commands.check_data.inspection import check_data

    check_data(given.overrides, given.output)
