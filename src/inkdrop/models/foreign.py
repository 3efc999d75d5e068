"""The files of a model that another library made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inkdrop.files.plain import json_of
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_published

MAX_FOREIGN_BYTES = 2**25  # of all files of a foreign model but its weights


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

    @property
    def names(self) -> list[str]:
        """The names of the files."""
        return sorted(self._files)

    def content(self, name: str) -> bytes:
        """Returns the content of a file; raises `ValueError` with the names of the files for an unknown one."""
        if name not in self._files:
            available = harmless(", ".join(self.names) or "none")
            raise ValueError(f"the foreign model has no {name} (available: {available}): use its original folder")
        return self._files[name].numpy().tobytes()

    def json(self, name: str) -> Any:
        """Returns the object in a JSON file; raises `ValueError` for other content, with limits of depth and size."""
        return json_of(self.content(name), name, error=ValueError)

    def architecture(self, known: Collection[str]) -> str:
        """Returns which of the architectures that a part knows the model has.

        Raises `ValueError` for any other one, and for a model that needs code of its folder.
        """
        if "auto_map" in self.config:
            raise ValueError(
                "config.json of the foreign model has auto_map, which names code to run: no code of a model is run, so "
                "use a model of an architecture that is part of transformers"
            )
        named = self.config.get("architectures", [self.config.get("_class_name")])  # of transformers, or of diffusers
        found = named[0] if isinstance(named, list) and named else None
        if not isinstance(found, str) or found not in known:
            raise ValueError(
                f"config.json of the foreign model names the architecture {harmless(found)}, which is not supported "
                f"here: choose a model of another one (available: {', '.join(known)})"
            )
        return found

    def weights(self) -> Mapping[str, Tensor] | None:
        """Returns the weights in the folder, `model.safetensors` or `diffusion_pytorch_model.safetensors`.

        Large ones may be split into files. It is None where a checkpoint provides them.
        """
        if self._folder is None:
            return None
        published = Path(self._folder) / "diffusion_pytorch_model.safetensors"
        index = published.with_name(f"{published.name}.index.json")
        there = published.is_file() or index.is_file()
        return read_published(published if there else published.with_name("model.safetensors"))
