"""inkdrop: an experiment framework for diffusion models on PyTorch Lightning and Hydra.

A noised sample is `x_t = alpha(t) x_0 + sigma(t) eps` with t in [0, 1]: 0 is data, 1 is noise.
`inkdrop.load(path)` turns a run folder or a checkpoint into a pipeline that draws samples.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkdrop.pipeline import Pipeline, load

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__", "load", "sample", "train"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `train.py --help` needs none of it.
    if name in ("Pipeline", "load"):
        from inkdrop import pipeline

        return getattr(pipeline, name)
    from inkdrop.configuration.moved import MOVED

    if name in MOVED:
        return importlib.import_module(f"inkdrop.{MOVED[name]}")
    raise AttributeError(f"module 'inkdrop' has no attribute '{name}'")


def train(*options: str) -> dict[str, Any]:
    """Trains a model as `inkdrop train` does with these options, and returns the content of `result.json`.

    An example is `inkdrop.train("experiment=moons", "seed=1")`. Raises `inkdrop.errors.InkdropError` for an error that
    the user can fix.
    """
    from inkdrop.commands.call import call
    from inkdrop.commands.train import Train

    return call(Train(), options)


def sample(*options: str) -> dict[str, Any]:
    """Draws samples as `inkdrop sample` does with these options, and returns the content of `result.json`.

    An example is `inkdrop.sample("checkpoint=runs/moons/...", "num_samples=64")`. Raises `inkdrop.errors.InkdropError`
    for an error that the user can fix.
    """
    from inkdrop.commands.call import call
    from inkdrop.commands.sample import Sample

    return call(Sample(), options)
