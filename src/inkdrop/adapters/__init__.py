"""Adapters: small trained changes of a model whose other weights stay as they are."""

from inkdrop.adapters.base import Adapter, digest
from inkdrop.adapters.hints import ControlNet, Hinted, T2IAdapter
from inkdrop.adapters.lora import LoRA
from inkdrop.adapters.words import NewWords

__all__ = ["Adapter", "ControlNet", "Hinted", "LoRA", "NewWords", "T2IAdapter", "digest"]
