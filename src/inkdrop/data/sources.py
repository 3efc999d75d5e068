"""Sources of image files: a folder, or a zip archive that is read in place and never unpacked."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from inkdrop.data.archives import MAX_FILE_BYTES, checked_members, shown
from inkdrop.data.classes import in_order
from inkdrop.data.findings import ABOVE, BESIDE, HIDDEN, NO_IMAGE
from inkdrop.errors import DataError
from inkdrop.files.locations import data_dir

SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_BESIDE = (  # files that are usual next to images: texts, tables, metadata of cameras and desktops
    *(".txt", ".md", ".rst", ".html", ".htm", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml"),
    *(".log", ".md5", ".sha256", ".aae", ".xmp", ".ini", ".url", ".py", "thumbs.db", "readme", "license", "licence"),
)


class Refused(ValueError):
    """A file is not a valid image; the message is the reason."""


@dataclass
class Listing:
    """Files by path within the root, with "/" between folders, in the order of their bytes; none has been opened.

    `odd` files are unexpected and are treated like broken images; `skipped` files are left out. Both have reasons.
    """

    files: list[str] = field(default_factory=list)
    odd: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


class Source(ABC):
    """Image files below a root."""

    def __init__(self, root: Path):
        self.root = root

    @abstractmethod
    def folders(self) -> list[str]:
        """Returns the folders directly below the root, in the order of their bytes."""

    @abstractmethod
    def files(self) -> list[str]:
        """Returns the files directly below the root that are not hidden, in the order of their bytes."""

    @abstractmethod
    def within(self, folder: str) -> Source:
        """Returns the source of the files below one of the folders."""

    @abstractmethod
    def listing(self) -> Listing:
        """Returns all files below the root. Hidden files and files without the name of an image are skipped."""

    def path(self, name: str) -> str:
        """Returns the path of a file, for a message."""
        return shown(str(self.root / name))

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Returns the content of a file; raises `Refused` if it cannot be read."""

    def check_sha256(self, expected: str) -> None:
        """Raises `DataError` unless the root is an archive with this SHA-256."""
        if self.root.is_dir():
            raise DataError(f"{self.root} is a folder, and only an archive has a SHA-256: leave data.sha256 out")
        with self.root.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected.lower():
            raise DataError(f"{self.root} has the SHA-256 {actual}, not {expected}: download it again")


def open_source(path: str, allow_links: bool = False) -> Source:
    """Opens a folder, a .zip file, or a folder within one (`images.zip/train`).

    The path is looked up in the working directory and then in `INKDROP_DATA_DIR`. Raises `DataError` if it is in
    neither place.
    """
    for root in (Path(path), data_dir() / path):
        if root.is_dir():
            return Folder(root, allow_links)
        if archive := next((each for each in (root, *root.parents) if each.is_file()), None):
            return Zip(archive, root.relative_to(archive).parts)
    raise DataError(
        f"{path} is neither in the working directory nor in {data_dir()}: set data.path to a folder or .zip file of "
        "images, or INKDROP_DATA_DIR to the folder that holds it"
    )


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def image_by_name(name: str) -> bool:
    """Returns whether the name of a file is that of an image."""
    return name.lower().endswith(SUFFIXES)


def _why_skipped(name: str) -> str | None:
    """The reason why a file of this name is not opened; None for an image."""
    if _hidden(name):
        return HIDDEN
    if image_by_name(name):
        return None
    return BESIDE if name.rpartition("/")[2].lower().endswith(_BESIDE) else NO_IMAGE


class Folder(Source):
    """Files below a folder. Links that leave the folder are odd unless `allow_links`."""

    def __init__(self, root: Path, allow_links: bool = False):
        super().__init__(root)
        self.allow_links = allow_links

    def folders(self) -> list[str]:
        return in_order(each.name for each in self._entries() if each.is_dir() and not image_by_name(each.name))

    def files(self) -> list[str]:
        return in_order(each.name for each in self._entries() if each.is_file())

    def _entries(self) -> list[os.DirEntry[str]]:
        """The entries directly below the root, without hidden ones and links that leave it."""
        try:
            with os.scandir(self.root) as entries:
                visible = [each for each in entries if not _hidden(each.name)]
        except OSError as error:
            raise DataError(f"{shown(str(self.root))} cannot be read: {error.strerror}") from None
        return [each for each in visible if not each.is_symlink() or self._may_follow(os.path.realpath(each.path))]

    def within(self, folder: str) -> Folder:
        return Folder(self.root / folder, self.allow_links)

    def listing(self) -> Listing:
        found = Listing()
        self._walk("", {os.path.realpath(self.root)}, found)
        found.files = in_order(found.files)
        return found

    def _walk(self, folder: str, entered: set[str], found: Listing) -> None:
        try:
            with os.scandir(self.root / folder) as opened:
                entries = {entry.name: entry for entry in opened}
        except OSError as error:
            found.odd[folder] = error.strerror or str(error)
            return
        for base in in_order(entries):
            entry, name = entries[base], f"{folder}{base}"
            link, below = entry.is_symlink(), entry.is_dir()
            real = os.path.realpath(entry.path) if link or below else entry.path
            if _hidden(base):
                found.skipped[name] = HIDDEN
            elif link and not os.path.exists(real):
                found.skipped[name] = "link to nothing"
            elif link and not self._may_follow(real):
                found.odd[name] = "link that leaves the folder: set data.allow_links=true to follow it"
            elif below and image_by_name(base):
                found.skipped[name] = "folder named like an image"
            elif below and real in entered:
                found.skipped[name] = ABOVE
            elif below:
                self._walk(f"{name}/", entered | {real}, found)
            elif not entry.is_file():
                found.odd[name] = "neither a file nor a folder"
            elif (reason := _why_skipped(base)) is not None:
                found.skipped[name] = reason
            else:
                found.files.append(name)

    def _may_follow(self, real: str) -> bool:
        return self.allow_links or Path(real).is_relative_to(os.path.realpath(self.root))

    def read(self, name: str) -> bytes:
        try:
            # A pipe in the place of the file must not block.
            descriptor = os.open(self.root / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise Refused("neither a file nor a folder")
                if status.st_size > MAX_FILE_BYTES:
                    raise Refused(f"the file has {status.st_size} bytes, more than {MAX_FILE_BYTES}")
                return file.read()
        except OSError as error:
            raise Refused(error.strerror or str(error)) from None


class Zip(Source):
    """Members of a zip archive below a folder within it. All members are checked before one is read.

    Raises `DataError` as `checked_members` does.
    """

    def __init__(self, root: Path, within: tuple[str, ...] = ()):
        super().__init__(root)
        self.prefix = "".join(f"{part}/" for part in within)
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    @cached_property
    def _members(self) -> list[str]:
        """The files below the prefix, by their path from there."""
        members = checked_members(self.root)
        names = [each.filename for each in members if not each.is_dir() and each.filename.startswith(self.prefix)]
        return [name.removeprefix(self.prefix) for name in names]

    def folders(self) -> list[str]:
        first = {name.split("/")[0] for name in self._members if "/" in name}
        return in_order(name for name in first if not _hidden(name))

    def files(self) -> list[str]:
        return in_order(name for name in self._members if "/" not in name and not _hidden(name))

    def within(self, folder: str) -> Zip:
        inner, start = Zip(self.root, (*self.prefix.split("/")[:-1], folder)), f"{folder}/"
        inner._members = [name.removeprefix(start) for name in self._members if name.startswith(start)]
        return inner

    def listing(self) -> Listing:
        found = Listing()
        for name in in_order(self._members):
            if (reason := _why_skipped(name)) is not None:
                found.skipped[name] = reason
            else:
                found.files.append(name)
        return found

    def path(self, name: str) -> str:
        return super().path(self.prefix + name)

    def read(self, name: str) -> bytes:
        try:
            if self._opened is None or self._opened[0] != os.getpid():  # processes would share one position in the file
                self._opened = os.getpid(), zipfile.ZipFile(self.root)
            return self._opened[1].read(self.prefix + name)
        except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, zlib.error) as error:
            raise Refused(str(error)) from None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}
