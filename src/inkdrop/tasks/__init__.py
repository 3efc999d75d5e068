"""What is trained: LightningModules."""

from inkdrop.tasks.diffusion import DiffusionTask

__all__ = ["DiffusionTask"]
