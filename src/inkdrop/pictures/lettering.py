"""Texts under the images of a sheet."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inkdrop.files.texts import decoded, is_text

_SIZE, _LINE = 10, 13  # pixels of letters, and from one line to the next
_MARGIN = 4  # pixels of a line without letters
_MOST_LINES = 5  # of all texts of an image; the rest is cut off


def texts_of(batch: Mapping[str, Tensor]) -> list[list[str]]:
    """Returns the texts of each item of a batch, or nothing if it has no texts."""
    fields = [decoded(values) for values in batch.values() if is_text(values)]
    return [[" ".join(text.split()) for text in texts] for texts in zip(*fields, strict=True)]


def lettered(texts: Sequence[Sequence[str]], width: int, channels: int) -> np.ndarray:
    """Returns the texts of each image, black on white and broken into lines of this width, as (B, H, width, C)."""
    lines = [_lines(each, width) for each in texts]
    height = _LINE * max(map(len, lines)) + 2
    strips = []
    for each in lines:
        strip = Image.new("L", (width, height), 255)
        ImageDraw.Draw(strip).multiline_text((_MARGIN // 2, 0), "\n".join(each), 0, _font(), spacing=_LINE - _SIZE)
        strips.append(np.asarray(strip))
    return np.stack(strips)[..., None].repeat(channels, 3)


def _lines(texts: Sequence[str], width: int) -> list[str]:
    """Texts, each of which begins a line, broken at spaces, or within words that are longer than a line."""
    lines: list[str] = []
    for text in texts:
        line = ""
        for word in text.split(" "):
            if line and _length(f"{line} {word}") > width - _MARGIN:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while (fits := _fitting(line, width)) < len(line):
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    if len(lines) <= _MOST_LINES:
        return lines
    last = lines[_MOST_LINES - 1]
    return [*lines[: _MOST_LINES - 1], f"{last[: _fitting(last, width, '…')]}…"]


def _fitting(line: str, width: int, end: str = "") -> int:
    """How many of the first letters of a line fit with its end, at least one."""
    return next((count for count in range(len(line), 1, -1) if _length(line[:count] + end) <= width - _MARGIN), 1)


def _length(text: str) -> float:
    return _font().getlength(text)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", _SIZE)
