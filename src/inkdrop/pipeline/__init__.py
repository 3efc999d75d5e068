"""From seeds and conditions to data: what sampling, pictures, evaluation and notebooks all use."""

from inkdrop.pipeline.base import MAX_NUMBERS, Pipeline, calls_counted, compile_network
from inkdrop.pipeline.loading import load, loaded, restored, set_weights

__all__ = ["MAX_NUMBERS", "Pipeline", "calls_counted", "compile_network", "load", "loaded", "restored", "set_weights"]
