"""`python -m inkdrop VERB`: everything that is not training or sampling."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Runs the verb given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m inkdrop", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    extractor = verbs.add_parser("make-extractor", help="fit the classifier that fd_digits is measured on")
    extractor.add_argument(
        "output",
        type=Path,
        nargs="?",
        default=Path(__file__).parent / "metrics" / "digits.safetensors",
        help="the weights file to write (default: the one that comes with inkdrop)",
    )
    extractor.set_defaults(run=_make_extractor)
    checker = verbs.add_parser(
        "check-data", help="look at every item of a data set: python -m inkdrop check-data data=mnist"
    )
    checker.add_argument("overrides", nargs="*", metavar="data.option=value", help="the data, as for train.py")
    checker.add_argument("--output", type=Path, default=Path("check-data"), help="folder for what is written")
    checker.set_defaults(run=_check_data)
    arguments, others = parser.parse_known_args()
    if others and (arguments.verb != "check-data" or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:  # argparse stops taking overrides at the first option
        arguments.overrides += others
    arguments.run(arguments)


def _make_extractor(arguments: argparse.Namespace) -> None:
    from inkdrop.metrics.make_extractor import make_extractor

    accuracy = make_extractor(arguments.output)
    print(f"{arguments.output}: {accuracy:.1%} of the held-out digits recognised")


def _check_data(arguments: argparse.Namespace) -> None:
    from inkdrop.inspection import check_data

    check_data(arguments.overrides, arguments.output)


if __name__ == "__main__":
    main()
