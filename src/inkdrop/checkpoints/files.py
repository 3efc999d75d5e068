"""Reading checkpoint files: nothing in them is executed, and what is damaged or foreign is refused with the reason."""

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

INDEX = "index.json"  # in a folder of checkpoints: what is complete, and whose it is
RECORD = "run.json"  # in a run folder: which run this is, and where its files lie
KINDS = {"checkpoints": "checkpoint", "snapshots": "ema"}  # what is found again, and the callback that keeps it
_RECORD: dict[str, Any] = {"run_id": str, "config": dict[str, Any], **dict.fromkeys(KINDS, list[str])}
_INDEX: dict[str, Any] = {"files": list[dict[str, Any]], "owner": str, "run": str}
_ENTRY: dict[str, Any] = {
    "name": Annotated[str, StringConstraints(pattern=r"^step-\d{8,}\.ckpt$")],  # no path that leads elsewhere
    "step": Annotated[int, Ge(0)],
    "bytes": Annotated[int, Ge(0)],
    "sha256": str,
    "metrics": dict[str, float],
}


def find_checkpoint(path: str | Path, option: str = "checkpoint") -> Path:
    """The checkpoint file itself, or the latest sound one of a run folder, which `option` names.

    A damaged one is skipped with a warning. `CheckpointError` if there is none, or for an address.
    """
    return _located(path, option)[0]


def _located(path: str | Path, option: str) -> tuple[Path, str | None]:
    """The file, and its digest if it had to be read to be found."""
    if "://" in str(path):
        raise CheckpointError(f"{option}={path} is an address: fetch the file first, and only from whom you trust")
    try:
        return (Path(path), None) if Path(path).is_file() else _latest_in(Path(path), option)
    except OSError as error:  # of a folder that may not be entered
        raise CheckpointError(f"{option}={path} cannot be read: {error.strerror}") from None


def _latest_in(path: Path, option: str) -> tuple[Path, str | None]:
    if not path.exists():
        raise CheckpointError(f"{option}={path} does not exist")
    if not path.is_dir():
        raise CheckpointError(f"{option}={path} is neither a file nor a folder")
    if not (files := complete(places(path, "checkpoints"))):
        raise CheckpointError(f"{path} is no run folder: it has no checkpoints/step-*.ckpt")
    if (latest := _latest_sound(files)) is None:
        raise CheckpointError(f"no checkpoint in {files[-1].parent} is sound")
    return latest


def read_record(run: Path) -> dict[str, Any]:
    """What `run.json` says: `run_id`, the folders of each kind, and the `config` that the run was begun with.

    Of a run from before there was one, its `config.yaml` says it; {} where neither is or can be read, as earlier
    versions did not write that in one go. `CheckpointError` for a damaged record.
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
    within = f"{config.get('output_dir')}/"  # where it lay then: its folder may have been moved
    outside = {kind: [each] for kind, each in named.items() if each and not each.startswith(within)}
    return {"run_id": config["run_id"], "config": config, **outside}


def folder_of(config: Mapping[str, Any], group: str, name: str) -> str | None:
    """The folder that a part of a configuration writes to; None if it writes to none."""
    parts = config.get(group)
    part = parts.get(name) if isinstance(parts, Mapping) else None
    folder = part.get("folder") if isinstance(part, Mapping) else None
    return folder if isinstance(folder, str) else None


def places(run: Path, kind: str) -> list[Path]:
    """The folders in which a run keeps its checkpoints, or its snapshots, without those of other runs."""
    record = read_record(run)
    outside = [run / each for each in record.get(kind, [])]
    own = [each for each in outside if (read_index(each) or {}).get("owner") in (None, record["run_id"])]
    return list(dict.fromkeys([run / kind, *own]))


def complete(folders: Iterable[Path]) -> list[Path]:
    """The checkpoints in these folders, oldest first; what is not in an index was being written when the run ended."""
    files: list[Path] = []
    for folder in folders:
        index = read_index(folder)  # without one the names decide
        names = [each["name"] for each in index["files"]] if index else [each.name for each in folder.glob("step-*")]
        files += [folder / name for name in names if re.fullmatch(r"step-\d+\.ckpt", name)]
    return sorted(files, key=lambda file: int(file.stem.removeprefix("step-")))


def latest_sound(files: Sequence[Path]) -> Path | None:
    """The last of these checkpoints that is as it was written; each that is not is named in a warning."""
    return None if (latest := _latest_sound(files)) is None else latest[0]


def _latest_sound(files: Sequence[Path]) -> tuple[Path, str | None] | None:
    for file in reversed(files):
        try:
            digest = verify(file)
        except CheckpointError as error:
            warn(error)
            continue
        if file != files[-1]:
            warn(f"{file} is taken instead")
        return file, digest
    return None


def read_index(folder: Path) -> dict[str, Any] | None:
    """What `index.json` says of the complete files of a folder, oldest first; None without one that can be read."""
    if not os.path.lexists(folder / INDEX):
        return None
    try:
        index: dict[str, Any] = read_json(folder / INDEX)
        if (wrong := _wrong_index(index)) is not None:
            raise UnreadableError(f"{harmless(folder / INDEX)} is damaged, {wrong}")
    except UnreadableError as error:
        warn(f"{error}: files are taken by name")
        return None
    return index


def _wrong_index(index: dict[str, Any]) -> str | None:
    if (wrong := wrong_field(index, _INDEX, ["files"])) is not None:
        return wrong
    faults = (wrong_field(entry, _ENTRY, _ENTRY) for entry in index["files"])
    return next((fault for fault in faults if fault is not None), None)


def verify(file: Path) -> str | None:
    """`CheckpointError` unless the file is as it was written, by its digest in the index, or else its own checksums.

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
                    raise CheckpointError(f"{shown} is damaged: its digest is not the one it was written with")
            check_archive(stream, whole=known is None)  # whoever wrote it wrote the index too
            return None if known is None else str(known["sha256"])
    except OSError as error:
        raise CheckpointError(f"{shown} cannot be read: {error.strerror or error}") from None
    except ForeignError as error:
        raise _foreign(file, error) from None


def _foreign(file: Path, error: ForeignError) -> CheckpointError:
    return CheckpointError(f"{harmless(file)} is {_kind(file) or f'no checkpoint of inkdrop: it {error}'}")


def _kind(file: Path) -> str | None:
    """What a file that is no checkpoint is, of what networks are often kept in."""
    with contextlib.suppress(Exception), open_regular(file) as stream:
        if stream.read(9)[8:] == b"{":
            return "a safetensors file: it holds weights alone, without the configuration of their model"
        with zipfile.ZipFile(stream) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "a TorchScript file: it holds a network alone, without the configuration of its model"
    return None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read from `file`, where `path` was asked for; `content` is in the present format."""

    path: str | Path
    file: Path
    content: dict[str, Any]
    known: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file, which is taken once."""
        if self.known is not None:
            return self.known
        with open_regular(self.file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()


def open_checkpoint(path: str | Path, option: str = "checkpoint") -> Checkpoint:
    """The checkpoint that `option` names: tensors and plain data, in the present version of the format.

    The file is verified first. `CheckpointError` if it is damaged, of a newer version, was not written by inkdrop, or
    holds numbers that are not finite.
    """
    file, digest = _located(path, option)
    if Path(path).is_file():  # a folder's has been verified
        digest = verify(file)
    return Checkpoint(path, file, read_verified(file), digest)


def read_checkpoint(path: str | Path, option: str = "checkpoint") -> dict[str, Any]:
    """The content of a checkpoint, as in `open_checkpoint`."""
    return open_checkpoint(path, option).content


def read_verified(file: Path) -> dict[str, Any]:
    """The content of a checkpoint file that was verified."""
    try:
        with open_regular(file) as stream:
            return migrated(load_torch(stream))
    except OSError as error:
        raise CheckpointError(f"{harmless(file)} cannot be read: {error.strerror or error}") from None
    except ForeignError as error:
        raise _foreign(file, error) from None
    except ValueError as error:
        raise CheckpointError(f"{harmless(file)} {error}") from None
