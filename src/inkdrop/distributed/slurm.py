"""Jobs of SLURM: a run folder that a requeued job uses again, and the request to requeue a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable


def job() -> str | None:
    """Returns the name of this process's batch job for scontrol, or None outside a batch job."""
    environment = os.environ
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # a shell, in which many runs may start
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def folder_option(arguments: Iterable[str]) -> list[str]:
    """Returns the option of a run folder named after the job, unless the arguments name a folder."""
    if job() is None or any(each.lstrip("+").startswith("output_dir=") for each in arguments):
        return []
    return [f"output_dir=runs/${{name}}/slurm-{job()}"]


def requeue() -> None:
    """Requeues this batch job, if it is one; the same command then resumes the run in the same folder."""
    if (name := job()) is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", name], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        print(f"warning: job {name} could not be requeued: {str(reason).strip()}", file=sys.stderr)
    else:
        print(f"job {name} is back in the queue", file=sys.stderr)
