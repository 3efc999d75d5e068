"""`make-extractor`: the small classifier whose features distances between images are measured on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Fits what `conf/make_extractor.yaml` describes under these options, and prints how well it recognises."""
    parser = argparse.ArgumentParser(
        prog="inkdrop make-extractor",
        description="Fits the classifier that distances are measured on. Options are those of "
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
    print(f"{config['output']}: {accuracy:.2%} of the held-out items recognised")
