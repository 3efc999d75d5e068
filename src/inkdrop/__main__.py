"""`python -m inkdrop VERB [option=value ...]`: everything that is not training or sampling."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

CONF = Path(__file__).resolve().parents[2] / "conf"


def main() -> None:
    """Runs the verb given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m inkdrop", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    extractor = verbs.add_parser(
        "make-extractor",
        help="fit the classifier that distances are measured on, such as data=mnist extractor=mnist output=FILE",
        description="Options are those of conf/make_extractor.yaml.",
    )
    extractor.add_argument("overrides", nargs="*", help="option=value")
    arguments = parser.parse_args()
    from inkdrop.experiment import stop

    try:
        _make_extractor(composed("make_extractor", arguments.overrides))
    except ValueError as error:
        stop(error)


def composed(name: str, overrides: list[str]) -> dict[str, Any]:
    """A configuration of `conf/` under overrides, as plain data."""
    from hydra import compose, initialize_config_dir

    from inkdrop.experiment import resolved

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolved(compose(name, overrides))


def _make_extractor(config: dict[str, Any]) -> None:
    from inkdrop.metrics.make_extractor import make_extractor

    accuracy = make_extractor(config)
    print(f"{config['output']}: {accuracy:.2%} of the held-out items recognised")


if __name__ == "__main__":
    main()
