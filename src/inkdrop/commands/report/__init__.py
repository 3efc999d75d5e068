"""The command `report`: compares the results of runs, from their `result.json`, `config.yaml` and `metrics.jsonl`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Prints and writes the comparison of results; ends with exit code 3 if some files cannot be read."""
    parser = argparse.ArgumentParser(
        prog="inkdrop report",
        description="Compares results: a row for each setting, with its seeds as mean and interval.",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="folder of runs, of a sweep, or of samples"
    )
    parser.add_argument("--metric", help="metric that settings are ranked by: by default the objective of the sweep")
    parser.add_argument("--protocol", metavar="HASH", help="show only values of the protocol with this hash")
    parser.add_argument("--output", type=Path, help="folder for the files: by default the first DIR")
    parser.add_argument("--wandb", metavar="PROJECT", help="also log the table to W&B, in this project")
    given = parser.parse_args(arguments)
    from inkdrop.commands.command import for_the_user
    from inkdrop.commands.report.page import report
    from inkdrop.errors import ConfigurationError, InkdropError, UnreadableError
    from inkdrop.files.showing import harmless
    from inkdrop.files.writing import make_folder

    folder = given.output or given.folders[0]
    try:
        with for_the_user():
            results = report(given.folders, given.protocol, by=given.metric)
            print(results.markdown())
            if given.output:
                make_folder(folder)
            print(*map(harmless, results.write(folder)), sep="\n", flush=True)
    except OSError as error:
        raise error if isinstance(error, InkdropError) else ConfigurationError(str(error)) from None
    if given.wandb:
        from inkdrop.loggers.wandb import WandB

        tracker = WandB(str(folder), given.wandb, folder.resolve().name)
        tracker.log_table("report", results.table())
        tracker.finalize("success")
    if results.unreadable:
        raise UnreadableError("\n".join([*results.unreadable, "all other results are in the table"]))
