"""Models: what a task trains, and how one holds another that it does not train."""

from inkdrop.models.attribute_classifier import AttributeClassifier
from inkdrop.models.autoencoder import Autoencoder
from inkdrop.models.autoregressive import Autoregressive
from inkdrop.models.base import Model
from inkdrop.models.codec_of import CodecOf
from inkdrop.models.contrastive import ContrastiveModel
from inkdrop.models.foreign import MAX_FOREIGN_BYTES, ForeignFiles
from inkdrop.models.generator import Generator
from inkdrop.models.holding import Frozen, Reference
from inkdrop.models.latent import Latent
from inkdrop.models.tokenizer import Tokenizer

__all__ = [
    "MAX_FOREIGN_BYTES",
    "AttributeClassifier",
    "Autoencoder",
    "Autoregressive",
    "CodecOf",
    "ContrastiveModel",
    "ForeignFiles",
    "Frozen",
    "Generator",
    "Latent",
    "Model",
    "Reference",
    "Tokenizer",
]
