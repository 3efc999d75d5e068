"""Writing checkpoints: each in a file of its own that is complete before it gets its name, and an index of them."""

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
    """Immutable files `step-XXXXXXXX.ckpt`, and `index.json` with size, digest and metrics of each complete one.

    A file is written beside its destination and synced before it is renamed; then the index is replaced in the same
    way, and only then are older files removed: at every instant the index names complete files only. The newest `keep`
    (None: all) stay, those whose step is a multiple of `keep_every`, and the `keep_best` with the lowest value of the
    metric `best` (or the highest, if it is written as "-NAME").

    The index names the run that is the `owner`, and in the folder of another nothing is written or removed.

    Writing goes on in a thread while training does; an error in it is raised by the next `save` or `wait`.
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
        """Copies the content and writes the copy in the background, after the file before it.

        `CheckpointError` if there is no room for it, if it holds what is neither tensor nor plain data, if the last one
        could not be written, or if the folder belongs to another run.
        """
        self.wait()
        self._known()
        if self._made and not self.path.is_dir():
            raise CheckpointError(f"{self.path} was removed while the run went on: nothing more can be kept there")
        try:
            make_folder(self.path)
            self._made = True
            needed, free = num_bytes(content) + 2**20, shutil.disk_usage(self.path).free
        except OSError as error:
            raise self._failure(error) from None
        except ValueError as error:
            raise CheckpointError(f"no checkpoint was written: it {error}") from None
        if needed > free:
            raise CheckpointError(f"no room for a checkpoint in {self.path}: {needed:,} bytes, {free:,} are free")
        self._thread = threading.Thread(target=self._write, args=(snapshot(content), step), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when everything is on the disk; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def cut(self, step: int) -> None:
        """Removes the files after this step, which a run that goes on from there writes again.

        `CheckpointError` if there are older ones, but no index to tell which, or if the folder belongs to another run.
        """
        known = self._known()
        if known is not None:
            self._replace_index(known, [each for each in known["files"] if each["step"] <= step])
        elif any(file.name <= _name(step) for file in self.path.glob("step-*.ckpt")):
            raise CheckpointError(f"{self.path / INDEX} is absent or damaged: put it back, or move {self.path} away")

    def _known(self) -> dict[str, Any] | None:
        """The index, if there is one; `CheckpointError` if it is another run's."""
        known = read_index(self.path)
        if known is not None and known.get("owner") not in (None, self.owner):
            raise CheckpointError(f"{self.path} belongs to run {known['owner']}: another run writes to another folder")
        return known

    def _write(self, content: Content, step: int) -> None:
        try:
            if (wrong := not_finite(content)) is not None:
                raise NonFiniteError(f"step {step}: no checkpoint was written, as {wrong} is not finite")
            file = self.path / _name(step)
            with replacing(file) as stream:
                digest = _Digest(stream)
                torch.save(content, digest)  # type: ignore[arg-type]
            entry = {"name": file.name, "step": step, "bytes": digest.size, "sha256": digest.hexdigest()}
            self._register({**entry, "metrics": content.get("metrics", {})})
        except Exception as error:
            # torch's writer hides what the disk said behind an error of its own.
            reason = next((each for each in (error, error.__context__) if isinstance(each, OSError)), None)
            self._error = error if reason is None else self._failure(reason)

    def _failure(self, reason: OSError) -> CheckpointError:
        return CheckpointError(f"a checkpoint could not be written to {self.path}: {reason}")

    def _register(self, entry: dict[str, Any]) -> None:
        """The new file into the index, and then out of the folder what is no longer in it."""
        known = self._known()
        files = [each for each in (known or {"files": []})["files"] if each["step"] < entry["step"]] + [entry]
        self._replace_index(known, self._kept(files))

    def _replace_index(self, known: dict[str, Any] | None, kept: list[dict[str, Any]]) -> None:
        """An index of these files in the place of the one before it; if there was one, the others are removed."""
        owned = {} if self.owner is None else {"owner": self.owner}
        write_text(self.path / INDEX, json.dumps({**owned, **(known or {}), "files": kept}, indent=1))
        remove_unfinished(self.path)
        names = {each["name"] for each in kept}
        for file in self.path.glob("step-*.*"):
            if file.name not in names and known is not None:  # without an index nobody knows what the other files are
                file.unlink()

    def _kept(self, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        newest = {each["step"] for each in (files[-self.keep :] if self.keep else files)}
        metric = (self.best or "").removeprefix("-")
        sign = -1 if (self.best or "").startswith("-") else 1
        ranked = sorted(
            (each for each in files if metric in each["metrics"]), key=lambda e: sign * e["metrics"][metric]
        )
        best = {each["step"] for each in ranked[: self.keep_best]}
        every = {each["step"] for each in files if self.keep_every and each["step"] % self.keep_every == 0}
        return [each for each in files if each["step"] in newest | best | every]


def _name(step: int) -> str:
    return f"step-{step:08d}.ckpt"


class _Digest:
    """A file that is hashed while it is written."""

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
