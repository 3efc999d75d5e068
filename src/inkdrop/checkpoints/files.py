"""Reading checkpoint files: nothing in them is executed, and what is damaged or foreign is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from inkdrop.checkpoints.content import migrated

INDEX = "index.json"


class CheckpointError(ValueError):
    """A checkpoint is absent, damaged or foreign; the message names the file and what to do."""

    exit_code = 4


def find_checkpoint(path: str | Path, option: str = "checkpoint") -> Path:
    """The checkpoint file itself, or the latest sound one of a run folder, which `option` names.

    A damaged one is skipped with a warning. `CheckpointError` if there is none, or for an address.
    """
    if "://" in str(path):
        raise CheckpointError(f"{option}={path} is an address: fetch the file first, and only from whom you trust")
    try:
        return _found(Path(path), option)
    except OSError as error:  # of a folder that may not be entered
        raise CheckpointError(f"{option}={path} cannot be read: {error.strerror}") from None


def _found(path: Path, option: str) -> Path:
    if path.is_file():
        return path
    if not path.exists():
        raise CheckpointError(f"{option}={path} does not exist")
    if not path.is_dir():
        raise CheckpointError(f"{option}={path} is neither a file nor a folder")
    folder = path / "checkpoints"
    if not any(folder.glob("step-*.ckpt")):
        raise CheckpointError(f"{path} is no run folder: it has no checkpoints/step-*.ckpt")
    if (latest := latest_sound(folder)) is None:
        raise CheckpointError(f"no checkpoint in {folder} is sound")
    return latest


def latest_sound(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that is as it was written; each that is not is named in a warning."""
    known = read_index(folder)
    # What is not in the index was being written when the run ended; without an index the names decide.
    names = [entry["name"] for entry in known["files"]] if known else sorted(p.name for p in folder.glob("step-*.ckpt"))
    for name in reversed(names):
        try:
            verify(folder / name)
        except CheckpointError as error:
            print(f"warning: {error}", file=sys.stderr, flush=True)
            continue
        if name != names[-1]:
            print(f"warning: {folder / name} is taken instead", file=sys.stderr, flush=True)
        return folder / name
    return None


def read_index(folder: Path) -> dict[str, Any] | None:
    """What `index.json` says of the complete files of a folder, oldest first; None without one that can be read."""
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        _ = [(entry["name"], entry["bytes"], entry["sha256"], entry["step"]) for entry in index["files"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"warning: {folder / INDEX} cannot be read ({error}): files are taken by name", file=sys.stderr)
        return None
    return index


def verify(file: Path) -> None:
    """`CheckpointError` unless the file is as it was written, by its digest in the index, or else its own checksums."""
    known = {entry["name"]: entry for entry in (read_index(file.parent) or {"files": []})["files"]}.get(file.name)
    try:
        size = file.stat().st_size
        if not file.is_file():
            raise CheckpointError(f"{file} is no file")  # and reading a pipe would never end
        if known is not None:
            if size != known["bytes"]:
                kind = "incomplete" if size < known["bytes"] else "damaged"
                raise CheckpointError(f"{file} is {kind}: {size} of {known['bytes']} bytes")
            with file.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != known["sha256"]:
                    raise CheckpointError(f"{file} is damaged: its digest is not the one it was written with")
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > size:  # whoever wrote it wrote the index too
                raise CheckpointError(f"{file} is no checkpoint of inkdrop: it unpacks to more than its size")
            if known is None and (damaged := archive.testzip()) is not None:
                raise CheckpointError(f"{file} is damaged in {damaged}")
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        raise CheckpointError(f"{file} is {_kind(file) or 'incomplete, damaged or no checkpoint'}") from None


def _kind(file: Path) -> str | None:
    """What a file that is no checkpoint is, of what networks are often kept in."""
    with file.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":
        return "a safetensors file: it holds weights alone, without the configuration of their model"
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "a TorchScript file: it holds a network alone, without the configuration of its model"
    return None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, as tensors and plain data, in the present version of the format.

    The file is verified first. `CheckpointError` if it is damaged, of a newer version, was not written by inkdrop, or
    holds numbers that are not finite.
    """
    file = find_checkpoint(path)
    if Path(path).is_file():  # a folder's has been verified
        verify(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler runs into anything on a foreign file
        # torch's own words advise to switch the protection off.
        kind = _kind(file) or f"no checkpoint of inkdrop: {type(error).__name__} while reading it"
        raise CheckpointError(f"{file} is {kind}") from None
    try:
        return migrated(content, file.stat().st_size)
    except ValueError as error:
        raise CheckpointError(f"{file} {error}") from None
