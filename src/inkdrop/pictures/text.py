"""The view of texts."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from inkdrop.files.showing import cell, harmless
from inkdrop.files.texts import decoded, is_text
from inkdrop.files.writing import make_folder, write_text
from inkdrop.pictures.base import NOTHING, View
from inkdrop.pictures.lettering import broken
from inkdrop.pictures.tables import described, write_table

_LINES, _TABLE = "samples.txt", "samples.csv"
_MOST = 32  # texts of a sheet
_LETTERS, _LINE, _GAP, _MARGIN = 14, 20, 10, 16  # pixels: height of letters, line, between texts, around all
_WIDTH, _NUMBER = 900, 60  # pixels of a sheet, and of the column of numbers
_LONGEST = 12  # lines of a text; the rest is cut off
_INK, _PALE, _RULE = (20, 20, 20), (150, 150, 150), (225, 225, 225)


class Text(View):
    """Texts (W), UTF-8 in uint8: a typeset sheet of the first 32, and `samples.txt` with a text in each line.

    Below each sample stands the text that it is made from, if there is one: a field `source` or `known`. In frames of
    a batch that is denoised, words that are still open are `_`.
    """

    kind = "texts, UTF-8 in uint8"

    def fits(self, data: Tensor) -> bool:
        return is_text(data)

    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        blocks = _blocks(data, batch)
        return _typeset(blocks, [_height(block) for block in blocks])

    def frames(self, states: Sequence[Tensor], batch: Mapping[str, Tensor] = NOTHING) -> list[np.ndarray]:
        each = [_blocks(state, batch) for state in states]
        heights = [max(map(_height, blocks)) for blocks in zip(*each, strict=True)]
        return [_typeset(blocks, heights) for blocks in each]

    def array(self, data: Tensor) -> np.ndarray:
        """Returns the texts as an array of strings."""
        return np.array(decoded(data), str)

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        return [_LINES, _TABLE]

    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        """Writes `samples.txt`, a seed, a tab and a text in each line, and `samples.csv`, which also has conditions."""
        texts = [_line(text) for text in decoded(data)]
        make_folder(folder)
        write_text(folder / _LINES, "".join(f"{seed}\t{text}\n" for seed, text in zip(seeds, texts, strict=True)))
        names, rows = described(batch, seeds, classes)
        write_table(
            folder / _TABLE, [*names, "text"], ([*row, cell(text)] for row, text in zip(rows, texts, strict=True))
        )


def _line(text: str) -> str:
    """Returns a text in one line, without what could control a terminal."""
    return harmless(" ".join(text.split()), len(text) + 1)


def _blocks(data: Tensor, batch: Mapping[str, Tensor]) -> list[tuple[list[str], list[str]]]:
    """Returns the lines of each of the first texts, and those of what it is made from."""
    shown = [_wrapped(text) for text in decoded(data[:_MOST])]
    given = next((batch[name] for name in ("known", "source") if name in batch and is_text(batch[name])), None)
    below = [[] for _ in shown] if given is None else [_wrapped(text) for text in decoded(given[:_MOST])]
    return list(zip(shown, below, strict=True))


def _wrapped(text: str) -> list[str]:
    return broken([_line(text)], _WIDTH - _NUMBER - 2 * _MARGIN, _font(), _LONGEST)


def _height(block: tuple[list[str], list[str]]) -> int:
    return _LINE * sum(map(len, block)) + _GAP


def _typeset(blocks: Sequence[tuple[list[str], list[str]]], heights: Sequence[int]) -> np.ndarray:
    """Draws texts one below the other, each in its height, with their numbers, as an array (H, W, 3)."""
    sheet = Image.new("RGB", (_WIDTH, 2 * _MARGIN + sum(heights)), "white")
    draw, top = ImageDraw.Draw(sheet), _MARGIN
    for number, ((lines, below), height) in enumerate(zip(blocks, heights, strict=True)):
        draw.text((_MARGIN, top), str(number), _PALE, _font())
        for row, line in enumerate([*lines, *below]):
            ink = _INK if row < len(lines) else _PALE
            draw.text((_MARGIN + _NUMBER, top + row * _LINE), line, ink, _font())
        top += height
        rule = top - _GAP // 2
        draw.line((_MARGIN, rule, _WIDTH - _MARGIN, rule), _RULE)
    return np.asarray(sheet)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf", _LETTERS)
