"""The command `calibrate`: fits a sampler of few steps to one network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """Fits the calibration of `conf/calibrate.yaml` with these options, and prints the differences before and after."""
    parser = argparse.ArgumentParser(
        prog="inkdrop calibrate",
        description="Fits a sampler of few steps to a network, which sampler=calibrated uses. The options are those of "
        "conf/calibrate.yaml.",
    )
    parser.add_argument("overrides", nargs="*", metavar="option=value")
    given = parser.parse_args(arguments)
    from inkdrop.commands.calibrate.fitting import calibrate_checkpoint
    from inkdrop.commands.command import for_the_user
    from inkdrop.configuration.compose import composed, resolved
    from inkdrop.configuration.suggestions import command

    with for_the_user():
        done = calibrate_checkpoint(resolved(composed("calibrate", given.overrides), empty=()))
    content = done.content
    print("| difference to the fine solution | before | after |\n|---|---|---|")
    for name, key in (("fitted samples", "difference"), ("other samples", "difference_on_other_seeds")):
        print(f"| {name} | {content[key]['before']:.4f} | {content[key]['after']:.4f} |")
    if done.earlier is not None:
        what = "is better and was kept" if done.kept else "was replaced"
        print(f"the earlier calibration, with {done.earlier:.4f} on other samples, {what}")
    print(f"{content['seconds']} s: {done.file}")
    print(f"{command('sample')} {done.options} sampler=calibrated time_grid.num_steps={content['num_steps']}")
