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
    arguments = parser.parse_args()

    from inkdrop.metrics.make_extractor import make_extractor

    accuracy = make_extractor(arguments.output)
    print(f"{arguments.output}: {accuracy:.1%} of the held-out digits recognised")


if __name__ == "__main__":
    main()
