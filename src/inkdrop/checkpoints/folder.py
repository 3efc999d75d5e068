"""Writes checkpoints: each to its own file, which is complete before it gets its name, and an index of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import torch
from annotated_types import Ge

from inkdrop.checkpoints.content import Content, not_finite, num_bytes, snapshot
from inkdrop.checkpoints.files import INDEX, read_index
from inkdrop.errors import CheckpointError, NonFiniteError
from inkdrop.files.writing import make_folder, remove_unfinished, replacing, write_text


class CheckpointFolder:
    """A folder of immutable files `step-XXXXXXXX.ckpt`, and `index.json` with size, digest and metrics of each.

    A file is written next to its destination and synced before it is renamed. Then the index is replaced in the same
    way, and only then are older files removed, so that the index always names complete files only. Writing runs in a
    thread next to training; the next `save` or `wait` raises its error. The index names the run that is the `owner`,
    and in the folder of another run nothing is written or removed.

    - `path`: the folder.
    - `keep`: number of the newest checkpoints that are kept (None: all).
    - `keep_every`: checkpoints whose step is a multiple of it are kept too.
    - `best`: metric by which further checkpoints are kept, lowest first, or highest first if written as "-NAME".
    - `keep_best`: number of checkpoints kept by `best`.
    """

    def __init__(
        self,
        path: str | Path,
        keep: Annotated[int, Ge(1)] | None = 2,
        keep_every: Annotated[int, Ge(1)] | None = None,
        best: str | None = None,
        keep_best: Annotated[int, Ge(1)] = 1,
    ):
        self.path, self.keep, self.keep_every, self.best, self.keep_best = Path(path), keep, keep_every, best, keep_best
        self.owner: str | None = None
        self._made = False
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, content: Content, step: int) -> None:
        """Copies the content and writes the copy in the background, after the previous file is complete.

        Raises `CheckpointError` if the disk has no room, if the content is neither tensors nor plain data, if the
        previous file could not be written, or if the folder belongs to another run.
        """
        self.wait()
        self._known()
        if self._made and not self.path.is_dir():
            raise CheckpointError(f"{self.path} was removed during the run: no checkpoint can be written there")
        try:
            make_folder(self.path)
            self._made = True
            needed, free = num_bytes(content) + 2**20, shutil.disk_usage(self.path).free
        except OSError as error:
            raise self._failure(error) from None
        except ValueError as error:
            raise CheckpointError(f"no checkpoint was written: it {error}") from None
        if needed > free:
            raise CheckpointError(f"no room for a checkpoint in {self.path}: {needed:,} bytes needed, {free:,} free")
        self._thread = threading.Thread(target=self._write, args=(snapshot(content), step), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything is on the disk, or raises the error of the thread."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def cut(self, step: int) -> None:
        """Removes the files after this step, which a resumed run writes again.

        Raises `CheckpointError` if there are files up to this step but no index, or if the folder belongs to another
        run.
        """
        known = self._known()
        if known is not None:
            self._replace_index(known, [each for each in known["files"] if each["step"] <= step])
        elif any(file.name <= _name(step) for file in self.path.glob("step-*.ckpt")):
            raise CheckpointError(f"{self.path / INDEX} is missing or damaged: restore it, or move {self.path} away")

    def _known(self) -> dict[str, Any] | None:
        """Returns the index, or None without one; raises `CheckpointError` if it belongs to another run."""
        known = read_index(self.path)
        if known is not None and known.get("owner") not in (None, self.owner):
            raise CheckpointError(f"{self.path} belongs to run {known['owner']}: choose another folder for this run")
        return known

    def _write(self, content: Content, step: int) -> None:
        try:
            if (wrong := not_finite(content)) is not None:
                raise NonFiniteError(f"step {step}: no checkpoint was written, because {wrong} is not finite")
            file = self.path / _name(step)
            with replacing(file) as stream:
                digest = _Digest(stream)
                torch.save(content, digest)  # type: ignore[arg-type]
            entry = {"name": file.name, "step": step, "bytes": digest.size, "sha256": digest.hexdigest()}
            self._register({**entry, "metrics": content.get("metrics", {})})
        except Exception as error:
            # torch's writer hides the error of the disk behind its own.
            reason = next((each for each in (error, error.__context__) if isinstance(each, OSError)), None)
            self._error = error if reason is None else self._failure(reason)

    def _failure(self, reason: OSError) -> CheckpointError:
        return CheckpointError(f"a checkpoint could not be written to {self.path}: {reason}")

    def _register(self, entry: dict[str, Any]) -> None:
        """Adds the new file to the index, and then removes the files that are no longer in it."""
        known = self._known()
        files = [each for each in (known or {"files": []})["files"] if each["step"] < entry["step"]] + [entry]
        self._replace_index(known, self._kept(files))

    def _replace_index(self, known: dict[str, Any] | None, kept: list[dict[str, Any]]) -> None:
        """Replaces the index by one of these files; if there was an index before, all other files are removed."""
        owned = {} if self.owner is None else {"owner": self.owner}
        write_text(self.path / INDEX, json.dumps({**owned, **(known or {}), "files": kept}, indent=1))
        remove_unfinished(self.path)
        names = {each["name"] for each in kept}
        for file in self.path.glob("step-*.*"):
            if file.name not in names and known is not None:  # without an index the other files are unknown
                file.unlink()

    def file_of(self, kind: str) -> Path | None:
        """Returns the file of the `best` or the `last` checkpoint, or None without one."""
        files = (self._known() or {"files": []})["files"]
        chosen = self._ranked(files)[:1] if kind == "best" else files[-1:]
        return self.path / chosen[0]["name"] if chosen else None

    def _ranked(self, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the files whose metric is known, best first."""
        metric = (self.best or "").removeprefix("-")
        sign = -1 if (self.best or "").startswith("-") else 1
        known = (each for each in files if metric in each["metrics"])
        return sorted(known, key=lambda each: sign * each["metrics"][metric])

    def _kept(self, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        newest = {each["step"] for each in (files[-self.keep :] if self.keep else files)}
        best = {each["step"] for each in self._ranked(files)[: self.keep_best]}
        every = {each["step"] for each in files if self.keep_every and each["step"] % self.keep_every == 0}
        return [each for each in files if each["step"] in newest | best | every]


def _name(step: int) -> str:
    return f"step-{step:08d}.ckpt"


class _Digest:
    """A file object that hashes what is written."""

    def __init__(self, stream: BinaryIO):
        self._stream, self.size = stream, 0
        self._hash = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
