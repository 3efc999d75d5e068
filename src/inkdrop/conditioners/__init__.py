"""Conditioners: what a network receives in addition to x_t and t."""

from inkdrop.conditioners.attributes import Attributes
from inkdrop.conditioners.augmentation import Augmentation
from inkdrop.conditioners.base import Conditioner, Unconditional
from inkdrop.conditioners.combined import Combined
from inkdrop.conditioners.embedding import Embedding
from inkdrop.conditioners.image import Image
from inkdrop.conditioners.label import Label
from inkdrop.conditioners.masked import Masked
from inkdrop.conditioners.published_texts import PublishedTexts
from inkdrop.conditioners.recurrent import Recurrent
from inkdrop.conditioners.text import PublishedText, Text
from inkdrop.conditioners.words import Words

__all__ = [
    "Attributes",
    "Augmentation",
    "Combined",
    "Conditioner",
    "Embedding",
    "Image",
    "Label",
    "Masked",
    "PublishedText",
    "PublishedTexts",
    "Recurrent",
    "Text",
    "Unconditional",
    "Words",
]
