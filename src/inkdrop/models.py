"""Models: what a task trains, and how one holds another that it does not train."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from inkdrop.codecs import Batches, Codec
from inkdrop.files.plain import json_of
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_safetensors
from inkdrop.pictures import Automatic, View

T = TypeVar("T", bound="Frozen")
MAX_FOREIGN_BYTES = 2**25  # of all files of a foreign model but its weights


class Model(nn.Module):
    """A model that a task trains and that checkpoints hold: a pipeline, a classifier, an autoencoder, a GAN.

    - `network`: what is compiled and whose calls are counted.
    - `codec`: the map between raw data and what the network sees.
    - `shape`: the shape of x without the batch.
    - `classes`: the names of the classes in the order of their numbers, if they have names.
    - `draws`: whether `model(batch, seeds)` draws raw data, so that pictures, evaluations and sample.py can call it.
    - `guides`: the choice of `guidance` that takes the model, if it guides others.
    - `view`: how its data are looked at and written.
    """

    network: nn.Module
    codec: Codec
    shape: tuple[int, ...]
    classes: Sequence[str] = ()
    draws: bool = False
    guides: str | None = None
    view: View = Automatic()

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.parameters(), torch.empty(0)).device

    @property
    def names(self) -> list[str]:
        """The names of the conditions that the model takes."""
        return []

    def fit(self, batches: Batches, device: torch.device) -> None:
        """Fits the codec to the training data."""
        self.codec.fit(batches, device)

    @abstractmethod
    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch for these seeds from the conditions that a user names.

        Raises `ValueError` for unknown conditions.
        """

    def check_item(self, item: Tensor) -> None:
        """Raises `ValueError` if codec or view do not suit raw data (B, *) of the type and shape of this item."""
        self.codec.check(item)
        self.view.check(item)

    def check_batch(self, batch: Mapping[str, Tensor]) -> None:
        """Raises `ValueError` if fields of a raw batch are missing or do not suit the model."""

    def example(self, count: int) -> dict[str, Tensor]:
        """Returns a raw batch of any valid condition, by which the model is checked."""
        return self.request(range(count))

    def check(self) -> None:
        """Raises `ValueError` if the parts of the model do not fit each other."""


class Frozen(nn.Module):
    """A model within another, such as the autoencoder of a codec; calls go to the model.

    Its weights are saved with those of the outer model, once: they have no gradient, so that neither the optimizer nor
    an average of weights knows them. It stays in evaluation mode.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.hold(model.requires_grad_(False).eval())

    def hold(self, model: nn.Module) -> None:
        """Keeps the model."""
        self._model = model

    @property
    def model(self) -> Any:
        """The model itself."""
        return self._model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def train(self: T, mode: bool = True) -> T:
        """Does nothing: it is never trained."""
        return self


class Reference(Frozen):
    """A model that training needs and sampling does not, such as a teacher or a perceptual network.

    It follows the outer model from device to device, but is saved nowhere: a run that resumes reads its file again.
    """

    def hold(self, model: nn.Module) -> None:
        self._held = (model,)  # a tuple is no submodule

    @property
    def model(self) -> Any:
        return self._held[0]

    def _apply(self: T, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> T:
        self.model._apply(fn, recurse)
        return super()._apply(fn, recurse)


class ForeignFiles:
    """The configuration and the tokenizer of a foreign model, which are data: nothing of them is executed.

    A part that takes them builds the model of an architecture that it knows, and holds it by `Frozen`. A checkpoint
    keeps the files and the weights, and is then enough on its own.

    - `files`: the content (N), uint8, of each file by name.
    - `folder`: the folder with the weights; None in a checkpoint, which has them.

    Raises `ValueError` without a valid `config.json`, or if the files are larger than `MAX_FOREIGN_BYTES` together.
    """

    def __init__(self, files: dict[str, Tensor], folder: str | None = None):
        if (size := sum(map(len, files.values()))) > MAX_FOREIGN_BYTES:
            raise ValueError(f"the files of a foreign model have {size:,} bytes, more than {MAX_FOREIGN_BYTES:,}")
        self._files, self._folder = files, folder
        self.config: dict[str, Any] = self.json("config.json")

    def content(self, name: str) -> bytes:
        """Returns the content of a file; raises `ValueError` with the names of the files for an unknown one."""
        if name not in self._files:
            available = harmless(", ".join(sorted(self._files)) or "none")
            raise ValueError(f"the foreign model has no {name} (available: {available}): use its original folder")
        return self._files[name].numpy().tobytes()

    def json(self, name: str) -> Any:
        """Returns the object in a JSON file; raises `ValueError` for other content, with limits of depth and size."""
        return json_of(self.content(name), name, error=ValueError)

    def architecture(self, known: Collection[str]) -> str:
        """Returns which of the architectures that a part knows the model has; raises `ValueError` for any other."""
        named = self.config.get("architectures")
        found = named[0] if isinstance(named, list) and named else None
        if not isinstance(found, str) or found not in known:
            raise ValueError(
                f"config.json of the foreign model names the architecture {harmless(found)}, which is not supported "
                f"here: choose a model of another one (available: {', '.join(known)})"
            )
        return found

    def weights(self) -> Mapping[str, Tensor] | None:
        """Returns the weights in `model.safetensors` of the folder; None where a checkpoint provides them."""
        return None if self._folder is None else read_safetensors(Path(self._folder) / "model.safetensors")
