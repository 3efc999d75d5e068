"""The entry point of `inkdrop VERB [option=value ...]` and `python -m inkdrop VERB`: a table of verbs."""

from __future__ import annotations

import importlib
import sys

from inkdrop.distributed.signals import exit_on_signal

# Each verb is the `main` of a module below inkdrop.commands, which is imported on demand.
VERBS = {
    "train": "train a model, sample from it and measure the samples: experiment=digits",
    "sample": "draw samples from a trained model: checkpoint=RUN num_samples=64",
    "describe": "show the parts and the cost of a run of `train`: experiment=mnist schedule=vp",
    "benchmark": "measure how fast a run trains here, and where the time goes: experiment=digits",
    "check-data": "check every item of a data set: data=mnist",
    "sweep": "show how the trials of a sweep stand: runs/my-sweep",
    "report": "compare the results in folders: tables with intervals over seeds, plots and a page",
    "reproduce": "train recipes over seeds, and say whether their published figures hold: moons_flow seeds=5",
    "card": "write what a finished run is and what it measured as README.md into its folder: runs/my-run",
    "calibrate": "fit a sampler of few steps to a network: checkpoint=RUN time_grid.num_steps=6",
    "merge": "add the adapters of a run to the weights of its base: checkpoint=RUN folder=OUT",
    "export": "write a model as a folder that diffusers loads: checkpoint=RUN folder=OUT",
    "make-extractor": "train the classifier that serves as feature extractor: data=mnist extractor=mnist output=FILE",
    "plot-schedules": "plot alpha, sigma and log-SNR of every schedule in conf/schedule",
}


def main() -> None:
    """Runs the verb that is the first word of the command line."""
    with exit_on_signal():
        verb, *arguments = sys.argv[1:] or ["--help"]
        if verb in VERBS:
            run(verb, arguments)
        elif verb in ("--help", "-h"):
            width = max(map(len, VERBS))
            print("usage: inkdrop VERB [option=value ...]\n")
            print("\n".join(f"  {name:{width}}  {does}" for name, does in VERBS.items()))
            print("\n`inkdrop VERB --help` shows the options of one verb.")
        elif verb == "--version":
            print(f"inkdrop {importlib.import_module('inkdrop').__version__}")
        else:
            from inkdrop.configuration.suggestions import nearest

            advice = f"did you mean {near}?" if (near := nearest(verb, VERBS)) else f"the verbs are {', '.join(VERBS)}"
            print(f"error: unknown verb {verb}: {advice}", file=sys.stderr)
            sys.exit(2)


def run(verb: str, arguments: list[str]) -> None:
    """Runs a verb; an error that the user can fix ends the program with its message and its exit code."""
    try:
        importlib.import_module(f"inkdrop.commands.{verb.replace('-', '_')}").main(arguments)
    except Exception as error:
        from inkdrop.commands.terminal import exit_code, stop

        if exit_code(error) is None:
            raise
        stop(error)


if __name__ == "__main__":
    main()
