"""The command `report`: compares the results of runs, from their `result.json`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Prints and writes the table of the results in a folder; ends with exit code 3 if some cannot be read."""
    parser = argparse.ArgumentParser(
        prog="inkdrop report", description="Compares the results in a folder: table, CSV and plot."
    )
    parser.add_argument("folder", type=Path, help="folder of runs, of a sweep, or of samples")
    parser.add_argument("--protocol", help="show only values of the protocol with this hash")
    parser.add_argument("--wandb", metavar="PROJECT", help="also log the table to W&B, in this project")
    given = parser.parse_args(arguments)
    from inkdrop.commands.command import for_the_user
    from inkdrop.commands.report.page import report
    from inkdrop.errors import ConfigurationError, InkdropError, UnreadableError
    from inkdrop.files.showing import harmless

    try:
        with for_the_user():
            results = report(given.folder, given.protocol)
            print(results.markdown())
            print(*map(harmless, results.write(given.folder)), sep="\n", flush=True)
    except OSError as error:
        raise error if isinstance(error, InkdropError) else ConfigurationError(str(error)) from None
    if given.wandb:
        from inkdrop.loggers.wandb import WandB

        tracker = WandB(str(given.folder), given.wandb, given.folder.resolve().name)
        tracker.log_table("report", results.table())
        tracker.finalize("success")
    if results.unreadable:
        raise UnreadableError("\n".join([*results.unreadable, "all other results are in the table"]))
