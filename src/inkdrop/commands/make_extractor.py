"""The command `make-extractor`: trains the small classifier that serves as feature extractor of image metrics."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Trains the classifier of `conf/make_extractor.yaml` with these options, and prints its held-out accuracy."""
    parser = argparse.ArgumentParser(
        prog="inkdrop make-extractor",
        description="Trains the classifier that serves as feature extractor. The options are those of "
        "conf/make_extractor.yaml.",
    )
    parser.add_argument("overrides", nargs="*", metavar="option=value")
    given = parser.parse_args(arguments)
    from inkdrop.commands.command import for_the_user
    from inkdrop.configuration.compose import composed, resolved
    from inkdrop.metrics.fitting import make_extractor

    with for_the_user():
        config = resolved(composed("make_extractor", given.overrides))
        accuracy = make_extractor(config)
    print(f"{config['output']}: accuracy {accuracy:.2%} on the held-out items")
