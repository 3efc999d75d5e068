"""Ownership of folders: a run marks the folders that it writes to, and refuses those of another run.

A run folder has `run.json` with the name of the run. A folder elsewhere that the run writes to, such as one for
checkpoints on another disk, names its owner in its `index.json`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from inkdrop.checkpoints.files import (
    INDEX,
    KINDS,
    RECORD,
    complete,
    folder_of,
    latest_intact,
    read_index,
    read_record,
    read_verified,
)
from inkdrop.distributed.processes import is_first
from inkdrop.errors import CheckpointError, ConfigurationError
from inkdrop.files.writing import make_folder, open_plain, reason, refuse_links, remove_unfinished, write_text

LOCK = "lock"


class Owner(NamedTuple):
    """A run, and its folder if that is known."""

    run_id: str
    run: Path | None

    def __str__(self) -> str:
        return f"run {self.run_id}" + (f" in {self.run}" if self.run else "")


def new_run_id() -> str:
    """Returns a drawn name of a run: a letter and seven hexadecimal digits, which no reader takes for a number."""
    return secrets.choice("abcdf") + secrets.token_hex(4)[1:]  # 12345678 and 5571e376 are numbers in YAML


def run_id_of(run: Path) -> str | None:
    """Returns the name of the run in a folder from its record or else its checkpoints, or None without a name."""
    return read_record(run).get("run_id") or (read_index(run / "checkpoints") or {}).get("owner")


def is_run(folder: Path) -> bool:
    """Returns whether a run was started in this folder."""
    return (folder / RECORD).exists() or all((folder / name).exists() for name in ("config.yaml", "metrics.jsonl"))


def owner(folder: Path) -> Owner | None:
    """Returns the run that owns a folder, from its index, a run folder around it, or its newest checkpoint."""
    index = read_index(folder) or {}
    if "owner" in index:
        return Owner(index["owner"], Path(index["run"]) if "run" in index else None)
    if around := next((each for each in folder.parents if is_run(each)), None):
        return Owner(run_id_of(around) or "without a name", around)
    if (latest := latest_intact(complete([folder]))) is not None:  # written by a version without owners
        return Owner(read_verified(latest)["config"].get("run_id") or "without a name", None)
    return None


def outside(run: Path, config: Mapping[str, Any]) -> dict[str, Path]:
    """Returns by option the folders outside its run folder that a run writes to and does not share."""
    folders = {option: Path(folder).resolve() for option, folder in _folders(config).items()}
    return {option: folder for option, folder in folders.items() if not folder.is_relative_to(run.resolve())}


def _folders(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns by option the folders in a configuration that only one run may write to."""
    options = [(group, name) for group in ("callbacks", "logger") for name in config.get(group) or {}]
    named = {(group, name): folder_of(config, group, name) for group, name in options}
    return {f"{g}.{name}.folder": each for (g, name), each in named.items() if each and _is_exclusive(config[g][name])}


def _is_exclusive(part: Mapping[str, Any]) -> bool:
    """Returns whether a part needs its folder for itself; W&B makes a folder for each run in it."""
    module, _, name = str(part.get("_target_", "")).rpartition(".")
    return not module or not getattr(getattr(importlib.import_module(module), name), "shares_folder", False)


def refuse_shared(config: DictConfig) -> None:
    """Raises `ConfigurationError` for a folder that all trials of a sweep would share although each needs its own."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    for option, folder in _folders(raw).items():
        if "${" not in folder:
            raise ConfigurationError(
                f"{option}={folder} would be shared by all trials of the sweep: give each trial its own, such as "
                f"'{option}={folder}/${{output_dir}}'"
            )


def refuse_foreign(run: Path, config: Mapping[str, Any]) -> None:
    """Raises `ConfigurationError` if a folder that a run writes to belongs to another run, or may belong to one."""
    own = run_id_of(run)
    begun = own is not None or is_run(run) or bool(complete([run / "checkpoints"]))
    if not begun and (found := _owner_within(run)):
        raise ConfigurationError(f"output_dir={run} belongs to {found}: choose another folder")
    if own and config.get("run_id") not in (None, own):
        raise ConfigurationError(
            f"output_dir={run} contains run {own}: remove run_id={config['run_id']}, or choose another folder"
        )
    inner = (read_index(run / "checkpoints") or {}).get("owner")
    if inner not in (None, own):
        raise ConfigurationError(
            f"{run / 'checkpoints'} belongs to run {inner}, but {run} contains run {own}: choose another output_dir"
        )
    for option, folder in outside(run, config).items():
        found = owner(folder)
        if found is None and not begun and folder.exists() and {*os.listdir(folder)} - {LOCK}:
            raise ConfigurationError(f"{option}={folder} is not empty: choose a new folder for this run")
        if found is not None and (not begun or found.run_id != own or _is_copied(found, run)):
            raise ConfigurationError(
                f"{option}={folder} belongs to {found}, and its files would be lost: choose a new folder, or one in "
                "${output_dir}"
            )


def _owner_within(folder: Path) -> Owner | None:
    """Returns the owner of checkpoints directly in a folder that is not a run folder, or None without checkpoints."""
    index = read_index(folder) or {}
    return owner(folder) if "owner" in index or complete([folder]) else None


def _is_copied(found: Owner, run: Path) -> bool:
    """Returns whether the owner is another existing run folder with the same run name, as after a copy."""
    return found.run is not None and found.run.resolve() != run.resolve() and run_id_of(found.run) == found.run_id


def claim(run: Path, run_id: str, config: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    """Records the owner of the run folder and of the folders elsewhere; `shown` is the configuration without secrets.

    Raises `OSError` if the records cannot be written.
    """
    before = read_record(run)
    record: dict[str, Any] = {"run_id": run_id, "config": dict(shown)}
    for kind, callback in KINDS.items():
        folder = folder_of(config, "callbacks", callback)
        known = [*before.get(kind, []), *([str(_relative(Path(folder), run))] if folder else [])]
        record[kind] = list(dict.fromkeys(known))
    write_text(run / RECORD, json.dumps(record, indent=1) + "\n")
    for place in outside(run, config).values():
        make_folder(place)
        index = read_index(place)
        if index is not None or not complete([place]):  # an empty index would hide the files
            mark = {**(index or {"files": []}), "owner": run_id, "run": str(run.resolve())}
            write_text(place / INDEX, json.dumps(mark, indent=1))


def _relative(folder: Path, run: Path) -> Path:
    """Returns a folder relative to the run folder if it is inside, so that the run folder can be moved."""
    folder, run = folder.resolve(), run.resolve()
    return folder.relative_to(run) if folder.is_relative_to(run) else folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder within the block; raises `CheckpointError` if another process has locked it or it is read-only."""
    if not is_first():  # the first process holds the lock for all
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links(folder)
        lock = open_plain(folder / LOCK, os.O_WRONLY | os.O_CREAT)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written to: {reason(error)}") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"another process writes to {folder}: wait for it, or choose a new folder") from None
        except OSError as error:  # Lustre, for example, has no locks unless it is mounted with them
            print(f"warning: {folder} cannot be locked ({reason(error)}): start no second run in it", file=sys.stderr)
        for place in _own_folders(folder):
            remove_unfinished(place)
        yield


def _own_folders(folder: Path) -> Iterator[Path]:
    """Yields a folder and its subfolders, except those that another run has locked."""
    yield folder
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink() and not (each / LOCK).exists():
            yield from _own_folders(each)
