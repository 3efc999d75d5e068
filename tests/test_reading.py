"""One reader for each format: limits of size, depth and kind, and nothing that is waited for."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from inkdrop.errors import UnreadableError
from inkdrop.files import MAX_DEPTH, as_yaml, read_bytes, read_json, read_json_lines, read_yaml


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    signal.alarm(20)
    yield
    signal.alarm(0)


def text(content: str | bytes) -> Callable[[Path], Any]:
    return lambda file: file.write_bytes(content.encode() if isinstance(content, str) else content)


PLACES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absent": (lambda file: None, "No such file"),
    "pipe": (os.mkfifo, "it is not a regular file"),
    "folder": (Path.mkdir, "it is not a regular file"),
    "endless": (lambda file: file.symlink_to("/dev/zero"), "it is not a regular file"),
    "link to nothing": (lambda file: file.symlink_to("nowhere"), "No such file"),
    "link to itself": (lambda file: file.symlink_to(file), "[Ss]ymbolic links"),
    "huge": (lambda file: (file.touch(), os.truncate(file, 2**40)), "it has more than [0-9,]+ bytes"),
}


@pytest.mark.parametrize(("make", "told"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("read", [read_bytes, read_json, read_yaml])
def test_what_is_no_regular_file_of_bounded_size_is_refused(
    make: Callable[[Path], Any], told: str, read: Callable[..., Any], tmp_path: Path
) -> None:
    make(file := tmp_path / "file")
    with pytest.raises(UnreadableError, match=f"^{re.escape(str(file))} cannot be read: .*{told}") as refused:
        read(file)
    assert refused.value.exit_code == 3


JSON: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "it is not JSON"),
    "half": ('{"a": 1', "it is not JSON"),
    "no text": (b"\xff\xfe\xfa", "it is not JSON"),
    "list": ("[]", "it contains a list instead of a dict"),
    "null": ("null", "it contains a NoneType instead of a dict"),
    "deep": ('{"a":' * 100 + "1" + "}" * 100, f"more than {MAX_DEPTH} levels deep"),
    "deeper than calls": ('{"a":' + "[" * 10**6 + "]" * 10**6 + "}", f"more than {MAX_DEPTH} levels deep"),
    "wide": ('{"a": [' + "1," * 10**6 + "1]}", "more than 1,000,000 values"),
    "long number": ('{"a": ' + "9" * 5000 + "}", "it is not JSON"),
}


@pytest.mark.parametrize(("content", "told"), JSON.values(), ids=JSON)
def test_json_is_refused(content: str | bytes, told: str, tmp_path: Path) -> None:
    text(content)(file := tmp_path / "file.json")
    with pytest.raises(UnreadableError, match=told):
        read_json(file)


LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
YAML: dict[str, tuple[str | bytes, str]] = {
    "text": ("hello", "it contains a str instead of a dict"),
    "empty": ("", "it contains a NoneType instead of a dict"),
    "open": ("a: [1, 2", "it is not YAML"),
    "no text": (b"a: \xff\xfa", "it is not YAML"),
    "laughs": ("a: &a [x, x]\n" + LAUGHS, "more than 1,000,000 values"),
    "merged laughs": (
        "a: &a {x: 1}\n" + LAUGHS.replace("[", "{<<: [").replace("]", "]}"),
        "more than 1,000,000 values",
    ),
    "cycle": ("a: &a [*a]", "alias a refers to its own container"),
    "unknown alias": ("a: *b", "alias b refers to its own container, or to nothing"),
    "deep": ("a: " + "[" * 10**5, f"more than {MAX_DEPTH} levels deep"),
    "object": ("a: !!python/object/apply:os.mkdir [marker]", "it has the tag"),
    "set": ("a: !!set {b}", "it has the tag"),
    "no number": ("a: !!int ''", "it is not plain YAML"),
    "no truth": ("a: !!bool x", "it is not plain YAML"),
    "long number": ("a: " + "1:" * 2000 + "1", "a number in it has 4001 digits"),
    "key": ("? [1]\n: 2", "it is not plain YAML"),
    "two": ("a: 1\n---\nb: 2", "it is not plain YAML"),
}


@pytest.mark.parametrize(("content", "told"), YAML.values(), ids=YAML)
def test_yaml_is_refused(content: str | bytes, told: str, tmp_path: Path) -> None:
    text(content)(file := tmp_path / "file.yaml")
    with pytest.raises(UnreadableError, match=told):
        read_yaml(file)
    assert not Path("marker").exists()


def test_yaml_is_what_hydra_reads(tmp_path: Path) -> None:
    content = (
        "a: 1e-3\nb: 1.0e-05\nc: 2020-01-01\nd: '1e-3'\ne: [010, 12:30, yes, ~, .inf, -2, 1_000, 1E5, 1e5x]\n"
        "f: &f {x: 1}\ng: {<<: *f, y: *f}\n1: 2\nh: ${a}\ni: 0x1f\n"
    )
    text(content)(file := tmp_path / "file.yaml")
    expected = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    assert repr(read_yaml(file)) == repr(expected)


def test_the_error_is_the_readers(tmp_path: Path) -> None:
    class OwnError(ValueError):
        pass

    for content in ("{", "[]", "[" * 10**6):
        text(content)(file := tmp_path / "file")
        for read in (read_json, read_yaml):
            with pytest.raises(OwnError, match="cannot be read"):
                read(file, error=OwnError)


def test_lines_that_are_no_objects_are_left_out(tmp_path: Path) -> None:
    good = [{"step": 1}, {"step": 2, "x": float("inf")}]
    lines = [json.dumps(good[0]), "{", "[1]", "[" * 10**5, '"' + "x" * 3 * 10**6, json.dumps(good[1]), "\x00"]
    text("\n".join(lines))(file := tmp_path / "file.jsonl")
    assert list(read_json_lines(file)) == good
    os.mkfifo(pipe := tmp_path / "pipe")
    with pytest.raises(UnreadableError, match="not a regular file"):
        next(read_json_lines(pipe))


@pytest.mark.parametrize(
    "content", ["[" * 2**20, "&a [" * 2**18, "a: " * 2**18, "- " * 2**19, "? " * 2**19, "1:" * 2**19]
)
def test_no_yaml_hangs(content: str, tmp_path: Path) -> None:
    text(content)(file := tmp_path / "file.yaml")
    with pytest.raises(UnreadableError):
        read_yaml(file)


def test_yaml_is_written_as_hydra_writes_it_and_read_again(tmp_path: Path) -> None:
    texts = ["1e-4", "+1E5", "1", "0.5", "true", "yes", "null", "~", "", " lead", "a: b", "#c", "'q'", '"d"', "${a.b}"]
    long = ["x" * 200 + " " + "y" * 100, "several\nlines", "12:30", "2020-01-01", "é→"]
    shared = [1e-5, 3, True, None]
    content = {"texts": [*texts, *long], "numbers": shared, "again": shared, "empty": [{}, []]}
    written = as_yaml(content)
    assert written == OmegaConf.to_yaml(OmegaConf.create(content))
    (tmp_path / "file.yaml").write_text(written)
    assert read_yaml(tmp_path / "file.yaml") == content
