"""Likelihoods of held-out items."""

from inkdrop.likelihood.base import Likelihood
from inkdrop.likelihood.real import LossByNoiseLevel, ODELikelihood, VariationalBound
from inkdrop.likelihood.words import ExactNats, MaskedBound

__all__ = ["ExactNats", "Likelihood", "LossByNoiseLevel", "MaskedBound", "ODELikelihood", "VariationalBound"]
