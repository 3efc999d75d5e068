"""Writing files: whole or not at all, and through no symbolic link."""

import ast
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from inkdrop.files import writing
from inkdrop.files.writing import (
    append_text,
    make_folder,
    open_plain,
    reason,
    refuse_links,
    remove_unfinished,
    replacing,
    shorten,
    sync_folder,
    write_text,
)

PACKAGE = Path(writing.__file__).parent


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    file = tmp_path / "record"
    write_text(file, "first ä\n")
    assert file.read_bytes() == "first ä\n".encode()

    def fails() -> None:
        with replacing(file) as stream:
            stream.write(b"half")
            assert file.read_text() == "first ä\n"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert [each.name for each in tmp_path.iterdir()] == ["record"]
    assert file.read_text() == "first ä\n"
    append_text(file, "second\n")
    shorten(file, 3)
    assert file.read_text() == "fir"


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "any").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "any").stat().st_mode


@pytest.mark.parametrize(
    "write",
    [
        lambda path: append_text(path, "x"),
        lambda path: shorten(path, 0),
        lambda path: open_plain(path, os.O_WRONLY | os.O_CREAT),
    ],
)
def test_no_link_is_written_through(tmp_path: Path, write: Callable[[Path], object]) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    with pytest.raises(OSError, match="link is a symbolic link, which is not followed"):
        write(link)
    assert target.read_text() == "precious"


def test_a_link_is_replaced_by_the_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    write_text(link, "new")
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("precious", "new", False)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    signal.alarm(20)
    try:
        for flags in (os.O_RDONLY, os.O_WRONLY):
            with pytest.raises(OSError, match=r"pipe is not a regular file|No such device"):
                open_plain(tmp_path / "pipe", flags)
    finally:
        signal.alarm(0)


def test_folders_are_made_but_not_where_a_link_is(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="link is a symbolic link"):
        make_folder(tmp_path / "link")
    refuse_links(tmp_path / "absent")
    refuse_links(tmp_path / "a")
    refuse_links(tmp_path / "link")  # which the user named
    with pytest.raises(OSError, match="link is a symbolic link"):
        refuse_links(tmp_path)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "config.yaml.0a1b2c3d.unfinished").touch()
    (tmp_path / "config.yaml").touch()
    remove_unfinished(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["config.yaml"]


def test_a_file_system_that_cannot_sync_folders_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(code: int) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        return fsync

    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_the_reason_is_told_in_a_few_words() -> None:
    assert reason(OSError(errno.ENOSPC, "No space left on device", "file")) == "No space left on device"
    assert reason(OSError("odd")) == "odd"


WRITERS = {"write_text", "write_bytes", "savefig", "save", "savez", "savez_compressed", "save_file", "dump"}
STREAMS = {"file", "stream", "digest"}  # what they are given here: an open file


def test_nothing_else_in_the_package_writes_by_name() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for node in calls if path.name != "writing.py" else []:
            on, called = ast.unparse(node.func).rpartition(".")[::2]
            arguments = {ast.unparse(each) for each in node.args}
            opens = called == "open" and any(_mode(each)[:1] in "wax" for each in node.args if _mode(each))
            writes = on and called in WRITERS and on not in ("self.files", "logger") and not STREAMS & arguments
            if opens or writes:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert not found


def _mode(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
