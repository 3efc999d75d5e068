"""A few pictures of one subject, and pictures of its class that the base model draws, as DreamBooth needs them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from rich.progress import track
from torch import Tensor

from inkdrop.data.decoding import Decoder
from inkdrop.data.images import scan, typical_shape
from inkdrop.data.loaders import Derive, Order, ShuffledPasses, Split
from inkdrop.data.module import DataModule
from inkdrop.data.sources import open_source
from inkdrop.errors import DataError, UnreadableError
from inkdrop.files.locations import Location, cache_dir
from inkdrop.files.showing import harmless
from inkdrop.files.tensors import read_torch
from inkdrop.files.texts import encoded
from inkdrop.files.writing import replacing
from inkdrop.networks.diffusers_format import is_diffusers_folder

_TOGETHER = 50  # pictures of the class in a file
_PUBLISHED = (".json", ".safetensors", ".bin", ".txt", ".model")  # files of a folder of diffusers that are read


class Subject(DataModule):
    """Pictures of one subject and pictures of its class, which take turns, so that each batch has as many of both.

    The pictures of the class are samples of the base under `class_caption`. They are drawn on first use and kept in
    `INKDROP_CACHE_DIR`; an interrupted run draws only those that are missing. The field `weight` is 1 for the subject
    and `prior_weight` for its class, which `task.weight=weight` makes the weights of the loss. `validation` are the
    pictures of the subject. Arguments beyond those of `DataModule`:

    - `subject`: a folder or .zip file of pictures of the subject.
    - `caption`: what they show, with a rare or a new word for the subject, such as `a zog circle`.
    - `class_caption`: what pictures of the class show, such as `a circle`.
    - `base`: run folder or checkpoint of the base, or a folder of diffusers, whose model `lend` gives; null where
      `num_prior` is 0.
    - `num_prior`: number of pictures of the class; 0 is none.
    - `prior_weight`: their weight in the loss.
    - `shape`: null is the `typical_shape` of the pictures.

    Raises `DataError` for a folder without pictures and for a base that takes no caption. Source: Ruiz et al. 2022,
    arXiv 2208.12242, section 3.2.
    """

    def __init__(
        self,
        subject: Location,
        caption: str,
        class_caption: str | None,
        base: Location | None,
        shape: list[int] | None,
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        num_prior: Annotated[int, Ge(0)] = 200,
        prior_weight: Annotated[float, Gt(0)] = 1.0,
        derive: dict[str, Derive] | None = None,
    ):
        if num_prior and (base is None or class_caption is None):
            raise ValueError(
                "data=subject draws pictures of the class by the base: set base=RUN and data.class_caption='a circle', "
                "or data.num_prior=0"
            )
        self.subject, self.caption, self.class_caption, self.base = subject, caption, class_caption, base
        self.num_prior, self.prior_weight = num_prior, prior_weight
        self._described, self._lent = "", None
        shape = typical_shape(open_source(subject)) if shape is None else shape
        super().__init__(shape, num_classes, batch_size, seed, derive=derive)

    def load(self) -> dict[str, Split]:
        pictures = self._pictures()
        prior = self._prior() if self.num_prior else pictures[:0]
        if prior.shape[1:] != pictures.shape[1:] or prior.dtype != pictures.dtype:
            raise DataError(
                f"data.base draws {prior.dtype} of shape {list(prior.shape[1:])}, but the pictures of the subject have "
                f"{list(pictures.shape[1:])}: set data.shape to the shape of the base"
            )
        held_out = len(pictures)
        if not self.num_prior:  # a batch may be larger than the number of pictures
            pictures = pictures.repeat(-(-self.batch_size // held_out), 1, 1, 1)
        self._num_pictures = len(pictures)
        captions = encoded([*[self.caption] * len(pictures), *[str(self.class_caption)] * len(prior)])
        weight = torch.ones(len(pictures) + len(prior))
        weight[len(pictures) :] = self.prior_weight
        whole = {"x": torch.cat([pictures, prior]), "caption": captions, "weight": weight}
        return {"train": whole, "validation": {name: column[:held_out] for name, column in whole.items()}}

    def order(self) -> Order:
        _ = self.splits
        return _InTurn(self._num_pictures, self.num_prior, self.seed)

    def _pictures(self) -> Tensor:
        """The pictures of the subject (N, C, H, W), uint8."""
        source = open_source(self.subject)
        names = sorted(source.listing().files)
        scanned, pixels = scan(source, Decoder(self.shape), names, keep=True, num_workers=0)
        if broken := [name for name, each in zip(names, scanned, strict=True) if each.reason is not None]:
            raise DataError(f"{source.path(broken[0])} is broken: repair or remove it")
        if not names:
            raise DataError(f"data.subject={harmless(self.subject)} has no pictures: name a folder with some")
        return pixels

    def lend(self, described: str, pipeline: Any) -> None:
        self._described = described
        if pipeline is not None and self.num_prior and any(_read(file) is None for file, _ in self._files):
            self._lent = copy.deepcopy(pipeline).eval()

    @cached_property
    def _files(self) -> list[tuple[Path, range]]:
        """The files of pictures of the class, with the seeds of each."""
        key = json.dumps({"base": self._digest(), "caption": self.class_caption})
        folder = cache_dir() / "prior" / hashlib.sha256(key.encode()).hexdigest()
        parts = [range(first, first + _TOGETHER) for first in range(0, self.num_prior, _TOGETHER)]
        return [(folder / f"{part.start:08d}.pt", part) for part in parts]

    def _digest(self) -> str:
        """What identifies the base and how it is sampled."""
        from inkdrop.checkpoints.files import locate_checkpoint

        folder = Path(str(self.base))
        if not is_diffusers_folder(folder):
            return locate_checkpoint(str(self.base), "data.base").digest
        if not self._described:
            raise DataError(
                f"data.base={harmless(folder)} is a folder of diffusers, by which only train.py draws pictures of the "
                f"class: run it with base={harmless(folder)}, or set data.num_prior=0"
            )
        files = sorted(each for each in folder.rglob("*") if each.suffix in _PUBLISHED and each.is_file())
        each = [self._described, *(f"{file.relative_to(folder)} {_sha256(file)}" for file in files)]
        return hashlib.sha256("\n".join(each).encode()).hexdigest()

    def _prior(self) -> Tensor:
        """The pictures of the class (N, C, H, W), of which those that no file has are drawn and written."""
        files = self._files
        kept = [_read(file) for file, _ in files]
        if missing := [place for place, each in enumerate(kept) if each is None]:
            pipeline = self._pipeline()
            for place in track(missing, f"drawing {self.class_caption}", transient=True):
                file, part = files[place]
                kept[place] = pipeline(pipeline.request(part, caption=self.class_caption), part)
                file.parent.mkdir(parents=True, exist_ok=True)
                with replacing(file) as stream:
                    torch.save({"x": kept[place]}, stream)
        self._lent = None
        return torch.cat([each for each in kept if each is not None])[: self.num_prior]

    def _pipeline(self) -> Any:
        from inkdrop.pipeline import load

        if self._described and self._lent is None:
            raise DataError(
                f"the pictures of the class by data.base={harmless(self.base)} are no longer there, and the model of "
                "this run has changed: start a new run"
            )
        pipeline: Any = self._lent or load(str(self.base))
        if "caption" not in pipeline.names:
            raise DataError(f"data.base={harmless(self.base)} takes no caption: name the run of a model of texts")
        return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


class _InTurn:
    """An order in which items of the subject and of its class alternate, each in shuffled passes."""

    def __init__(self, num_subject: int, num_prior: int, seed: int):
        self.num_subject, self.num_prior = num_subject, num_prior
        self.subject, self.prior = ShuffledPasses(num_subject, seed), ShuffledPasses(max(1, num_prior), seed)

    def __call__(self, positions: Sequence[int]) -> Tensor:
        if not self.num_prior:
            return self.subject(positions)
        halves = (self.subject, self.prior)
        items = [halves[p % 2]([p // 2]) + (p % 2) * self.num_subject for p in positions]
        return torch.cat(items)


def _read(file: Path) -> Tensor | None:
    try:
        kept: Tensor = read_torch(file)["x"]
        return kept
    except (KeyError, TypeError, UnreadableError):  # missing, or damaged and drawn again
        return None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
