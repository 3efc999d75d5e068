"""`python -m inkdrop VERB [option=value ...]`: everything that is not training or sampling."""

from __future__ import annotations

import argparse
from pathlib import Path

from inkdrop.distributed.signals import left_at_once


def main() -> None:
    """Runs the verb given on the command line."""
    parser = argparse.ArgumentParser(prog="python -m inkdrop", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    extractor = verbs.add_parser(
        "make-extractor",
        help="fit the classifier that distances are measured on: data=mnist extractor=mnist output=FILE",
        description="Options are those of conf/make_extractor.yaml.",
    )
    extractor.add_argument("overrides", nargs="*", metavar="option=value")
    extractor.set_defaults(run=_make_extractor)
    calibrate = verbs.add_parser(
        "calibrate",
        help="fit a few steps to a network: checkpoint=RUN time_grid.num_steps=6; sampler=calibrated takes them",
        description="Options are those of conf/calibrate.yaml.",
    )
    calibrate.add_argument("overrides", nargs="*", metavar="option=value")
    calibrate.set_defaults(run=_calibrate)
    checker = verbs.add_parser(
        "check-data", help="look at every item of a data set: python -m inkdrop check-data data=mnist"
    )
    checker.add_argument("overrides", nargs="*", metavar="data.option=value", help="the data, as for train.py")
    checker.add_argument("--output", type=Path, default=Path("check-data"), help="folder for what is written")
    checker.set_defaults(run=_check_data)
    describe = verbs.add_parser(
        "describe", help="what a run of train.py would be, and what it would cost: experiment=mnist schedule=vp"
    )
    describe.add_argument("overrides", nargs="*", metavar="option=value", help="as for train.py")
    describe.add_argument(
        "--probe", type=float, default=3.0, metavar="SECONDS", help="time of training on noise; 0: none"
    )
    describe.add_argument("--no-probe", dest="probe", action="store_const", const=0.0, help="the same as --probe 0")
    describe.add_argument("--plot", type=Path, metavar="FILE", help="PNG of schedule, weight and noise levels to write")
    describe.set_defaults(run=_describe)
    plot = verbs.add_parser("plot-schedules", help="draw alpha, sigma and log-SNR of every schedule in conf/schedule")
    plot.add_argument("output", type=Path, nargs="?", default=Path("docs/schedules.png"), help="PNG file to write")
    plot.set_defaults(run=_plot_schedules)
    report = verbs.add_parser("report", help="results in a folder side by side: table, CSV and plot")
    report.add_argument("folder", type=Path, help="folder of runs, of a sweep, or of samples")
    report.add_argument("--protocol", help="show only what was measured under the protocol of this hash")
    report.add_argument("--wandb", metavar="PROJECT", help="also log the table to W&B, in this project")
    report.set_defaults(run=_report)
    arguments, others = parser.parse_known_args()
    if others and (arguments.verb not in ("check-data", "describe") or any(other.startswith("-") for other in others)):
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    if others:  # argparse stops taking overrides at the first option
        arguments.overrides += others
    try:
        arguments.run(arguments)
    except Exception as error:
        from inkdrop.commands.terminal import exit_code, stop

        if exit_code(error) is None:
            raise
        stop(error)  # a full disk, say


def _make_extractor(arguments: argparse.Namespace) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from inkdrop.commands.terminal import stop
    from inkdrop.configuration.compose import composed, resolved
    from inkdrop.metrics.fitting import make_extractor

    try:
        config = resolved(composed("make_extractor", arguments.overrides))
        accuracy = make_extractor(config)
    except (ValueError, OmegaConfBaseException) as error:
        stop(error)
    print(f"{config['output']}: {accuracy:.2%} of the held-out items recognised")


def _calibrate(arguments: argparse.Namespace) -> None:
    from omegaconf.errors import OmegaConfBaseException

    from inkdrop.commands.terminal import stop
    from inkdrop.configuration.compose import composed, resolved

    try:
        plain = resolved(composed("calibrate", arguments.overrides))
        from inkdrop.commands.calibrate import calibrate_checkpoint

        done = calibrate_checkpoint(plain)
    except (ValueError, OmegaConfBaseException) as error:
        stop(error)
    found = done.content
    print("| difference to the fine solution | before | after |\n|---|---|---|")
    for name, key in (("the samples it was fitted to", "difference"), ("others", "difference_on_other_seeds")):
        print(f"| {name} | {found[key]['before']:.4f} | {found[key]['after']:.4f} |")
    if done.earlier is not None:
        told = "is nearer and was kept" if done.kept else "was replaced"
        print(f"the earlier calibration, at {done.earlier:.4f} on the others, {told}")
    print(f"{found['seconds']} s: {done.file}")
    print(f"python sample.py {done.options} sampler=calibrated time_grid.num_steps={found['num_steps']}")


def _check_data(arguments: argparse.Namespace) -> None:
    from inkdrop.commands.check_data import check_data

    check_data(arguments.overrides, arguments.output)


def _describe(arguments: argparse.Namespace) -> None:
    from inkdrop.commands.describe.facts import describe
    from inkdrop.commands.describe.page import markdown
    from inkdrop.commands.terminal import stop

    try:
        found = describe(arguments.overrides, arguments.probe, arguments.plot)
    except ValueError as error:
        stop(error)
    print(markdown(found))


def _plot_schedules(arguments: argparse.Namespace) -> None:
    from inkdrop.configuration import build
    from inkdrop.configuration.compose import CONF, composed, resolved
    from inkdrop.files.writing import replacing
    from inkdrop.pictures.plots import schedules

    names = sorted(file.stem for file in (CONF / "schedule").glob("*.yaml"))
    named = {name: build(resolved(composed("train", [f"schedule={name}"]))["schedule"]) for name in names}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.output) as file:
        schedules(named).savefig(file)
    print(f"{arguments.output}: {', '.join(named)}")


def _report(arguments: argparse.Namespace) -> None:
    from inkdrop.commands.report import report
    from inkdrop.commands.terminal import stop
    from inkdrop.errors import UnreadableError
    from inkdrop.files.showing import harmless

    try:
        found = report(arguments.folder, arguments.protocol)
        print(found.markdown())
        print(*map(harmless, found.write(arguments.folder)), sep="\n", flush=True)
    except (OSError, ValueError) as error:
        stop(error)
    if arguments.wandb:
        from inkdrop.loggers.wandb import WandB

        tracker = WandB(str(arguments.folder), arguments.wandb, arguments.folder.resolve().name)
        tracker.log_table("report", found.table())
        tracker.finalize("success")
    if found.unreadable:
        stop(UnreadableError("\n".join([*found.unreadable, "all others are in the table"])))


if __name__ == "__main__":
    with left_at_once():
        main()
