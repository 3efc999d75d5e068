"""Pipelines, which turn seeds and conditions into data, and pipelines from checkpoints."""

from inkdrop.pipeline.adapting import add_adapters
from inkdrop.pipeline.base import MAX_NUMBERS, Pipeline
from inkdrop.pipeline.calls import calls_counted, compile_network
from inkdrop.pipeline.loading import embedded, foreign, guides, load, loaded, restored, set_weights
from inkdrop.pipeline.published import published_autoencoder
from inkdrop.pipeline.rollout import Rollout

__all__ = [
    "MAX_NUMBERS",
    "Pipeline",
    "Rollout",
    "add_adapters",
    "calls_counted",
    "compile_network",
    "embedded",
    "foreign",
    "guides",
    "load",
    "loaded",
    "published_autoencoder",
    "restored",
    "set_weights",
]
