"""Pipelines, which turn seeds and conditions into data, and pipelines from checkpoints."""

from inkdrop.pipeline.base import MAX_NUMBERS, Pipeline, calls_counted, compile_network
from inkdrop.pipeline.loading import embedded, foreign, guides, load, loaded, restored, set_weights
from inkdrop.pipeline.published import published_autoencoder

__all__ = [
    "MAX_NUMBERS",
    "Pipeline",
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
