"""The conditions of a model, for the help of the command."""

from __future__ import annotations

from inkdrop.conditioners.label import is_named, named
from inkdrop.files.showing import harmless
from inkdrop.pipeline import load


def conditions(checkpoint: str) -> str:
    """Returns a line for each condition of the model of a run folder or checkpoint."""
    pipeline = load(checkpoint)
    lines = [f"condition.{name}=..." for name in pipeline.names]
    if "label" in pipeline.names and is_named(list(pipeline.classes)):
        lines[pipeline.names.index("label")] += f"  {named(list(pipeline.classes))}"
    return "\n".join(["", f"Conditions of {harmless(checkpoint)}:", *(f"  {each}" for each in lines or ["none"]), ""])
