"""Callbacks of training: averages, evaluation, pictures, checkpoints, early stopping and progress."""

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.checkpoint import Checkpoint
from inkdrop.callbacks.ema import EMA, averaged_weights
from inkdrop.callbacks.evaluate import Evaluate, Variant
from inkdrop.callbacks.interruption import Interrupted, StopOnSignal
from inkdrop.callbacks.noise_levels import LossByNoiseLevel
from inkdrop.callbacks.pictures import SamplePictures
from inkdrop.callbacks.profile import Profile
from inkdrop.callbacks.progress import ProgressBar
from inkdrop.callbacks.stop_early import StopEarly
from inkdrop.callbacks.throughput import Throughput

__all__ = [
    "EMA",
    "Checkpoint",
    "Evaluate",
    "Every",
    "Interrupted",
    "LossByNoiseLevel",
    "Profile",
    "ProgressBar",
    "SamplePictures",
    "StopEarly",
    "StopOnSignal",
    "Throughput",
    "Variant",
    "averaged_weights",
]
