"""A codec whose x has another shape than the data: nobody types it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from entry_scripts import Script
from torch import Tensor

import inkdrop
from inkdrop.codecs import Codec
from inkdrop.codecs.base import NOTHING
from inkdrop.randomness import Generators

SHORT = ("trainer.max_steps=2", "callbacks.pictures=null", "callbacks.evaluate=null", "logger=none", "device=cpu")


class Halves(Codec):
    """Keeps the first half of a vector, and brings what the batch says into the data."""

    def shape(self, raw: Sequence[int]) -> list[int]:
        return [raw[0] // 2]

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"][:, : batch["x"].shape[1] // 2].float()

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return torch.cat([x, x], 1) + 100 * batch["label"][:, None]


def test_network_and_pipeline_take_their_shape_from_the_codec(script: Script, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "points.npz", x=rng.normal(size=(60, 6)).astype(np.float32), label=np.arange(60) % 3)
    options = [
        *("experiment=moons", "data=arrays", f"data.path={tmp_path / 'points.npz'}", "data.fields.x=x"),
        *("+data.fields.label=label", "conditioner=label", "codec=pixels"),
        *(
            "codec._target_=test_encoded_shapes.Halves",
            "allow_targets=[test_encoded_shapes.]",
            "data.batch_size=16",
            "output_dir=run",
        ),
    ]
    ended = script("train.py", *options, *SHORT[:-1])
    assert ended.code == 0, ended.err
    run = Path("run")
    pipeline = inkdrop.load(run, allow_targets=["test_encoded_shapes."])
    assert pipeline.shape == (3,)
    assert pipeline.network.input.in_features == 3  # type: ignore[union-attr]
    ended = script(
        "sample.py", "checkpoint=run", "num_samples=6", "allow_targets=[test_encoded_shapes.]", "output_dir=out"
    )
    assert ended.code == 0, ended.err
    with np.load("out/samples.npz") as file:
        samples = file["x"] if "x" in file else file[file.files[0]]
    assert samples.shape == (6, 6)
    assert (np.abs(samples - 100 * (np.arange(6) % 3)[:, None]) < 50).all()
    assert json.loads((run / "result.json").read_text())["steps"] == 2
    assert torch.isfinite(torch.from_numpy(samples)).all()
