"""What is shown does nothing: to a terminal, in Markdown, in a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cases import every

from inkdrop.files.showing import cell, harmless, harmless_lines, markdown

TERMINAL = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\nb", "a\x08b", "\u202eabc", "\u2066", "\u200b",
            "\u2028", "\x00", "\x7f", "\ud800", "\ufeff", "\U000e0041"]  # fmt: skip


@every({f"{show.__name__} {text!r}": (show, text) for show in (harmless, markdown, cell) for text in TERMINAL})
def test_nothing_that_a_terminal_obeys_is_left(case: tuple[Callable[[str], str], str]) -> None:
    show, text = case
    told = show(f"before {text} after")
    assert told.isprintable()
    assert told.startswith("before ")
    assert told.endswith(" after")
    told.encode()


def test_ordinary_texts_stay() -> None:
    for text in (
        "fd_digits_20",
        "runs/a b/Straße/日本語",
        "train/loss",
        "5.3",
        "-5.3",
        "1e-05",
        "a=b",
        "inf",
        "",
        "DDIM",
    ):
        assert harmless(text) == markdown(text) == cell(text) == text


def test_length_is_bounded() -> None:
    assert len(harmless("\x1b" * 10**6)) < 1500
    assert harmless("x" * 1000).endswith(" (1,000 characters)")
    told = harmless_lines("\n".join(f"line {number}" for number in range(10**5)))
    assert told.endswith("and 99940 more lines")
    assert harmless_lines("a\n  b\x1b") == "a\n  b\\x1b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# x", "\\# x"),
        ("=====", "\\====="),
        ("- x", "\\- x"),
        ("1. x", "1\\. x"),
        ("a|b", "a\\|b"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("![a](b)", "!\\[a\\](b)"),
        ("`a`", "\\`a\\`"),
        ("a\\", "a\\\\"),
    ],
)
def test_markdown_begins_nothing(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("  =1+1", "'  =1+1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("＝1+1", "'＝1+1"),
        ("a;=1+1", "a;'=1+1"),
        ("-2.5", "-2.5"),
        (-2.5, -2.5),
        (3, 3),
        (None, None),
    ],
)
def test_a_spreadsheet_computes_nothing(value: Any, shown: Any) -> None:
    assert cell(value) == shown
