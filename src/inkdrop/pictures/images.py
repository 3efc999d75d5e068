"""The view of images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inkdrop.files.showing import file_name
from inkdrop.files.writing import write_text
from inkdrop.pictures.base import NOTHING, View, conditions_of
from inkdrop.pictures.lettering import texts_of
from inkdrop.pictures.sheets import as_array, grid, save_png

_FOLDER, _TABLE = "images", "metadata.jsonl"


class Images(View):
    """Images of 8 bits, each shown above its texts, and written as a PNG file with a line of metadata.jsonl."""

    kind = "uint8 images (C, H, W) of one or three channels"

    def fits(self, data: Tensor) -> bool:
        return data.dtype == torch.uint8 and data.dim() == 4 and data.shape[1] in (1, 3)

    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        return grid(data, columns, texts_of(batch))

    def rows(self, groups: Sequence[Tensor]) -> np.ndarray:
        columns = max(len(group) for group in groups)
        blank = groups[0].new_full((columns, *groups[0].shape[1:]), 255)
        return grid(torch.cat([torch.cat([group, blank[len(group) :]]) for group in groups]), columns)

    def array(self, data: Tensor) -> np.ndarray:
        return as_array(data)

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        labels = batch["label"].tolist() if "label" in batch else None
        return [f"{_FOLDER}/{name}" for name in (*image_names(seeds, labels, classes), _TABLE)]

    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        """Writes a PNG file for each image below `images/`, and `metadata.jsonl` there, which `image_folder` reads."""
        *images, table = self.files(data, batch, seeds, classes)
        for name, each in zip(images, as_array(data), strict=True):
            save_png(each, folder / name)
        lines = []
        conditions = conditions_of(batch, classes)
        for number, (name, seed) in enumerate(zip(images, seeds, strict=True)):
            known = {field: values[number] for field, values in conditions.items()}
            row = {"file_name": name.removeprefix(f"{_FOLDER}/"), "seed": seed, **known}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        write_text(folder / table, "".join(lines))


def image_names(seeds: Sequence[int], labels: Sequence[int] | None = None, classes: Sequence[str] = ()) -> list[str]:
    """Returns the names of the PNG file of each sample: the seed, and the class if classes have names."""
    if labels is None or not classes:
        return [f"{seed:06d}.png" for seed in seeds]
    return [f"{seed:06d}-{file_name(classes[label])}.png" for seed, label in zip(seeds, labels, strict=True)]
