"""`inkdrop VERB [option=value ...]`, and the same by `python -m inkdrop VERB`: a table of verbs."""

from __future__ import annotations

import importlib
import sys

from inkdrop.distributed.signals import left_at_once

# Each verb is the `main` of a module below inkdrop.commands, which is imported when it is asked for.
VERBS = {
    "train": "train a model, sample it and measure it: experiment=digits",
    "sample": "draw samples from a trained model: checkpoint=RUN num_samples=64",
    "describe": "what a run of `train` would be, and what it would cost: experiment=mnist schedule=vp",
    "check-data": "look at every item of a data set: data=mnist",
    "report": "results in a folder side by side: table, CSV and plot",
    "calibrate": "fit a few steps to a network, for sampler=calibrated: checkpoint=RUN time_grid.num_steps=6",
    "make-extractor": "fit the classifier that distances are measured on: data=mnist extractor=mnist output=FILE",
    "plot-schedules": "draw alpha, sigma and log-SNR of every schedule in conf/schedule",
}


def main() -> None:
    """Runs the verb that the command line begins with."""
    with left_at_once():
        verb, *arguments = sys.argv[1:] or ["--help"]
        if verb in VERBS:
            run(verb, arguments)
        elif verb in ("--help", "-h"):
            width = max(map(len, VERBS))
            print("usage: inkdrop VERB [option=value ...]\n")
            print("\n".join(f"  {name:{width}}  {does}" for name, does in VERBS.items()))
            print("\ninkdrop VERB --help tells of one verb.")
        elif verb == "--version":
            print(f"inkdrop {importlib.import_module('inkdrop').__version__}")
        else:
            from inkdrop.configuration.suggestions import nearest

            told = f"did you mean {near}?" if (near := nearest(verb, VERBS)) else f"there are {', '.join(VERBS)}"
            print(f"error: unknown verb {verb}: {told}", file=sys.stderr)
            sys.exit(2)


def run(verb: str, arguments: list[str]) -> None:
    """Runs a verb; an error that the user can mend ends the program with its message and its code."""
    try:
        importlib.import_module(f"inkdrop.commands.{verb.replace('-', '_')}").main(arguments)
    except Exception as error:
        from inkdrop.commands.terminal import exit_code, stop

        if exit_code(error) is None:
            raise
        stop(error)


if __name__ == "__main__":
    main()
