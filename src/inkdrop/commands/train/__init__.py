"""The command `train`: trains a model from a configuration, samples from it and measures the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from inkdrop.commands.command import Asked, Command, Session

if TYPE_CHECKING:
    from inkdrop.commands.train.prepare import PreparedTraining


class Train(Command["PreparedTraining"]):
    """Trains the model of `conf/train.yaml`; torch and Lightning take seconds to import and are imported on demand."""

    name = "train"
    description = "Trains a diffusion model, samples from it and measures the samples."

    def options(self, arguments: Sequence[str]) -> list[str]:
        from inkdrop.distributed.slurm import folder_option

        return folder_option(arguments)

    def prepare(self, asked: Asked, session: Session) -> PreparedTraining:
        from inkdrop.commands.train.misfits import with_misfits
        from inkdrop.commands.train.prepare import prepare, prepare_to_run

        return with_misfits(asked, prepare_to_run, prepare)

    def run(self, prepared: PreparedTraining) -> dict[str, Any]:
        from inkdrop.commands.train.run import train

        return train(prepared)

    def check_sweep(self, folder: Path, config: DictConfig) -> None:
        from inkdrop.commands.train.prepare import check_sweep

        check_sweep(folder, config)

    def check_trials(self, asked: Asked, session: Session) -> Mapping[str, Any]:
        from inkdrop.commands.train.prepare import check_trials

        return check_trials(asked)


def check(arguments: Sequence[str]) -> None:
    """Checks what the command would check with these arguments, and leaves no files; exit codes are those of a run."""
    from inkdrop.commands.entry import start

    start(Train(), arguments, only_check=True)


def main(arguments: Sequence[str]) -> None:
    """Runs the command with these arguments of a command line."""
    from inkdrop.commands.entry import start

    start(Train(), arguments)
