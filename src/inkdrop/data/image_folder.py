"""Your own images, in a folder or a zip archive."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from inkdrop.data.captions import BESIDE, NAME, Captioned, captioned, is_template, texts_beside
from inkdrop.data.decoding import ANIMATED, WARNED, Decoder
from inkdrop.data.findings import Findings
from inkdrop.data.images import Images, scan, typical_shape
from inkdrop.data.layout import Place, check_level, class_names, only_place, places
from inkdrop.data.loaders import Augment, Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.data.paired import Counterparts, Paired
from inkdrop.data.sources import Source, open_source
from inkdrop.errors import DataError
from inkdrop.files.locations import Location
from inkdrop.files.showing import harmless

_NAMED = 5  # broken files that an error lists
_CONVERT = "Convert those that are images to PNG, JPEG or WebP, and give them the suffix of that format"


@dataclass(frozen=True)
class _Part:
    """The files of a split, with their labels (N) if there are classes; `pairs` has the places of counterparts."""

    source: Source
    names: list[str]
    labels: Tensor
    pairs: dict[str, Source]
    captioned: Captioned | None

    def select(self, items: Sequence[int]) -> _Part:
        return replace(self, names=[self.names[item] for item in items], labels=self.labels[list(items)])


class ImageFolder(DataModule):
    """Your own images below a folder or in a .zip file, as uint8 (N, C, H, W), with classes by folder or by table.

    All files are decoded when the data are loaded. Arguments beyond those of `DataModule`:

    - `path`: a folder, a .zip file, or a folder within one. Folders directly below it that are called train, val or
      test are its splits. Classes are the folders below, in the order of their numbers if all are numbers and else of
      the bytes of their names, or those of a `dataset.json`, a `metadata.jsonl` or a CSV there.
    - `shape`: null is the `typical_shape` of the images.
    - `num_classes`: null counts the classes, and 0 means no labels.
    - `validation`: another such path, which is held out; null holds out the split val, or else test, or else a part.
    - `held_out`: the share of each class that is held out, chosen by a hash of the file names.
    - `decoder`: how files become pixels.
    - `max_broken`: the largest share of broken files that is left out; more are an error.
    - `memory_limit`: GiB of pixels that stay in memory; more are decoded again for each batch.
    - `allow_links`: whether links may leave the folder.
    - `sha256`, `validation_sha256`: digests of the archives, which are compared if they are given.
    - `paired`: further fields by name, of the images of the same names in other places.
    - `captions`: what the field `caption` is: a column of the table, `txt` for a text next to each image, or a template
      such as `a photo of a {label}`; null leaves it out. Of several captions, training draws one.

    Raises `DataError` with the paths if files are broken or have no valid caption, or if there are too few, and
    `ValueError` for an augmentation of paired images, which would change x alone.
    """

    def __init__(
        self,
        path: Location,
        shape: list[int] | None,
        num_classes: Annotated[int, Ge(0)] | None,
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        augment: Augment | None = None,
        num_workers: Annotated[int, Ge(0)] | None = None,
        validation: Location | None = None,
        held_out: Annotated[float, Gt(0), Lt(1)] = 0.1,
        decoder: Decoder | None = None,
        max_broken: Annotated[float, Ge(0), Le(1)] = 0.0,
        memory_limit: Annotated[float, Ge(0)] = 2.0,
        allow_links: bool = False,
        sha256: str | None = None,
        validation_sha256: str | None = None,
        derive: dict[str, Derive] | None = None,
        paired: dict[str, Paired] | None = None,
        captions: str | None = None,
    ):
        self.paired, self.captions = dict(paired or {}), captions
        if augment is not None and self.paired:
            raise ValueError("data.augment would change x and not the fields of data.paired: set data.augment=null")
        if taken := sorted({"x", "label", "position", *([NAME] if captions else [])} & set(self.paired)):
            raise ValueError(f"data.paired.{taken[0]} would replace a field of the data: choose another name")
        is_template(captions)  # raises an error for an invalid one
        self.path, self.validation, self.held_out, self.allow_links = path, validation, held_out, allow_links
        self._stated = num_classes
        if num_classes is None:
            check_level(self._places["train"], found=True)
            num_classes = len(self.classes)
        # A later error would hide that there are no images.
        if shape is None or (self._stated is None and num_classes == 0):
            listing = self._places["train"].source.listing()
            _require_some(len(listing.files), self.path, Findings(skipped=listing.skipped))
        shape = typical_shape(self._places["train"].source) if shape is None else shape
        self.decoder, self.max_broken, self.memory_limit = decoder or Decoder(shape), max_broken, memory_limit
        self.decoder.shape = self.decoder.shape or tuple(shape)
        self.decoder.check_shape()
        self._decoders = {name: each.decoder(self.decoder) for name, each in self.paired.items()}
        self.sha256 = {"train": sha256, "validation": validation_sha256}
        super().__init__(shape, num_classes, batch_size, seed, augment, num_workers, derive=derive)

    @cached_property
    def _places(self) -> dict[str, Place]:
        """The place of each split; without a place of `validation` its files are chosen from those of `train`."""
        source = open_source(self.path, self.allow_links)
        if self.validation is None:
            return places(self.path, source, self.captions)
        other = open_source(self.validation, self.allow_links)
        return {
            "train": only_place("path", self.path, source, self.captions),
            "validation": only_place("validation", self.validation, other, self.captions),
        }

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        return [] if self._stated == 0 else class_names(self._places, self._stated)

    def verify(self) -> None:
        findings = Findings()
        parts = self._list(findings)
        self._check_numbers(parts["train"].labels, len(parts["validation"].names), findings)

    def num_train(self) -> int | None:
        return len(self._list(Findings())["train"].names)

    def load(self) -> dict[str, Split]:
        findings = self.examine()
        self._judge(findings)
        train, validation = findings.splits["train"], findings.splits["validation"]
        labels = train.get("label", torch.zeros(len(train["x"])))
        self._check_numbers(labels[torch.arange(len(labels))], len(validation["x"]), findings)
        return dict(findings.splits)

    def examine(self) -> Findings:
        findings = Findings()
        parts = self._list(findings)
        files = sum(len(part.names) for part in parts.values())
        decoders = (self.decoder, *self._decoders.values())
        pixels = sum(torch.Size(decoder.shape).numel() for decoder in decoders)
        keep = files * pixels <= self.memory_limit * 2**30
        splits: dict[str, Split] = {}
        for split, part in parts.items():
            if (expected := self.sha256.get(split)) is not None:
                part.source.check_sha256(expected)
            splits[split] = self._read(split, part, keep, findings)
        findings.splits = splits
        return findings

    def _list(self, findings: Findings) -> dict[str, _Part]:
        """The files of each split; odd and skipped files are added to the findings."""
        if len(self.classes) != self.num_classes:
            kind = "folders" if self._places["train"].labels is None else "classes"
            raise ValueError(
                f"data.num_classes={self.num_classes}, but {self.path} has {len(self.classes)} {kind}: set it to null, "
                f"which counts the {kind}"
            )
        parts = {}
        for split, place in self._places.items():
            check_level(place, found=False)
            parts[split] = self._files(split, place, findings)
        if "validation" in parts:
            return parts
        train = parts["train"]
        chosen = held_out(train.names, train.labels.tolist(), self.held_out)
        rest = sorted(set(range(len(train.names))) - set(chosen))
        return {"train": train.select(rest), "validation": train.select(chosen)}

    def _files(self, split: str, place: Place, findings: Findings) -> _Part:
        source, listing = place.source, place.source.listing()
        names, labels, odd = place.sorted_out(listing, self.classes)
        findings.broken.update({source.path(name): reason for name, reason in odd.items()})
        texts = captioned(self.captions, place, listing, self.classes) if self.captions else None
        skipped = {name: reason for name, reason in listing.skipped.items() if not texts or name not in texts.files}
        findings.skipped.update({source.path(name): reason for name, reason in skipped.items()})
        if place.table is not None and (unused := place.table.unused(self.captions)):
            findings.unused[place.table.path] = unused
        if self.captions is None and (count := len(texts_beside(listing))):
            hint = f" (data.captions={BESIDE} uses them)"
            findings.unused[place.path] = f"{count} texts next to images of the same name{hint} are"
        separate = split == "validation" and self.validation is not None
        below = "" if separate else place.path.removeprefix(self.path).strip("/")
        pairs = {name: each.source(name, below, separate, self.allow_links) for name, each in self.paired.items()}
        return _Part(source, names, torch.tensor(labels, dtype=torch.long), pairs, texts)

    def _read(self, split: str, part: _Part, keep: bool, findings: Findings) -> Split:
        scanned, pixels = scan(part.source, self.decoder, part.names, keep, self.num_workers)
        pairs = {
            name: Counterparts(source, self._decoders[name], part.names, keep, self.num_workers)
            for name, source in part.pairs.items()
        }
        for each in pairs.values():
            each.report(part.names, findings)
        texts = part.captioned and part.captioned.read(part.source, part.names, part.labels.tolist())
        findings.broken.update(texts.broken.values() if texts else ())
        alone = {item for each in pairs.values() for item in each.broken} | set(texts.broken if texts else ())
        readable = [item for item, file in enumerate(scanned) if file.reason is None]
        valid = [item for item in readable if item not in alone]
        for item, (name, file) in enumerate(zip(part.names, scanned, strict=True)):
            if file.reason is not None:
                findings.broken[part.source.path(name)] = file.reason
            elif item not in alone:
                findings.conversions.update(file.conversions)
                findings.sizes[file.size] += 1
        if alone and keep:
            pixels = pixels[[row for row, item in enumerate(readable) if item not in alone]]
        part = part.select(valid)
        findings.paths[split] = [part.source.path(name) for name in part.names]
        x = pixels if keep else Images(part.source, self.decoder, part.names, [scanned[i].checksum for i in valid])
        columns: Split = {name: each.column(valid) for name, each in pairs.items()}
        columns = {**columns, NAME: texts.column(valid)} if texts else columns
        return {"x": x, "label": part.labels, **columns} if self.num_classes else {"x": x, **columns}

    def _judge(self, findings: Findings) -> None:
        """Raises `DataError` for more broken files than allowed; warns with counts of skipped and changed files."""
        broken, files = findings.broken, findings.sizes.total() + len(findings.broken)
        if len(broken) > self.max_broken * files:
            lines = [f"  {path}: {reason}" for path, reason in list(broken.items())[:_NAMED]]
            more = [f"  and {len(broken) - _NAMED} more"] if len(broken) > _NAMED else []
            what = "are not valid images" + (" with captions" if self.captions else "")
            raise DataError(
                "\n".join([f"{len(broken)} of {files} files in {self.path} {what}:", *lines, *more])
                + "\n`python -m inkdrop check-data` with the same data options lists all of them; repair or remove "
                f"them, or raise data.max_broken={self.max_broken}, the largest share that may be left out"
            )
        counts = {kind: count for kind in (ANIMATED, WARNED) if (count := findings.conversions[kind])}
        if broken:
            counts["broken and left out"] = len(broken)
        if findings.left_out and findings.sizes:  # without images this is an error
            rank_zero_warn(
                f"files in {self.path} are left out, because their names are not those of images: "
                f"{findings.left_out}. {_CONVERT}"
            )
        for table, unused in findings.unused.items():
            rank_zero_warn(f"{table}: {unused} not used")
        if counts:
            kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            rank_zero_warn(f"of {files} files in {self.path}: {kinds}; `python -m inkdrop check-data` lists them")

    def _check_numbers(self, labels: Tensor, num_held_out: int, findings: Findings) -> None:
        _require_some(len(labels), self.path, findings)
        if self.num_classes and (
            empty := labels.bincount(minlength=self.num_classes).eq(0).nonzero().flatten().tolist()
        ):
            named = harmless(self.classes[empty[0]])
            where = f"of class {named} in {self.path}"
            if self._places["train"].labels is None:
                where = f"in {self._places['train'].path}/{named}"
            left_out = f", but {findings.left_out}. {_CONVERT}" if findings.left_out else ""
            raise DataError(f"there are no images to train on {where}{left_out}")
        if len(labels) < self.batch_size:
            raise DataError(
                f"{len(labels)} images to train on in {self.path} are fewer than "
                f"data.batch_size={self.batch_size}: lower it"
            )
        if num_held_out == 0:
            raise DataError(f"no image of {self.path} is held out: set data.validation, or raise data.held_out")


def _require_some(count: int, path: str, findings: Findings) -> None:
    if count == 0:
        left_out = f", but {findings.left_out}. {_CONVERT}" if findings.left_out else ""
        why = left_out or ": `python -m inkdrop check-data` shows what was left out and why"
        raise DataError(f"there are no images in {path}{why}")


def held_out(names: Sequence[str], labels: Sequence[int], share: float) -> list[int]:
    """Returns the numbers of the held-out files: this share of each class, rounded down, lowest by a hash of names."""
    order = sorted(
        range(len(names)), key=lambda i: hashlib.blake2b(names[i].encode("utf-8", "surrogateescape")).digest()
    )
    members: dict[int, list[int]] = {}
    for item in order:
        members.setdefault(labels[item], []).append(item)
    return sorted(item for each in members.values() for item in each[: int(share * len(each))])
