"""Writing files: each whole or not at all, and none through a symbolic link.

Imports the standard library only, so that commands can write before torch is imported.
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
# What file systems answer that cannot sync a file or a folder: there is nothing to be done about it.
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}


# What the disk answers, whoever writes to it, when the user has to do something.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EFBIG}


@contextlib.contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """What the disk says within the block is told of this file."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from None


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends without an error, and leaves nothing otherwise.

    It is written beside its destination, synced, and renamed. A symbolic link at `path` is replaced, and not followed.
    `OSError` as for any file.
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
    """Puts a file with this content in the place of `path`, as `replacing` does."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Puts a file with this text, in UTF-8, in the place of `path`, as `replacing` does."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def append_text(path: str | Path, text: str) -> None:
    """Adds text, in UTF-8, to a file, which is made if it is absent; `OSError` for a link or another kind of file."""
    with _named(path), open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))


def shorten(path: str | Path, size: int) -> None:
    """Cuts a file to its first `size` bytes; `OSError` for a link or another kind of file."""
    with _named(path), open_plain(path, os.O_WRONLY) as stream:
        os.ftruncate(stream.fileno(), size)


def open_plain(path: str | Path, flags: int) -> BinaryIO:
    """A regular file opened with flags of `os.open`, for reading or writing; `OSError` for a link or another kind.

    A pipe in its place is not waited for.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _refused(path, "is a symbolic link, which is not followed") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path, "is no regular file")
    return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "wb")


def make_folder(path: str | Path) -> None:
    """Makes a folder, and those above it, unless it is there; `OSError` if a symbolic link is in its place."""
    path = Path(path)
    with _named(path):
        path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise _refused(path, "is a symbolic link, which is not followed: name the folder it points to")


def refuse_links(folder: str | Path) -> None:
    """`OSError` if something directly in a folder that is written to is a symbolic link.

    The folder itself and those above it are the user's to choose; what lies in it may come from somebody else.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda each: each.name):
            if entry.is_symlink():
                raise _refused(
                    entry.path, "is a symbolic link, which is not followed: remove it, or choose a new output_dir"
                )


def remove_unfinished(folder: str | Path) -> None:
    """Removes what processes that were killed have left of `replacing`, in a folder that nobody else writes to."""
    for file in Path(folder).glob(f"*{UNFINISHED}"):
        file.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """The names in a folder onto the disk, where the file system can do that."""
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
    """What went wrong with a file, in a few words."""
    return str(error) if isinstance(error, RefusedError) else error.strerror or str(error)


def _refused(path: str | Path, why: str) -> RefusedError:
    return RefusedError(errno.ELOOP, why, str(path))
