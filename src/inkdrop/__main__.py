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
    extractor.set_defaults(run=_make_extractor)
    plot = verbs.add_parser("plot-schedules", help="draw alpha, sigma and log-SNR of every schedule in conf/schedule")
    plot.add_argument("output", type=Path, nargs="?", default=Path("docs/schedules.png"), help="PNG file to write")
    plot.set_defaults(run=_plot_schedules)
    arguments = parser.parse_args()
    from inkdrop.experiment import stop

    try:
        arguments.run(arguments)
    except ValueError as error:
        stop(error)


def composed(name: str, overrides: list[str]) -> dict[str, Any]:
    """A configuration of `conf/` under overrides, as plain data."""
    from hydra import compose, initialize_config_dir

    from inkdrop.experiment import resolved

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolved(compose(name, overrides))


def _make_extractor(arguments: argparse.Namespace) -> None:
    from inkdrop.metrics.make_extractor import make_extractor

    config = composed("make_extractor", arguments.overrides)
    accuracy = make_extractor(config)
    print(f"{config['output']}: {accuracy:.2%} of the held-out items recognised")


def _plot_schedules(arguments: argparse.Namespace) -> None:
    from inkdrop.configuration import build
    from inkdrop.plots import schedules

    names = sorted(file.stem for file in (CONF / "schedule").glob("*.yaml"))
    named = {name: build(composed("train", [f"schedule={name}"])["schedule"]) for name in names}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    schedules(named).savefig(arguments.output)
    print(f"{arguments.output}: {', '.join(named)}")


if __name__ == "__main__":
    main()
