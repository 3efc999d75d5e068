"""Reads checkpoint files: nothing in them is executed, and damaged or foreign files are refused with the reason."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import StringConstraints

from inkdrop.checkpoints.content import migrated
from inkdrop.errors import CheckpointError, UnreadableError
from inkdrop.files import open_regular, read_json, read_yaml
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless, warn
from inkdrop.files.tensors import ForeignError, check_archive, load_torch

INDEX = "index.json"  # in a folder of checkpoints: the complete files, and the owner
RECORD = "run.json"  # in a run folder: the name of the run, and the places of its files
KINDS = {"checkpoints": "checkpoint", "snapshots": "ema"}  # kinds of files, and the callback that writes each
_RECORD: dict[str, Any] = {"run_id": str, "config": dict[str, Any], **dict.fromkeys(KINDS, list[str])}
_INDEX: dict[str, Any] = {"files": list[dict[str, Any]], "owner": str, "run": str}
_ENTRY: dict[str, Any] = {
    "name": Annotated[str, StringConstraints(pattern=r"^step-\d{8,}\.ckpt$")],  # not a path to another folder
    "step": Annotated[int, Ge(0)],
    "bytes": Annotated[int, Ge(0)],
    "sha256": str,
    "metrics": dict[str, float],
}


def find_checkpoint(path: str | Path, option: str = "checkpoint") -> Path:
    """Returns the checkpoint file itself, or the latest intact one of a run folder; `option` is named in errors.

    A damaged checkpoint is skipped with a warning. Raises `CheckpointError` if there is none, or for a URL.
    """
    return _located(path, option)[0]


def _located(path: str | Path, option: str) -> tuple[Path, str | None]:
    """Returns the file, and its digest if the file was verified in the search."""
    if "://" in str(path):
        raise CheckpointError(f"{option}={path} is a URL: download the file first, from a source that you trust")
    try:
        return (Path(path), None) if Path(path).is_file() else _latest_in(Path(path), option)
    except OSError as error:  # such as a folder without permission
        raise CheckpointError(f"{option}={path} cannot be read: {error.strerror}") from None


def _latest_in(path: Path, option: str) -> tuple[Path, str | None]:
    if not path.exists():
        raise CheckpointError(f"{option}={path} does not exist")
    if not path.is_dir():
        raise CheckpointError(f"{option}={path} is neither a file nor a folder")
    if not (files := complete(places(path, "checkpoints"))):
        raise CheckpointError(f"{path} is not a run folder with checkpoints: it has no checkpoints/step-*.ckpt")
    if (latest := _latest_intact(files)) is None:
        raise CheckpointError(f"no checkpoint in {files[-1].parent} is intact")
    return latest


def read_record(run: Path) -> dict[str, Any]:
    """Returns the content of `run.json`: `run_id`, the folders of each kind, and the first `config` of the run.

    For a run from before `run.json` existed, it is read from `config.yaml`. The result is {} if neither can be read,
    as earlier versions did not write `config.yaml` atomically. Raises `CheckpointError` for a damaged `run.json`.
    """
    if (run / RECORD).exists():
        record: dict[str, Any] = read_json(run / RECORD, error=CheckpointError)
        if (wrong := wrong_field(record, _RECORD, ["run_id"])) is not None:
            raise CheckpointError(f"{harmless(run / RECORD)} is damaged, {wrong}")
        return record
    try:
        config: dict[str, Any] = read_yaml(run / "config.yaml")
    except UnreadableError:
        return {}
    if not isinstance(config.get("run_id"), str):
        return {"config": config}
    named = {kind: folder_of(config, "callbacks", callback) for kind, callback in KINDS.items()}
    within = f"{config.get('output_dir')}/"  # the run folder at that time, which may have been moved
    outside = {kind: [each] for kind, each in named.items() if each and not each.startswith(within)}
    return {"run_id": config["run_id"], "config": config, **outside}


def folder_of(config: Mapping[str, Any], group: str, name: str) -> str | None:
    """Returns the folder that a part of a configuration writes to, or None if it has no such option."""
    parts = config.get(group)
    part = parts.get(name) if isinstance(parts, Mapping) else None
    folder = part.get("folder") if isinstance(part, Mapping) else None
    return folder if isinstance(folder, str) else None


def places(run: Path, kind: str) -> list[Path]:
    """Returns the folders in which a run keeps its checkpoints or snapshots, without those of other runs."""
    record = read_record(run)
    outside = [run / each for each in record.get(kind, [])]
    own = [each for each in outside if (read_index(each) or {}).get("owner") in (None, record["run_id"])]
    return list(dict.fromkeys([run / kind, *own]))


def complete(folders: Iterable[Path]) -> list[Path]:
    """Returns the checkpoints in these folders, oldest first, without incomplete ones, which are not in the index."""
    files: list[Path] = []
    for folder in folders:
        index = read_index(folder)  # without an index the names decide
        names = [each["name"] for each in index["files"]] if index else [each.name for each in folder.glob("step-*")]
        files += [folder / name for name in names if re.fullmatch(r"step-\d+\.ckpt", name)]
    return sorted(files, key=lambda file: int(file.stem.removeprefix("step-")))


def latest_intact(files: Sequence[Path]) -> Path | None:
    """Returns the last of these checkpoints that is intact, and warns of each damaged one."""
    return None if (latest := _latest_intact(files)) is None else latest[0]


def _latest_intact(files: Sequence[Path]) -> tuple[Path, str | None] | None:
    for file in reversed(files):
        try:
            digest = verify(file)
        except CheckpointError as error:
            warn(error)
            continue
        if file != files[-1]:
            warn(f"{file} is used instead")
        return file, digest
    return None


def read_index(folder: Path) -> dict[str, Any] | None:
    """Returns the `index.json` of a folder, with its complete files, oldest first, or None if it cannot be read."""
    if not os.path.lexists(folder / INDEX):
        return None
    try:
        index: dict[str, Any] = read_json(folder / INDEX)
        if (wrong := _wrong_index(index)) is not None:
            raise UnreadableError(f"{harmless(folder / INDEX)} is damaged, {wrong}")
    except UnreadableError as error:
        warn(f"{error}: files are found by name")
        return None
    return index


def _wrong_index(index: dict[str, Any]) -> str | None:
    if (wrong := wrong_field(index, _INDEX, ["files"])) is not None:
        return wrong
    faults = (wrong_field(entry, _ENTRY, _ENTRY) for entry in index["files"])
    return next((fault for fault in faults if fault is not None), None)


def verify(file: Path) -> str | None:
    """Raises `CheckpointError` unless a file is intact, by its digest in the index or else its own checksums.

    Returns the digest if it is in the index.
    """
    known = {entry["name"]: entry for entry in (read_index(file.parent) or {"files": []})["files"]}.get(file.name)
    shown = harmless(file)
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            if known is not None:
                if size != known["bytes"]:
                    kind = "incomplete" if size < known["bytes"] else "damaged"
                    raise CheckpointError(f"{shown} is {kind}: {size} of {known['bytes']} bytes")
                if hashlib.file_digest(stream, "sha256").hexdigest() != known["sha256"]:
                    raise CheckpointError(f"{shown} is damaged: its digest differs from that in {INDEX}")
            check_archive(stream, whole=known is None)  # the index has the same author as the file
            return None if known is None else str(known["sha256"])
    except OSError as error:
        raise CheckpointError(f"{shown} cannot be read: {error.strerror or error}") from None
    except ForeignError as error:
        raise _foreign(file, error) from None


def _foreign(file: Path, error: ForeignError) -> CheckpointError:
    return CheckpointError(f"{harmless(file)} is {_kind(file) or f'not an inkdrop checkpoint: it {error}'}")


def _kind(file: Path) -> str | None:
    """Returns the kind of a file that is not a checkpoint but a common format of networks, or None for others."""
    with contextlib.suppress(Exception), open_regular(file) as stream:
        if stream.read(9)[8:] == b"{":
            return "a safetensors file: it contains only weights, without the configuration of their model"
        with zipfile.ZipFile(stream) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "a TorchScript file: it contains only a network, without the configuration of its model"
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint `file` for the given `path`; `content` is in the present format and is read once."""

    path: str | Path
    file: Path
    known: str | None = None

    @cached_property
    def content(self) -> dict[str, Any]:
        """Reads the file."""
        return read_verified(self.file)

    @cached_property
    def digest(self) -> str:
        """Returns the SHA-256 of the file, which is computed once."""
        if self.known is not None:
            return self.known
        with open_regular(self.file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def open_checkpoint(path: str | Path, option: str = "checkpoint") -> Checkpoint:
    """Returns the checkpoint at a path: tensors and plain data, in the present version of the format.

    The file is verified first. Raises `CheckpointError` if it is damaged, of a newer version, not written by inkdrop,
    or contains numbers that are not finite; `option` is named in the message.
    """
    checkpoint = locate_checkpoint(path, option)
    _ = checkpoint.content
    return checkpoint


def locate_checkpoint(path: str | Path, option: str = "checkpoint") -> Checkpoint:
    """Returns a verified checkpoint whose content is not read yet; see `open_checkpoint`."""
    file, digest = _located(path, option)
    if Path(path).is_file():  # a folder's has been verified
        digest = verify(file)
    return Checkpoint(path, file, digest)


def read_checkpoint(path: str | Path, option: str = "checkpoint") -> dict[str, Any]:
    """Returns the content of a checkpoint, as in `open_checkpoint`."""
    return open_checkpoint(path, option).content


def read_verified(file: Path) -> dict[str, Any]:
    """Returns the content of a verified checkpoint file."""
    try:
        with open_regular(file) as stream:
            return migrated(load_torch(stream))
    except OSError as error:
        raise CheckpointError(f"{harmless(file)} cannot be read: {error.strerror or error}") from None
    except ForeignError as error:
        raise _foreign(file, error) from None
    except ValueError as error:
        raise CheckpointError(f"{harmless(file)} {error}") from None
