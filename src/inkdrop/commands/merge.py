"""The command `merge`: adds the adapters of a run to the weights of its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inkdrop.commands.plain_options import read_options
from inkdrop.errors import ConfigurationError
from inkdrop.files.showing import harmless

_EPILOG = """\
checkpoint=RUN  run folder or checkpoint of a run of adapter=...
folder=OUT      the run folder to write, which must not exist
weights=ema     ema, raw, or another average of the weights

The folder is a run like any other: sample.py, base= and init_from= read it. It has no state of training, so that a run
cannot resume from it.
"""
_OPTIONS = {"checkpoint": "", "folder": "", "weights": "ema"}


def main(arguments: Sequence[str]) -> None:
    """Writes the folder, and prints how it is sampled."""
    description = "Adds the adapters of a run to the weights of their base."
    options = read_options(arguments, "merge", description, _EPILOG, _OPTIONS)
    from inkdrop.commands.command import for_the_user
    from inkdrop.configuration.suggestions import command
    from inkdrop.configuration.suggestions import options as written

    with for_the_user():
        file = merge(**options)
    print(f"{file}\nnow try    {command('sample')} {written({'checkpoint': options['folder'], 'num_samples': 64})}")


def merge(checkpoint: str, folder: str, weights: str = "ema") -> Path:
    """Writes a checkpoint of the model without adapters, whose weights have their changes, and returns its file.

    Raises `ValueError` for a run without adapters, for adapters that are more than a change of weights, or if the
    folder exists.
    """
    from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
    from inkdrop.checkpoints.content import FORMAT
    from inkdrop.pipeline import load

    if Path(folder).exists():
        raise ConfigurationError(f"folder={harmless(folder)} exists: choose a new one")
    content: Any = read_checkpoint(checkpoint)
    model: Any = load(checkpoint, weights)
    if not model.adapters:
        raise ConfigurationError(f"checkpoint={harmless(checkpoint)} has no adapters: name a run of adapter=...")
    for name, adapter in model.adapters.items():
        adapter.merge(model, name)
    del model.base_digest
    state = {f"pipeline.{name}": value for name, value in model.state_dict().items()}
    trained = [f"pipeline.{name}" for name, _ in model.named_parameters()]
    config = {name: value for name, value in content["config"].items() if name not in ("adapter", "base", "init_from")}
    config["pipeline"] = {**config["pipeline"], "adapters": None}
    config["task"] = {**config["task"], "pipeline": config["pipeline"]}
    kept = ("models", "classes", "data_fingerprint", "facts", "global_step")
    merged = {
        "format": FORMAT,
        "config": config,
        "state_dict": state,
        "trainable": trained,
        "ema": {"merged": {name: state[name] for name in trained}},  # the default choice of weights
        "metrics": {},
        **{name: content[name] for name in kept if name in content},
    }
    files = CheckpointFolder(Path(folder) / "checkpoints", keep=None)
    files.save(merged, content["global_step"])
    files.wait()
    return Path(folder) / "checkpoints" / f"step-{content['global_step']:08d}.ckpt"
