"""Writes files: each completely or not at all, and never through a symbolic link.

This module imports only the standard library, so that commands can write before torch is imported.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from inkdrop.errors import RefusedError, WriteError

UNFINISHED = ".unfinished"
# Errors of file systems that cannot sync a file or a folder; they are ignored, as nothing can be done about them.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}


# Errors of the disk that the user has to fix, whichever library writes.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Adds the name of this file to an `OSError` within the block, as a `WriteError`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` when the block ends without an error, and is removed otherwise.

    It is written next to its destination, synced, and renamed. A symbolic link at `path` is replaced, not followed.
    Raises `OSError` as for any file.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    with _named(path):
        stream = open_plain(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with stream:
                yield stream
                stream.flush()
                _sync(stream.fileno())
            unfinished.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Replaces the file at `path` by one with this content, as `replacing` does."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Replaces the file at `path` by one with this text in UTF-8, as `replacing` does."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def append_text(path: str | Path, text: str) -> None:
    """Appends text in UTF-8 to a file, which is created if missing; raises `OSError` unless it is a regular file."""
    with _named(path), open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))


def shorten(path: str | Path, size: int) -> None:
    """Cuts a file to its first `size` bytes; raises `OSError` unless it is a regular file."""
    with _named(path), open_plain(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), size)


def open_plain(path: str | Path, flags: int) -> BinaryIO:
    """Opens a regular file with flags of `os.open`, for reading or writing, and never waits for a pipe.

    Raises `OSError` for a symbolic link or another kind of file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(path, "is a symbolic link, which is not followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path, "is not a regular file")
    return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "wb")


def make_folder(path: str | Path) -> None:
    """Creates a folder and its parents unless they exist; raises `OSError` if the folder is a symbolic link."""
    path = Path(path)
    with _named(path):
        path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise _refused(path, "is a symbolic link, which is not followed: name the folder it points to")


def refuse_links(folder: str | Path) -> None:
    """Raises `OSError` if an entry of a folder that is written to is a symbolic link.

    The user chooses the folder itself and its parents, but its content may come from somebody else.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.is_symlink():
                raise _refused(
                    entry.path, "is a symbolic link, which is not followed: remove it, or choose a new output_dir"
                )


def remove_unfinished(folder: str | Path) -> None:
    """Removes the unfinished files of killed processes from a folder that no other process writes to."""
    for file in Path(folder).glob(f"*{UNFINISHED}"):
        file.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Syncs the names in a folder to the disk, if the file system supports that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def reason(error: OSError) -> str:
    """Returns a short text on the error of a file."""
    return str(error) if isinstance(error, RefusedError) else error.strerror or str(error)


def _refused(path: str | Path, why: str) -> RefusedError:
    return RefusedError(errno.ELOOP, why, str(path))
