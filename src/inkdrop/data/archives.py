"""Zip archives of image files: all members are checked before one is read."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from inkdrop.errors import DataError

ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
MAX_FILE_BYTES = 2**28  # of one image file
MAX_MEMBERS, MAX_BYTES, MAX_RATIO = 2 * 10**7, 2**42, 100  # of one archive: members, unpacked bytes, their ratio
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def shown(name: str) -> str:
    """Returns a file's name for a message, with line breaks and bytes that are not text escaped."""
    return name if name.isprintable() else repr(name)


def checked_members(root: Path) -> list[zipfile.ZipInfo]:
    """Returns all members of a zip archive, after it has checked them.

    Raises `DataError` if the archive is damaged, or if a member is not a plain file with its own path inside the
    archive, is encrypted, is itself an archive, or unpacks to more than the limits above.
    """
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(
            f"{root} cannot be read as a .zip file: {error}. Other archives are not read in place: unpack "
            "it into its own folder, and name that folder"
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
        raise DataError(
            f"{root} is refused: its {len(members)} members unpack to {total} bytes from {root.stat().st_size} bytes, "
            "beyond the limits of an archive: unpack it into its own folder if you trust it, and name that folder"
        )
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
                refuse(member, f"differs from {shown(other)} only in case")
        if str(path) in files:
            refuse(member, "occurs twice")
        folders.update(above)
        (folders if member.is_dir() else files).add(str(path))
    if both := files & folders:
        raise DataError(f"{root} is refused: its member {shown(min(both))} is both a file and a folder")


def _why_refused(member: zipfile.ZipInfo) -> str | None:
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    parts = set(name.removesuffix("/").split("/"))
    if PureWindowsPath(name).anchor or "\\" in name or "\0" in member.orig_filename or {"", ".", ".."} & parts:
        return "is not a plain path inside the archive"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if member.flag_bits & 1 or member.compress_type not in _METHODS:
        return "is encrypted or compressed by an unknown method"
    if member.file_size > MAX_FILE_BYTES:
        return f"unpacks to {member.file_size} bytes, more than {MAX_FILE_BYTES}"
    return "is itself an archive" if name.lower().endswith(ARCHIVES) else None
