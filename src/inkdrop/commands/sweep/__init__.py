"""Sweeps whose trials are single runs, and the command `sweep`, which shows how the trials of a sweep stand."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> None:
    """Prints the table of a sweep; with --follow it is drawn again until all trials have ended."""
    parser = argparse.ArgumentParser(
        prog="inkdrop sweep", description="Shows the trials of a sweep: state, steps, objective and time."
    )
    parser.add_argument("folder", type=Path, help="folder of a sweep, with its sweep.json")
    parser.add_argument("--follow", action="store_true", help="update the table until all trials have ended")
    parser.add_argument("--promote", metavar="TRIAL", help="let a trial finish that was pruned, interrupted or failed")
    given = parser.parse_args(arguments)
    if given.promote is not None:
        from inkdrop.commands.sweep.promoting import promote
        from inkdrop.commands.sweep.starters import Processes

        starter = Processes()
        try:
            promote(given.folder, given.promote, starter)
        finally:
            starter.close()
        return
    from rich.console import Console
    from rich.live import Live

    from inkdrop.commands.sweep.progress import table, with_progress
    from inkdrop.commands.sweep.record import read_trials
    from inkdrop.commands.sweep.trials import RUNNING, WAITING

    console = Console()

    def drawn(most: int) -> tuple[object, bool]:
        trials = read_trials(given.folder)
        running = any(each.state in (RUNNING, WAITING) for each in trials)
        return table(given.folder, with_progress(given.folder, trials), most, str(given.folder)), running

    if not given.follow or not console.is_terminal:
        console.print(drawn(10**6)[0])
        return
    with Live(console=console, auto_refresh=False) as live:
        running = True
        while running:
            page, running = drawn(console.height - 4)
            live.update(page, refresh=True)  # type: ignore[arg-type]
            time.sleep(1)
