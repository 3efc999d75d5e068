"""Pictures and files of data: a view for each kind of data, and plots of functions in the module `plots`."""

from inkdrop.pictures.automatic import Automatic
from inkdrop.pictures.base import View
from inkdrop.pictures.images import Images
from inkdrop.pictures.points import Points
from inkdrop.pictures.series import Series
from inkdrop.pictures.sheets import save_gif, save_png
from inkdrop.pictures.text import Text

__all__ = ["Automatic", "Images", "Points", "Series", "Text", "View", "save_gif", "save_png"]
