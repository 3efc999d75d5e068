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
    lines = [broken(each, width - _MARGIN, _font(), _MOST_LINES) for each in texts]
    height = _LINE * max(map(len, lines)) + 2
    strips = []
    for each in lines:
        strip = Image.new("L", (width, height), 255)
        ImageDraw.Draw(strip).multiline_text((_MARGIN // 2, 0), "\n".join(each), 0, _font(), spacing=_LINE - _SIZE)
        strips.append(np.asarray(strip))
    return np.stack(strips)[..., None].repeat(channels, 3)


def broken(texts: Sequence[str], width: int, font: ImageFont.FreeTypeFont, most: int) -> list[str]:
    """Returns the first lines of texts, each of which begins a line, broken at spaces or within too long words.

    - `texts`: the texts.
    - `width`: the pixels of a line.
    - `font`: the letters.
    - `most`: the largest number of lines; the rest is cut off.
    """
    lines: list[str] = []
    for text in texts:
        line = ""
        for word in text.split(" "):
            if line and font.getlength(f"{line} {word}") > width:
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while (fits := _fitting(line, width, font)) < len(line):
                lines.append(line[:fits])
                line = line[fits:]
        lines.append(line)
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    return [*lines[: most - 1], f"{last[: _fitting(last, width, font, '…')]}…"]


def _fitting(line: str, width: int, font: ImageFont.FreeTypeFont, end: str = "") -> int:
    """How many of the first letters of a line fit with its end, at least one."""
    return next((count for count in range(len(line), 1, -1) if font.getlength(line[:count] + end) <= width), 1)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", _SIZE)
