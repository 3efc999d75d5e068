"""The logger of Weights & Biases; its failures never stop a run."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from inkdrop.configuration.secrets import masked_override
from inkdrop.files.writing import make_folder

T = TypeVar("T")


class WandB(Logger):
    """Logs to Weights & Biases: online with an API key and a server that answers within three seconds, else offline.

    Offline runs are in `folder`/wandb, and `wandb sync` uploads them later. An error of W&B is shown once and stops the
    logging, never the run. `WANDB_MODE` overrides the choice. A `run_id` that W&B knows is resumed.
    """

    shares_folder = True  # with other runs: W&B makes a folder for each run

    def __init__(self, folder: str, project: str, name: str | None = None, run_id: str | None = None):
        super().__init__()
        self.folder, self.project, self._name, self.run_id = folder, project, name, run_id
        self._run: Any = None
        self._failed = False

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return self._run.id if self._run else None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._try(lambda run: run.config.update(params, allow_val_change=True))

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._try(lambda run: run.log({**metrics, "trainer/global_step": step}))

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Logs pictures (H, W, C) under a name."""
        import wandb

        self._try(lambda run: run.log({key: [wandb.Image(each) for each in images], "trainer/global_step": step}))

    @rank_zero_only
    def log_table(self, key: str, lines: list[list[str]]) -> None:
        """Logs a table, a header and its rows, under a name."""
        import wandb

        header, *rows = lines
        self._try(lambda run: run.log({key: wandb.Table(columns=[*header], data=rows)}))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._run is not None:
            self._try(lambda run: run.finish(exit_code=0 if status == "success" else 1))
            self._run = None

    def _try(self, action: Callable[[Any], T]) -> None:
        if self._failed:
            return
        try:
            if self._run is None:
                self._run = self._start()
            action(self._run)
        except Exception as error:
            self._failed = True
            warnings.warn(f"W&B logging has stopped, and the run continues without it: {error}", stacklevel=2)

    def _start(self) -> Any:
        import wandb

        make_folder(Path(self.folder) / "wandb")  # W&B itself would follow a link
        mode: Any = os.environ.get("WANDB_MODE") or self._mode(wandb)
        with _masked_command():
            return wandb.init(
                project=self.project,
                name=self._name,
                id=self.run_id,
                resume="allow",
                dir=self.folder,
                mode=mode,
                reinit="finish_previous",
                settings=wandb.Settings(silent=True, init_timeout=10),
            )

    def _mode(self, wandb: Any) -> Any:
        if not wandb.login(prompt=False, verify=False):
            _inform("W&B: logging offline without an API key (`wandb login` sets one, `wandb sync` uploads later)")
            return "offline"
        address = urlsplit(wandb.Settings().base_url)
        try:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname, port), timeout=3).close()
        except OSError as error:
            _inform(f"W&B: logging offline, because {address.hostname} does not answer ({error})")
            return "offline"
        return "online"


@contextmanager
def _masked_command() -> Iterator[None]:
    """Masks secrets in the command line within the block, because W&B stores it."""
    command = sys.argv
    sys.argv = [*map(masked_override, command)]
    try:
        yield
    finally:
        sys.argv = command


def _inform(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
