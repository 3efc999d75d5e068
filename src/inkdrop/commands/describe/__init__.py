"""The command `describe`: shows what a configuration means and what training with it costs, before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Prints the page of facts on a training run with these options, or with -m on a sweep."""
    parser = argparse.ArgumentParser(
        prog="inkdrop describe", description="Shows the parts and the cost of a training run before it starts."
    )
    parser.add_argument("overrides", nargs="*", metavar="option=value", help="options as for train")
    parser.add_argument(
        "--probe", type=float, default=3.0, metavar="SECONDS", help="duration of trial steps on noise; 0 runs none"
    )
    parser.add_argument("--no-probe", dest="probe", action="store_const", const=0.0, help="the same as --probe 0")
    parser.add_argument("-m", "--multirun", action="store_true", help="describe a sweep: its trials and their costs")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG file for schedule, weight and noise levels")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a further folder of configurations")
    parser.add_argument("--config-name", "-cn", metavar="NAME", default="train", help="primary configuration")
    given = parser.parse_intermixed_args(arguments)
    place = (given.config_dir, given.config_name.removesuffix(".yaml"))
    if given.multirun:
        if given.plot is not None:
            parser.error("--plot draws one run: leave out -m or --plot")
        from inkdrop.commands.describe.sweep_page import sweep_page
        from inkdrop.commands.describe.trials import describe_sweep

        print(sweep_page(describe_sweep(given.overrides, given.probe, *place)))
        return
    from inkdrop.commands.describe.facts import describe
    from inkdrop.commands.describe.page import markdown

    print(markdown(describe(given.overrides, given.probe, given.plot, *place)))
