"""Training tasks: LightningModules."""

from inkdrop.tasks.base import Task
from inkdrop.tasks.classifier import ClassifierTask
from inkdrop.tasks.contrastive import ContrastiveTask
from inkdrop.tasks.diffusion import DiffusionTask
from inkdrop.tasks.model import ModelTask

__all__ = ["ClassifierTask", "ContrastiveTask", "DiffusionTask", "ModelTask", "Task"]
