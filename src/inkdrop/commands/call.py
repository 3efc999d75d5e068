"""Commands called from Python."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.command import Asked, Command, for_the_user, session
from inkdrop.configuration.compose import raw
from inkdrop.configuration.seed import draw_seed
from inkdrop.runs.folder_names import apart

_CALLING = threading.Lock()  # torch's generators and Hydra's state belong to the process


def call(command: Command[Any], options: Sequence[str]) -> dict[str, Any]:
    """Runs a command with these options and returns what `result.json` says; calls from several threads take turns.

    `InkdropError` for what the user can mend.
    """
    with _CALLING, session(command) as now:
        with for_the_user():
            config = raw(command.name, options)
            folder = Path(config.output_dir)
            if not any(each.lstrip("+").startswith("output_dir=") for each in options):
                folder = apart(folder)  # in the second that is in its name another run may have begun
            draw_seed(config, folder, told=True)
        prepared = now.prepare(Asked(config, folder, command.name, list(options)))
        if prepared.only_checked:
            prepared.open.close()
            return {}
        result: dict[str, Any] = command.run(prepared)
        return result
