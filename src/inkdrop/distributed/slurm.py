"""Jobs of SLURM: a run folder that a requeued job finds again, and the request to put a job back into the queue."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable


def job() -> str | None:
    """What scontrol calls the batch job that this process belongs to; None outside of one."""
    environment = os.environ
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # a shell, in which many runs may begin
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def folder_option(arguments: Iterable[str]) -> list[str]:
    """The option for a run folder named by the job rather than the time, unless the arguments name a folder."""
    if job() is None or any(each.lstrip("+").startswith("output_dir=") for each in arguments):
        return []
    return [f"output_dir=runs/${{name}}/slurm-{job()}"]


def requeue() -> None:
    """Asks SLURM to run this batch job again, if it is one; the same command then goes on in the same folder."""
    if (name := job()) is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", name], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        print(f"warning: job {name} could not be requeued: {str(reason).strip()}", file=sys.stderr)
    else:
        print(f"job {name} is back in the queue", file=sys.stderr)
