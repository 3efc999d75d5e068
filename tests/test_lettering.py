"""Texts under the images of a sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from inkdrop.files.texts import encoded
from inkdrop.pictures import Images
from inkdrop.pictures.lettering import _MARGIN, _MOST_LINES, _font, broken, lettered, texts_of


def test_an_image_is_above_its_texts() -> None:
    images = torch.randint(1, 200, (3, 3, 8, 16), dtype=torch.uint8)
    batch = {"caption": encoded(["a red circle", "", "a\nred  circle"]), "label": torch.arange(3)}
    sheet, plain = Images().sheet(images, batch, columns=3), Images().sheet(images, columns=3)
    assert plain.shape == (2 + 48 + 2, 3 * (96 + 2) + 2, 3)
    assert np.array_equal(plain, Images().sheet(images, {"label": batch["label"]}, columns=3))
    large = images.permute(0, 2, 3, 1).numpy().repeat(12, 1).repeat(12, 2)
    below = []
    for number, image in enumerate(large):
        left = 2 + number * (192 + 2)
        assert np.array_equal(sheet[2:98, left : left + 192], image)
        below.append(sheet[98:, left : left + 192])
    assert below[0].min() < 100
    assert below[1].min() == 255
    assert np.array_equal(below[0], below[2])  # spaces and line breaks are one space
    assert (sheet[-2:] == 255).all()


def lines_of(texts: Sequence[str], width: int) -> list[str]:
    return broken(texts, width - _MARGIN, _font(), _MOST_LINES)


@pytest.mark.parametrize("channels", [1, 3])
def test_long_texts_are_broken_and_cut_to_the_width(channels: int) -> None:
    texts = [["x" * 100, "two"], ["word " * 60], ["a", "b"]]
    for text in texts:
        lines = lines_of(text, 96)
        assert len(lines) <= 5
        assert all(_font().getlength(line) <= 92 for line in lines)
    assert lines_of(texts[1], 96)[-1].endswith("…")
    assert lines_of(texts[2], 96) == ["a", "b"]
    assert "".join(lines_of(["x" * 40], 96)) == "x" * 40
    assert lines_of(["abc"], 5) == ["a", "b", "c"]
    assert lettered(texts, 96, channels).shape == (3, 67, 96, channels)


def test_the_texts_are_all_fields_of_texts() -> None:
    batch = {"caption": encoded(["a", "b"]), "x": torch.zeros(2, 3, 8, 8), "source": encoded(["größer", "d"])}
    assert texts_of(batch) == [["a", "größer"], ["b", "d"]]
    assert texts_of({"label": torch.arange(2)}) == []
