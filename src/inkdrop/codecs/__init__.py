"""Codecs between raw data and the x that is diffused."""

from inkdrop.codecs.base import Batches, Codec
from inkdrop.codecs.binary import Binary
from inkdrop.codecs.one_hot import OneHot
from inkdrop.codecs.pixels import Pixels
from inkdrop.codecs.series import Increments, MeanScaled
from inkdrop.codecs.standardize import Standardize
from inkdrop.codecs.unchanged import Unchanged
from inkdrop.codecs.vocabulary import Vocabulary, Words
from inkdrop.codecs.word_embedding import WordEmbedding, inner_products, nearness

__all__ = [
    "Batches",
    "Binary",
    "Codec",
    "Increments",
    "MeanScaled",
    "OneHot",
    "Pixels",
    "Standardize",
    "Unchanged",
    "Vocabulary",
    "WordEmbedding",
    "Words",
    "inner_products",
    "nearness",
]
