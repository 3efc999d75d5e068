"""The report of `python -m inkdrop check-data` on a data set."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import rich
import torch
from omegaconf import OmegaConf
from rich.progress import track
from torch import Tensor

from inkdrop.commands.check_data.texts import about_texts
from inkdrop.commands.command import for_the_user
from inkdrop.conditioners import Conditioner
from inkdrop.configuration import USER_TARGETS, build, check
from inkdrop.configuration.completion import find_facts, plain_data
from inkdrop.configuration.compose import composed
from inkdrop.data.findings import Findings
from inkdrop.data.loaders import OrderedLoader, ShuffledLoader, Split
from inkdrop.data.module import DataModule
from inkdrop.errors import DataError
from inkdrop.files.showing import harmless
from inkdrop.files.texts import is_text
from inkdrop.files.writing import make_folder, write_text
from inkdrop.pictures import Automatic, View, save_png

_BATCH_SIZE, _IN_PICTURE, _SIZES = 512, 100, 5
_CONDITIONED = ("conditioner", "experiment=")  # options by which a user chooses a conditioner


def check_data(overrides: list[str], output: Path) -> None:
    """Inspects the data of training with these overrides; ends with exit code 3 if some files are broken.

    Raises `ConfigurationError` for a wrong configuration, and `DataError` for missing data.
    """
    with for_the_user():
        config = composed("train", overrides)
        allowed = (*USER_TARGETS, *config.allow_targets)
        found = find_facts(config.data, config.allow_targets)
        node = plain_data(config.data)
        check(node, allowed, "data")
        shown = OmegaConf.to_container(config.get("view") or OmegaConf.create({}), resolve=True)
        check(shown, allowed, "view")
        data, conditioner = found or build(node, allowed), None
        if any(option.lstrip("+").startswith(_CONDITIONED) for option in overrides):
            plain = plain_data(config.conditioner)
            check(plain, allowed, "conditioner")
            conditioner = build(plain, allowed)
        fine = inspect(data, output, build(shown, allowed) or Automatic(), conditioner)
    if not fine:
        sys.exit(DataError.exit_code)


def inspect(data: DataModule, output: Path, view: View | None = None, conditioner: Conditioner | None = None) -> bool:
    """Prints a report, writes `samples.png` and a list of odd items, `items.txt`; returns whether no file is broken.

    Without a view, the type and shape of the data choose it. With a conditioner, texts that it cuts are counted.
    """
    findings = data.examine()
    for line in _about_files(findings):
        print(harmless(line, 2000))
    first: dict[bytes, str] = {}  # hash -> the first item with it, over all splits
    twins: dict[str, str] = {}
    for name, split in findings.splits.items():
        if len(split["x"]):
            hashes, statistics = _go_through(name, split)
            print(f"{name:20} {len(hashes)} items of shape {tuple(split['x'].shape[1:])}, {split['x'].dtype}")
            for line in (*statistics, *_about_labels(split, data.classes), *about_texts(split, conditioner)):
                print(f"  {harmless(line, 2000)}")
            _compare(name, hashes, findings.paths.get(name), first, twins)
    _write_items({"broken": findings.broken, "skipped": findings.skipped, "twin": twins}, output)
    train = findings.splits["train"]
    if count := min(_IN_PICTURE, len(train["x"])):
        batch = ShuffledLoader(train, count, data.seed, augment=data.augment).batch(0)
        view = view or Automatic()
        view.check(batch["x"])
        save_png(view.sheet(batch["x"], batch), output / "samples.png")
        print(f"{'first to be trained':20} {output / 'samples.png'}")
    data.verify()
    return not findings.broken


def _about_files(findings: Findings) -> Iterator[str]:
    for title, files in (("broken", findings.broken), ("skipped", findings.skipped)):
        if files:
            yield f"{title + ' files':20} {len(files)}"
        examples = {reason: path for path, reason in reversed(files.items())}
        for reason, count in Counter(files.values()).most_common():
            yield f"  {examples[reason]}{f' and {count - 1} more' if count > 1 else ''}: {reason}"
    if findings.left_out:
        yield f"{'left out by name':20} {findings.left_out}"
    for table, unused in findings.unused.items():
        yield f"{'not used':20} {unused.removesuffix(' are')}, in {table}"
    for kind, count in findings.conversions.most_common():
        yield f"{kind:20} {count} files"
    if findings.sizes:
        common = ", ".join(f"{w} x {h} ({n})" for (w, h), n in findings.sizes.most_common(_SIZES))
        more = f" and {len(findings.sizes) - _SIZES} more" if len(findings.sizes) > _SIZES else ""
        yield f"{'width x height':20} {common}{more}"


def _go_through(name: str, split: Split) -> tuple[list[bytes], list[str]]:
    """Returns the hashes of a split's items, and lines on the mean and deviation of each channel, but of no texts."""
    hashes: list[bytes] = []
    total = square = torch.zeros(())
    loader = OrderedLoader({"x": split["x"]}, _BATCH_SIZE)
    quiet = not rich.get_console().is_terminal
    for batch in track(loader, f"comparing {name}", len(loader), transient=True, disable=quiet):
        x = batch["x"]
        hashes += [hashlib.blake2b(each.contiguous().numpy().tobytes(), digest_size=16).digest() for each in x]
        flat = x.double().reshape(len(x), x.shape[1], -1)
        total, square = total + flat.mean(2).sum(0), square + flat.square().mean(2).sum(0)
    if is_text(x):
        return hashes, []
    mean = total / len(hashes)
    deviation = (square / len(hashes) - mean.square()).clamp(min=0).sqrt()
    return hashes, [f"mean               {_numbers(mean)}", f"standard deviation {_numbers(deviation)}"]


def _about_labels(split: Split, classes: list[str]) -> Iterator[str]:
    if "label" in split:
        numbers = split["label"][torch.arange(len(split["label"]))].bincount(minlength=len(classes)).tolist()
        yield f"per class          {', '.join(f'{harmless(n)} {c}' for n, c in zip(classes, numbers, strict=False))}"


def _compare(
    split: str, hashes: list[bytes], paths: list[str] | None, first: dict[bytes, str], twins: dict[str, str]
) -> None:
    """Prints how many items of a split equal earlier ones, and adds them to `first` and `twins`.

    - `split`: name of the split.
    - `hashes`: hash of each item.
    - `paths`: file of each item, or None.
    - `first`: first item with each hash, over all splits.
    - `twins`: text on each item that equals an earlier one, by its name.
    """
    own, earlier = set[bytes](), set(first)
    within = across = 0
    for number, key in enumerate(hashes):
        name = paths[number] if paths else f"{split} item {number}"
        within, across = within + (key in own), across + (key in earlier)
        own.add(key)
        if key in first:
            twins[name] = f"same as {first[key]}"
        first.setdefault(key, name)
    print(f"  twins              {within} within {split}, {across} with splits above")


def _write_items(kinds: Mapping[str, Mapping[str, str]], output: Path) -> None:
    lines = [f"{kind}\t{path}\t{why}\n" for kind, items in kinds.items() for path, why in items.items()]
    if lines:
        make_folder(output)
        write_text(output / "items.txt", "".join(lines))
        print(f"{'each odd item':20} {output / 'items.txt'}")


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{value:.2f}" for value in values.tolist())
