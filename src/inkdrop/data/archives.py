"""Zip archives of image files: all members are checked before one is read."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from inkdrop.errors import DataError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
MAX_FILE_BYTES = 2**28  # of one image file
MAX_MEMBERS, MAX_BYTES, MAX_RATIO = 2 * 10**7, 2**42, 100  # of one archive: members, bytes unpacked, bytes per byte
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def shown(name: str) -> str:
    """A file's name for a message: line breaks and bytes that are no text are escaped."""
    return name if name.isprintable() else repr(name)


def checked_members(root: Path) -> list[zipfile.ZipInfo]:
    """All members of a zip archive.

    `DataError` if the archive is damaged, or if a member is no plain file with a path of its own inside the archive, is
    encrypted, an archive itself, or unpacks to more than the limits above.
    """
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(
            f"{root} cannot be read as a .zip file: {error}. Other archives are not read in place: unpack "
            "it into a folder of its own, and give that"
        ) from None
    with archive:
        members = archive.infolist()
    _check_members(root, members)
    return members


def _check_members(root: Path, members: list[zipfile.ZipInfo]) -> None:
    def refuse(member: zipfile.ZipInfo, reason: str) -> None:
        raise DataError(f"{root} is refused: its member {shown(member.orig_filename)} {reason}")

    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > min(MAX_BYTES, MAX_RATIO * root.stat().st_size):
        raise DataError(f"{root} is refused: {len(members)} members of {total} bytes from {root.stat().st_size} bytes")
    spelled: dict[str, str] = {}  # without case -> as written, for members and the folders above them
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        if reason := _why_refused(member):
            refuse(member, reason)
        path = PurePosixPath(member.filename)
        above = [str(each) for each in path.parents][:-1]
        for each in (str(path), *above):
            if (other := spelled.setdefault(each.casefold(), each)) != each:
                refuse(member, f"differs from {shown(other)} in case only")
        if str(path) in files:
            refuse(member, "is there twice")
        folders.update(above)
        (folders if member.is_dir() else files).add(str(path))
    if both := files & folders:
        raise DataError(f"{root} is refused: its member {shown(min(both))} is both a file and a folder")


def _why_refused(member: zipfile.ZipInfo) -> str | None:
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    parts = set(name.removesuffix("/").split("/"))
    if PureWindowsPath(name).anchor or "\\" in name or "\0" in member.orig_filename or {"", ".", ".."} & parts:
        return "is no plain path inside the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if member.flag_bits & 1 or member.compress_type not in _METHODS:
        return "is encrypted or packed by an unknown method"
    if member.file_size > MAX_FILE_BYTES:
        return f"unpacks to {member.file_size} bytes, more than {MAX_FILE_BYTES}"
    return "is an archive itself" if name.lower().endswith(ARCHIVES) else None
