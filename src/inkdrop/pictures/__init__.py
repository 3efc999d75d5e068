"""Pictures of samples, and plots of functions of time and of quality against cost."""

from inkdrop.pictures.plots import clouds, curves, process, schedules
from inkdrop.pictures.sheets import as_array, class_rows, grid, image, is_images, save_gif, save_png, scatter, sheet

__all__ = [
    "as_array",
    "class_rows",
    "clouds",
    "curves",
    "grid",
    "image",
    "is_images",
    "process",
    "save_gif",
    "save_png",
    "scatter",
    "schedules",
    "sheet",
]
