"""The command `sample`: draws samples from a checkpoint and measures them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from inkdrop.commands.command import Asked, Command, Session

_NAMED = re.compile(r"((origin\.)?condition|derive)(\.\w+)+=")

if TYPE_CHECKING:
    from inkdrop.commands.sample.prepare import PreparedSampling


class Sample(Command["PreparedSampling"]):
    """Draws the samples of `conf/sample.yaml`; torch and Lightning take seconds to import, so they load on demand."""

    name = "sample"
    description = "Draws samples from a trained model, and measures them with evaluate=true."

    def help(self, arguments: Sequence[str]) -> str:
        """Returns the conditions of the model, if the arguments name a checkpoint."""
        named = [each.partition("=")[2] for each in arguments if each.startswith("checkpoint=")]
        if not named:
            return "\n--help checkpoint=RUN lists the conditions of a model.\n"
        from inkdrop.commands.sample.conditions import conditions

        return conditions(named[-1].strip("'\""))

    def spelled(self, arguments: Sequence[str]) -> list[str]:
        """Returns the arguments with a ++ before conditions and derived fields, whose names no YAML file knows."""
        return [f"++{each}" if _NAMED.match(each) else each for each in super().spelled(arguments)]

    def prepare(self, asked: Asked, session: Session) -> PreparedSampling:
        from inkdrop.commands.sample.prepare import prepare

        return prepare(asked, session)

    def run(self, prepared: PreparedSampling) -> dict[str, Any]:
        from inkdrop.commands.sample.run import sample

        return sample(prepared)

    def check_sweep(self, folder: Path, config: DictConfig) -> None:
        from inkdrop.commands.sample.prepare import check_sweep

        check_sweep(folder, config)

    def check_trials(self, asked: Asked, session: Session) -> Mapping[str, Any]:
        from inkdrop.commands.sample.prepare import resolve

        trainer: Mapping[str, Any] = resolve(asked, session)[0]["trainer"]
        return trainer


def main(arguments: Sequence[str]) -> None:
    """Runs the command with these arguments of a command line."""
    from inkdrop.commands.entry import start

    start(Sample(), arguments)
